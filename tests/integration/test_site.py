"""The main job on a fresh lab: bad input is refused, site.yml installs all, a second run changes nothing, it scales.

The tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.integration.running_lab import REPOSITORY, eventually

METRIC = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/riva/pods/*/avg_time_queue_ms"
INVENTORY = yaml.safe_load((REPOSITORY / "inventories/lab/group_vars/riva_clusters.yml").read_text())


def recap(output: str) -> dict[str, int]:
    """The numbers of Ansible's last line."""
    line = next(line for line in reversed(output.splitlines()) if re.match(r"lab +: ok=", line))
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}


def changes(output: str) -> list[str]:
    """The tasks that say they changed something."""
    found, task = [], ""
    for line in output.splitlines():
        if line.startswith("TASK ["):
            task = line.strip("* ")
        elif line.startswith("changed: "):
            found.append(f"{task} {line}")
    return found


def extra(**values) -> tuple[str, str]:
    return "-e", json.dumps(values)


BAD_INPUT = {
    "missing kubeconfig": (
        {"cluster_kubeconfig": "/nowhere/admin.kubeconfig"},
        ["cluster_kubeconfig", "/nowhere/admin.kubeconfig"],
    ),
    "wrong type": ({"traefik_timeout": "soon"}, ["traefik_timeout"]),
    "unknown key": ({"traefik_tiemout": 10}, ["traefik_tiemout", "traefik_timeout"]),
    "unknown key of a service": (
        {"riva_services": [{"name": "riva-asr", "max_replica": 3}]},
        ["max_replica", "max_replicas", "riva_services"],
    ),
    "chart that is not there": (
        {"traefik_chart_ref": "/nowhere/traefik"},
        ["traefik_chart_ref", "/nowhere/traefik"],
    ),
    "no GPU node": ({"gpu_operator_enabled": False}, ["gpu", "gpu_operator_enabled"]),
}


@pytest.mark.parametrize(("values", "words"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_named_before_anything_is_changed(lab, values, words):
    done = lab.play("site.yml", *extra(**values), check=False)
    assert done.returncode != 0, done.stdout
    assert [word for word in words if word not in done.stdout] == [], done.stdout
    assert recap(done.stdout)["changed"] == 0
    namespaces = {item["metadata"]["name"] for item in lab.get("namespaces")["items"]}
    assert not namespaces & {"monitoring", "gpu-operator", "traefik", "riva"}


def test_an_unreachable_apiserver_is_named(lab, tmp_path):
    text = yaml.safe_load(Path(lab.kubeconfig).read_text())
    text["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(text))
    done = lab.play("site.yml", *extra(cluster_kubeconfig=str(file)), check=False)
    assert done.returncode != 0
    assert "https://127.0.0.1:9" in done.stdout
    assert "cluster_kubeconfig" in done.stdout


def test_check_mode_works_before_anything_is_installed(lab):
    done = lab.play("site.yml", "--check")
    assert recap(done.stdout)["failed"] == 0
    assert "riva" not in {item["metadata"]["name"] for item in lab.get("namespaces")["items"]}


def test_site_installs_everything_and_proves_each_link(lab):
    done = lab.play("site.yml")
    assert recap(done.stdout)["changed"] > 0
    releases = {item["metadata"]["namespace"] for item in lab.get("deployments", "-A")["items"]}
    assert releases >= {"monitoring", "gpu-operator", "traefik", "riva"}


def test_a_second_run_changes_nothing(lab):
    output = lab.play("site.yml").stdout
    assert changes(output) == []
    assert recap(output)["changed"] == 0


def test_check_mode_says_no_change(lab):
    output = lab.play("site.yml", "--check").stdout
    assert changes(output) == []
    assert recap(output)["changed"] == 0


def test_the_metric_has_a_value_for_the_running_pod(lab):
    pods = [item["metadata"]["name"] for item in lab.get("pods", "-n", "riva")["items"]]
    values = json.loads(lab.kubectl("get", "--raw", METRIC))["items"]
    assert [value["describedObject"]["name"] for value in values] == pods


def test_the_hpa_shows_a_number(lab):
    status = lab.get("hpa", "riva-asr", "-n", "riva")["status"]
    assert status["currentMetrics"][0]["pods"]["current"]["averageValue"] is not None
    assert status["currentMetrics"][1]["external"]["current"]["averageValue"] is not None
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions["ScalingActive"] == "True"


def test_the_hpa_follows_the_load(lab, tmp_path):
    """Streams for three pods: up to three, back to one, no stream lost, and a report with pictures."""
    # No steeper than pods can follow: the first one refuses what is beyond its limit.
    profile = [{"streams": 4, "duration": 10}, {"streams": 32, "duration": 125, "ramp": 100}]
    done = lab.play(
        "playbooks/load_test.yml",
        *extra(
            load_test_profile=profile,
            load_test_report_folder=str(tmp_path),
            load_test_expect_replicas=[1, 3, 1],
            load_test_tail_seconds=300,
        ),
        check=False,
    )
    assert done.returncode == 0, done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["streams"]["failed"] == 0
    assert summary["streams"]["finished"] == summary["streams"]["opened"] > 100
    assert "<svg" in (tmp_path / "index.html").read_text()


def test_verify_sees_a_pod_that_cannot_be_reached(lab):
    """The cable of the only pod is out: verify fails and names what is broken; plugged in again, all is well."""

    def only_pod():
        pods = [pod for pod in lab.get("pods", "-n", "riva")["items"] if "deletionTimestamp" not in pod["metadata"]]
        return pods[0]["metadata"]["name"] if len(pods) == 1 else None

    def broken():
        done = lab.play("playbooks/verify.yml", check=False)
        return done.stdout if done.returncode else None

    lab.command("fault", "pod-cut", "riva", eventually(only_pod, 60))
    try:
        output = eventually(broken, 120)
    finally:
        lab.command("fault", "heal")
    assert re.search(r"^\s*failed +(answer|endpoints|pods|target)", output, re.MULTILINE), output
    eventually(lambda: lab.play("playbooks/verify.yml", check=False).returncode == 0, 180)


def test_memory_stays_below_three_gibibytes(lab):
    assert 200 < lab.state["memory_mib"] < 3072
