# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done with a release that was left half-way."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.releases import recovery


def history(*statuses):
    return [{"revision": number, "status": status} for number, status in enumerate(statuses, 1)]


CASES = [
    ((), "none", None),
    (("deployed",), "none", None),
    (("superseded", "deployed"), "none", None),
    (("pending-install",), "uninstall", None),
    (("failed",), "uninstall", None),
    (("failed", "failed"), "uninstall", None),
    (("deployed", "pending-upgrade"), "rollback", 1),
    (("deployed", "failed"), "rollback", 1),
    (("superseded", "superseded", "failed", "pending-upgrade"), "rollback", 2),
    (("superseded", "deployed", "pending-rollback"), "rollback", 2),
    (("deployed", "uninstalling"), "uninstall", None),
    (("uninstalling",), "uninstall", None),
]


@pytest.mark.parametrize(("statuses", "action", "revision"), CASES)
def test_recovery(statuses, action, revision):
    plan = recovery(history(*statuses))
    assert (plan["action"], plan["revision"]) == (action, revision)
    assert plan["words"]


def test_the_order_of_the_history_does_not_matter():
    plan = recovery(list(reversed(history("superseded", "deployed", "failed"))))
    assert plan["revision"] == 2
    assert "revision 3 was left in failed" in plan["reason"]
