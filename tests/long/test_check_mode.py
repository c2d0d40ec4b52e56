"""`--check --diff` tells the truth: it names the very tasks that then change something, and changes nothing itself."""

from __future__ import annotations

import json

import pytest

from tests.integration.test_site import changes, extra, recap

# Three releases get other values, and two things were changed by somebody else.
WANTED = {"riva_longest_stream_seconds": 55, "traefik_access_log": False, "prometheus_adapter_exclude_models": ["idle"]}
LABEL = "pod-security.kubernetes.io/enforce"
MONITOR = ("servicemonitor", "riva-asr", "-n", "riva")


def state(lab) -> dict:
    """What a run could change: generation and labels of what the releases are made of, and Helm's own Secrets."""
    kinds = "deployments,services,configmaps,secrets,servicemonitors,ingressroutes,horizontalpodautoscalers,namespaces"
    kept = {}
    for item in lab.get(kinds, "--all-namespaces")["items"]:
        meta = item["metadata"]
        content = {key: value for key, value in item.items() if key not in ("metadata", "status")}
        kept[item["kind"], meta.get("namespace"), meta["name"]] = (meta.get("labels"), content)
    return kept


@pytest.fixture(scope="module")
def told(installed):
    """What check mode says of it, what is there before and after, then what the run says, and check mode once more."""
    installed.play("site.yml")
    installed.kubectl("label", "namespace", "riva", f"{LABEL}-")
    patch = json.dumps([{"op": "replace", "path": "/spec/endpoints/0/interval", "value": "59s"}])
    installed.kubectl("patch", *MONITOR, "--type=json", f"--patch={patch}")
    seen = {"before": state(installed)}
    # Prometheus Operator and the like write to their own objects while the play runs; not to these.
    seen["check"] = installed.play("site.yml", "--check", "--diff", *extra(**WANTED)).stdout
    seen["after"] = state(installed)
    seen["run"] = installed.play("site.yml", *extra(**WANTED)).stdout
    seen["again"] = installed.play("site.yml", "--check", "--diff", *extra(**WANTED)).stdout
    yield seen
    installed.play("site.yml")


def tasks(output: str) -> set[str]:
    """The tasks that changed something, as they are named."""
    return {line.split("]")[0] for line in changes(output)}


def test_check_mode_changes_nothing(told):
    assert told["after"] == told["before"]


def test_check_mode_names_what_the_run_then_changes(told):
    found = tasks(told["check"])
    for release in ("traefik", "riva-asr", "prometheus-adapter"):
        assert any(f"Helm has installed release {release}" in task for task in found), release
    assert any("The labels are on namespace riva" in task for task in found)
    assert found == tasks(told["run"])


def test_after_the_run_check_mode_has_nothing_to_say(told):
    assert changes(told["again"]) == []
    assert recap(told["again"])["failed"] == 0


def test_what_somebody_else_changed_alone_is_told_and_mended(told, installed):
    """Where the release itself stays as it is."""
    patch = json.dumps([{"op": "replace", "path": "/spec/endpoints/0/interval", "value": "59s"}])
    installed.kubectl("patch", *MONITOR, "--type=json", f"--patch={patch}")
    words = ("site.yml", "--tags", "riva", *extra(**WANTED))
    check = installed.play(*words, "--check").stdout
    assert any("what others changed in release riva-asr" in task for task in tasks(check))
    assert installed.get(*MONITOR)["spec"]["endpoints"][0]["interval"] == "59s"
    assert tasks(installed.play(*words).stdout) == tasks(check)
    assert installed.get(*MONITOR)["spec"]["endpoints"][0]["interval"] != "59s"


def test_a_cluster_that_limit_leaves_out_is_not_touched(installed):
    done = installed.play("site.yml", "--limit", "all:!lab", check=False)
    assert "TASK [" not in done.stdout
