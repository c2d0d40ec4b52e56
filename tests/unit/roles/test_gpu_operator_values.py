# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values that the role gpu_operator makes of its variables, as Ansible renders them, and what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import workloads

from tests.unit.lab.upstream_keys import unknown_keys

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "gpu_operator"
SECRETS = {"gpu_operator_ngc_api_key": "planted-api-key", "gpu_operator_licence_token": "planted-token"}
SHARED = {"name": "shared", "nodes": ["gpu-1"], "sharing": "time-slicing", "replicas": 4}
SLICED = {"name": "sliced", "nodes": ["gpu-2"], "mig_strategy": "mixed", "mig_layout": "all-balanced"}
LAYOUT = {"mine": [{"devices": "all", "mig-enabled": True, "mig-devices": {"1g.10gb": 7}}]}
CASES = {
    "plain": {},
    "driver version": {"gpu_operator_driver_version": "580.159.04"},
    "groups": {"gpu_operator_groups": [SHARED, SLICED]},
    "mps": {"gpu_operator_sharing": "mps", "gpu_operator_replicas": 4, "gpu_operator_mig_strategy": "none"},
    "layouts": {"gpu_operator_mig_layouts": LAYOUT, "gpu_operator_groups": [{**SLICED, "mig_layout": "mine"}]},
    "enterprise": {"gpu_operator_edition": "enterprise", **SECRETS},
    "enterprise without a key": {"gpu_operator_edition": "enterprise", "gpu_operator_licence_token": "t"},
    "enterprise without a licence": {"gpu_operator_edition": "enterprise", "gpu_operator_ngc_api_key": "k"},
    "enterprise without its driver": {
        "gpu_operator_edition": "enterprise",
        "gpu_operator_driver_enabled": False,
        **SECRETS,
    },
    "slices without a manager": {"gpu_operator_groups": [SLICED], "gpu_operator_mig_manager_enabled": False},
    "sharing that shares nothing": {"gpu_operator_sharing": "time-slicing"},
    "mps of slices": {"gpu_operator_groups": [{**SHARED, "sharing": "mps"}]},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """{case: {values, problems}}"""
    folder = tmp_path_factory.mktemp("rendered")
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    # By their absence these two say that nobody decided.
    open_ones = ("gpu_operator_driver_enabled", "gpu_operator_nfd_enabled")
    settled = {name: value for name, value in defaults.items() if name not in open_ones}
    hosts = {name.replace(" ", "-"): {**settled, **variables} for name, variables in CASES.items()}
    content = "{{ {'values': __gpu_operator_values, 'problems': __gpu_operator_problems} | to_json }}"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {name: f"{{{{ hostvars[inventory_hostname]['{name}'] | default(true) }}}}" for name in open_ones},
        "tasks": [
            {"include_vars": {"file": str(ROLE / "vars/main.yml")}},
            # No module, whose process would take longer than all else.
            {"debug": {"msg": content}},
        ],
    }
    playbook, inventory = folder / "play.yml", folder / "hosts.json"
    playbook.write_text(yaml.safe_dump([play]))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": here}}))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", inventory, playbook],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "AS_LINES": str(folder / "lines"),
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "as_lines",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (folder / "lines").read_text().splitlines()]
    told = {line["host"]: json.loads(line["msg"]) for line in lines if line["action"].endswith("debug")}
    return {name: told[name.replace(" ", "-")] for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_upstream_knows_every_key(rendered, case):
    assert unknown_keys(rendered[case]["values"], "gpu-operator") == []


def test_what_nobody_asked_for_is_left_to_the_chart(rendered):
    values = rendered["plain"]["values"]
    assert "devicePlugin" not in values
    assert "config" not in values["migManager"]
    assert "version" not in values["driver"]
    assert rendered["plain"]["problems"] == []


def test_each_group_has_a_configuration(rendered):
    data = {name: json.loads(text) for name, text in configuration(rendered["groups"])["data"].items()}
    assert set(data) == {"default", "shared", "sliced"}
    assert data["default"] == {"version": "v1", "flags": {"migStrategy": "single"}}
    assert data["sliced"]["flags"] == {"migStrategy": "mixed"}
    assert data["shared"]["sharing"]["timeSlicing"]["resources"] == [{"name": "nvidia.com/gpu", "replicas": 4}]
    assert rendered["groups"]["problems"] == []


def configuration(case):
    return case["values"]["devicePlugin"]["config"]


def test_mps_for_all(rendered):
    assert "mps" in json.loads(configuration(rendered["mps"])["data"]["default"])["sharing"]


def test_layouts_of_ones_own(rendered):
    config = rendered["layouts"]["values"]["migManager"]["config"]
    assert yaml.safe_load(config["data"]["config.yaml"]) == {"version": "v1", "mig-configs": LAYOUT}
    assert (config["create"], bool(config["name"])) == (True, True)


def test_the_enterprise_edition_has_its_driver_and_no_secret_in_the_values(rendered):
    driver = rendered["enterprise"]["values"]["driver"]
    assert driver["repository"] == "nvcr.io/nvaie"
    assert driver["imagePullSecrets"] == ["ngc-secret"]
    assert driver["licensingConfig"] == {"secretName": "licensing-config", "nlsEnabled": True}
    assert rendered["enterprise"]["problems"] == []
    text = json.dumps(rendered["enterprise"])
    assert [secret for secret in SECRETS.values() if secret in text] == []


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("enterprise without a key", "gpu_operator_ngc_api_key is empty"),
        ("enterprise without a licence", "gpu_operator_licence_token is empty"),
        ("enterprise without its driver", "gpu_operator_driver_enabled is false"),
        ("slices without a manager", "gpu_operator_mig_manager_enabled is false"),
        ("sharing that shares nothing", "gpu_operator: sharing is time-slicing with replicas 1"),
        ("mps of slices", "gpu_operator_groups[0]: MPS cannot share MIG slices"),
    ],
)
def test_what_cannot_be_is_refused(rendered, case, words):
    (problem,) = rendered[case]["problems"]
    assert words in problem


