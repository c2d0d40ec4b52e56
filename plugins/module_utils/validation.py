# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What the validators share: their options, the wait with one deadline, and how a result is told."""

from collections.abc import Callable, Sequence

from ansible_collections.speechops.riva.plugins.module_utils import waiting
from ansible_collections.speechops.riva.plugins.module_utils.cluster import (
    Cluster,
    Deadline,
    auth_argument_spec,
    connect,
)
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError, one_line
from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    FAILED,
    Finding,
    fails,
    summary,
    table,
    worst,
)

# examine(cluster) -> (findings, facts)
Examine = Callable[[Cluster], tuple[Sequence[Finding], dict]]


def argument_spec(**own: dict) -> dict:
    """kubernetes.core's authentication options, the common options, and the module's own."""
    return {
        **auth_argument_spec(),
        "wait": {"type": "bool", "default": False},
        "wait_timeout": {"type": "int", "default": 120},
        "wait_sleep": {"type": "int", "default": 5},
        "fail_on": {"type": "str", "default": "failed", "choices": ["failed", "warning", "never"]},
        **own,
    }


def input_errors(params: dict) -> list[str]:
    return [
        f"{option} is {params[option]}; expected 1 or more seconds"
        for option in ("wait_timeout", "wait_sleep")
        if params[option] < 1
    ]


def api_finding(error: ClusterError, subject: str) -> Finding:
    return Finding("api", subject, FAILED, str(error), error.remedy)


def run(module, title: str, examine: Examine, errors: Sequence[str] = ()) -> None:
    """Examines the cluster until nothing is broken or the deadline is over, then tells the module's caller."""
    params = module.params
    errors = [*errors, *input_errors(params)]
    if errors:
        module.fail_json(msg="\n".join(["wrong input:", *(f"  {error}" for error in errors)]))
    fail_on = params["fail_on"]
    deadline = Deadline(params["wait_timeout"])
    try:
        cluster = connect(module, deadline)
    except ClusterError as error:
        tell(module, title, [api_finding(error, params.get("context") or "cluster")], {}, fail_on)
        return
    tell(module, title, *look(cluster, examine, params), fail_on)


def look(cluster: Cluster, examine: Examine, params: dict) -> tuple[list[Finding], dict]:
    """One look, or with wait as many as fit before the deadline; the last complete one counts."""
    level = "warning" if params["fail_on"] == "warning" else "failed"
    last: tuple[list[Finding], dict] | None = None
    while True:
        transient = True
        try:
            found, facts = examine(cluster)
            last = list(found), facts
        except ClusterError as error:
            transient = error.transient
            # Out of time in the middle of a look: the last complete look says more than «too late».
            if not (cluster.deadline.passed() and last):
                last = [api_finding(error, cluster.host)], {}
        if not params["wait"] or not transient or not fails(last[0], level):
            return last
        left = cluster.deadline.left()
        if left <= params["wait_sleep"]:
            return last
        waiting.say(awaited(last[0], level), cluster.deadline.seconds - left, cluster.deadline.seconds)
        cluster.sleep(params["wait_sleep"])


def awaited(found: Sequence[Finding], level: str) -> str:
    """The first cause among the findings that keep the look from being the last, and how many there are beside it."""
    broken = [finding for finding in found if fails([finding], level)]
    # What follows from another one has no remedy.
    first = next((finding for finding in broken if finding.remedy), broken[0])
    more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"{first.check}, {first.subject}: {one_line(first.message, 160)}{more}"


def tell(module, title: str, findings: Sequence[Finding], facts: dict, fail_on: str) -> None:
    result = {
        "changed": False,
        "ok": not fails(findings, "failed" if fail_on == "never" else fail_on),
        "status": worst(findings),
        "findings": [finding.to_dict() for finding in findings],
        "table": table(findings),
        **facts,
    }
    if fails(findings, fail_on):
        waited = f" (waited {module.params['wait_timeout']} s)" if module.params["wait"] else ""
        first = f", first broken link: {facts['first_broken']}" if facts.get("first_broken") else ""
        module.fail_json(msg=summary(f"{title}{first}{waited}:", findings, fail_on), **result)
    module.exit_json(**result)
