# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs in the cluster has the least rights that its chart can give; each wider one has its reason in the docs."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit import charts
from tests.unit.roles.rights import FIXTURE, ROOT, beyond_reading, of_role, values_of_roles

MADE = json.loads(FIXTURE.read_text())
RIGHTS = MADE["rights"]
PAGE = (ROOT / "docs" / "security.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the table below a heading, by the ClusterRole in their first cell."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| `")]
    return {re.match(r" `([^`]+)`", row[0]).group(1): [cell.strip() for cell in row] for row in rows}


def test_each_cluster_role_that_does_more_than_read_has_its_reason():
    wide = {name for roles in RIGHTS.values() for name, rights in roles.items() if rights}
    told = table("Rights in the whole cluster")
    assert set(told) == wide
    assert [name for name, row in told.items() if not all(row)] == []


def test_the_fixture_was_made_with_what_the_roles_set_now():
    assert MADE["values"] == values_of_roles()


def test_what_the_roles_narrow_is_narrow():
    """By the charts' own keys: no ClusterRole for Traefik, no Secrets for kube-state-metrics, our metrics only."""
    assert RIGHTS["traefik"] == {}
    assert RIGHTS["kube-prometheus-stack"]["kube-prometheus-stack-kube-state-metrics"] == []
    narrowed = of_role("prometheus_adapter", "__prometheus_adapter_values")["rbac"]
    assert RIGHTS["prometheus-adapter"]["prometheus-adapter-server-resources"] == sorted(
        f"*: {name}.custom.metrics.k8s.io" for name in narrowed["customMetrics"]["resources"]
    )
    metrics = (ROOT / "roles/prometheus_adapter/vars/main.yml").read_text()
    for name in [*narrowed["customMetrics"]["resources"], *narrowed["externalMetrics"]["resources"]]:
        assert len(re.findall(rf"\b{name.removeprefix('pods/')}\b", metrics + (ROOT / SCALING).read_text())) > 1, name


SCALING = "plugins/module_utils/scaling_rules.py"


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}], []),
        ([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}], ["list: secrets"]),
        ([{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}], ["get: *"]),
        ([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}], ["*: deployments.apps"]),
        ([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}], []),
    ],
)
def test_what_goes_beyond_reading(rules, found):
    assert beyond_reading(rules) == found


def test_the_labs_traefik_has_the_same_rights_as_upstreams():
    objects = charts.rendered(ROOT / "lab/charts/traefik", values_of_roles()["traefik"], "traefik", "traefik")
    kinds = [item["kind"] for item in objects]
    assert "ClusterRole" not in kinds
    assert kinds.count("Role") == 2


def test_the_labs_keda_changes_no_more_than_upstreams():
    objects = charts.rendered(ROOT / "lab/charts/keda", values_of_roles()["keda"], "keda", "keda")
    roles = [item for item in objects if item["kind"] == "ClusterRole"]
    upstreams = {right for rights in RIGHTS["keda"].values() for right in rights}
    found = {right for item in roles for right in beyond_reading(item["rules"])}
    # The lab's has one rule for all of KEDA's own kinds.
    assert {right for right in found - upstreams if "keda.sh" not in right} == set()
    assert [right for right in upstreams | found if "secrets" in right or right.endswith(": *.*")] == []


def test_our_own_chart_asks_for_no_rights():
    kinds = {item["kind"] for item in charts.rendered(charts.RIVA)}
    assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"}