POLICY = {
    "kind": "ClusterPolicy",
    "metadata": {"name": "cluster-policy"},
    "status": {"state": "ready", "conditions": [{"type": "Ready", "status": "True", "reason": "Reconciled"}]},
}
NODES = [
    {"kind": "Node", "metadata": {"name": f"gpu-{number}"}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}}
    for number in (1, 2)
]
VALIDATOR = {
    "kind": "DaemonSet",
    "metadata": {"name": "nvidia-operator-validator", "generation": 1},
    "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": 2, "updatedNumberScheduled": 2},
}
NO_GPU_NODE = [{"type": "Ready", "status": "True", "reason": "NoGPUNodes"}]


@pytest.mark.parametrize(
    ("change", "unmet"),
    [
        ({}, []),
        # The operator's own word, where it has found no GPU node.
        ({"policy": {**POLICY, "status": {"state": "ready", "conditions": NO_GPU_NODE}}}, ["ClusterPolicy"]),
        ({"policy": {**POLICY, "status": {**POLICY["status"], "state": "notReady"}}}, ["ClusterPolicy"]),
        ({"labelled": NODES[:1]}, ["Nodes"]),
        ({"validator": {**VALIDATOR, "status": {**VALIDATOR["status"], "numberReady": 1}}}, ["DaemonSet"]),
        ({"validator": {**VALIDATOR, "status": {"observedGeneration": 1}}}, ["DaemonSet"]),
        ({"nodes": [NODES[0], {**NODES[1], "status": {}}]}, ["Allocatable"]),
    ],
)
def test_ready_means_each_of_four_conditions(change, unmet):
    expected = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__gpu_operator_expect"]
    # Two nodes with two GPUs each are expected.
    numbers = {"Nodes": 2, "Allocatable": 4}
    seen = {"policy": POLICY, "labelled": NODES, "validator": VALIDATOR, "nodes": NODES, **change}
    objects = {
        "ClusterPolicy": [seen["policy"]],
        "Nodes": seen["labelled"],
        "DaemonSet": [seen["validator"]],
        "Allocatable": seen["nodes"],
    }
    found = []
    for item in expected:
        what = item["what"].split()[0]
        state = workloads.meets({**item, "at_least": numbers.get(what, 1)}, objects[what])
        found += [] if state["ready"] else [what]
    assert set(objects) == {item["what"].split()[0] for item in expected}
    assert found == unmet
