# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manual way whole: site.yml from nothing, drivers on hosts by Ansible; then preinstalled, upgrade and uninstall.

The cluster is a lab of its own. Each of its GPU nodes has a host beside it, of the node's name and with the GPUs that
the node says it has, on which the driver is installed (tests/gpu_host); the API server drains the node for it. The
tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from lab.settings import GPU_MODELS, GPU_SOFTWARE
from tests.gpu_host.host import INVENTORY, changed, make_base
from tests.gpu_host.packages import NEW, OLD
from tests.gpu_host.pretended import pretend
from tests.integration.running_lab import REPOSITORY, RunningLab, run, traces

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")

SECRETS = {"gpu_operator_ngc_api_key": "planted-api-key-7d1f", "gpu_operator_licence_token": "planted-token-93bc"}


@pytest.fixture(scope="module")
def lab():
    fresh = RunningLab("byhand", "10.109.0.0/22")
    fresh.command("down")
    fresh.up()
    yield fresh
    if not os.environ.get("KEEP_LAB"):
        fresh.command("down")
        assert traces(fresh.name) == []


@pytest.fixture(scope="module")
def hosts(lab, tmp_path_factory):
    """The root folder of each GPU node's host, by the node's name."""
    folder = tmp_path_factory.mktemp("hosts")
    make_base(folder / "base")
    found = {}
    for number, gpus in enumerate(GPU_MODELS, start=1):
        root = folder / f"{lab.name}-gpu-{number}"
        run("cp", "-a", folder / "base", root)
        pretend(root, {**gpus, **GPU_SOFTWARE})
        found[root.name] = root
    return found


@pytest.fixture(scope="module")
def inventory(hosts, tmp_path_factory):
    variables = yaml.safe_load((INVENTORY / "group_vars" / "gpu_nodes.yml").read_text())
    variables = {**variables, "nvidia_driver_version": OLD}
    nodes = {name: {"ansible_host": str(root)} for name, root in hosts.items()}
    file = tmp_path_factory.mktemp("inventory") / "hosts.json"
    file.write_text(json.dumps({"gpu_nodes": {"hosts": nodes, "vars": variables}}))
    return file


@pytest.fixture(scope="module")
def play(lab, inventory):
    def run_it(playbook, *arguments, stack="manual", check=True):
        return run(
            Path(sys.executable).parent / "ansible-playbook",
            "-i",
            REPOSITORY / "inventories" / "lab",
            "-i",
            inventory,
            "-e",
            f"lab_name={lab.name}",
            "-e",
            f"gpu_stack={stack}",
            playbook,
            *arguments,
            check=check,
            timeout=1800,
            SYSTEMD_OFFLINE="1",
        )

    return run_it


def version_on(root):
    return (root / "usr/lib/nvidia/module").read_text() if (root / "usr/lib/nvidia/module").exists() else ""


def schedulable(lab, name):
    node = lab.get("node", name)
    marks = [mark for mark in node["metadata"].get("annotations", {}) if "speechops" in mark]
    return not node["spec"].get("unschedulable") and marks == []


def test_site_from_nothing(lab, hosts, play):
    output = play("site.yml").stdout
    assert {
        "The node is drained",
        "The node is schedulable",
        "The node has been rebooted the way that was given",
    } <= set(changed(output))
    for name, root in hosts.items():
        assert f" {OLD} " in version_on(root), name
        assert schedulable(lab, name), name
        assert (root / "var/log/reboots").read_text() == "reboot\n"
    sets = lab.kubectl("get", "daemonsets", "-A", "-o", "name")
    assert "daemonset.apps/nvidia-device-plugin\n" in sets
    assert "operator" not in sets
    nodes = [lab.get("node", name) for name in hosts]
    assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes] == ["2", "2"]
    assert "riva-asr" in lab.kubectl("get", "hpa", "-n", "riva", "-o", "name")


def test_a_second_run_changes_nothing(play):
    assert changed(play("site.yml").stdout) == []


def test_what_is_there_serves_as_preinstalled_too(lab, play):
    assert changed(play("site.yml", stack="preinstalled").stdout) == []
    assert "nvidia-device-plugin" in lab.kubectl("get", "daemonsets", "-A", "-o", "name")


def test_the_other_way_is_refused(play):
    done = play("site.yml", "--tags", "gpu", stack="operator", check=False)
    assert done.returncode != 0
    assert "two_stacks" in done.stdout
    assert changed(done.stdout) == []


def test_an_upgrade_brings_the_driver_to_each_node(lab, hosts, play):
    newer = ("-e", f"nvidia_driver_version={NEW}")
    planned = play("playbooks/upgrade.yml", "--check", *newer).stdout
    assert "nvidia-device-plugin" in planned
    assert {f" {OLD} " in version_on(root) for root in hosts.values()} == {True}
    done = set(changed(play("playbooks/upgrade.yml", *newer).stdout))
    assert {"The node is drained", "The node is schedulable"} <= done
    for name, root in hosts.items():
        assert f" {NEW} " in version_on(root), name
        assert schedulable(lab, name), name
    assert changed(play("playbooks/upgrade.yml", *newer).stdout) == []


def test_uninstall_takes_the_driver_where_it_is_asked_to(lab, hosts, play):
    asked = ("-e", "uninstall_driver=true", "-e", f"nvidia_driver_version={NEW}")
    play("playbooks/uninstall.yml", "--check", *asked)
    assert {f" {NEW} " in version_on(root) for root in hosts.values()} == {True}
    play("playbooks/uninstall.yml", "-e", f"nvidia_driver_version={NEW}")
    assert {f" {NEW} " in version_on(root) for root in hosts.values()} == {True}
    play("playbooks/uninstall.yml", *asked)
    for name, root in hosts.items():
        assert version_on(root) == "", name
        assert schedulable(lab, name), name
    assert "nvidia" not in lab.kubectl("get", "daemonsets,runtimeclasses", "-A", "-o", "name")
    assert changed(play("playbooks/uninstall.yml", *asked).stdout) == []


def plain(value):
    """All texts of an object, with what is base64 or gzip in it laid open."""
    if isinstance(value, dict):
        return "\n".join(f"{key}\n{plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(plain(item) for item in value)
    text = str(value)
    for _layer in range(3):
        try:
            raw = base64.b64decode(text, validate=True)
            raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            text += "\n" + raw.decode()
            value, text = text, raw.decode()
        except (ValueError, OSError, EOFError):
            break
    return f"{value}\n{text}"


def test_secrets_of_the_enterprise_edition_are_in_secrets_alone(lab, play, tmp_path):
    """The images of the edition can't be had; its Secrets and values are made, and the lab's operator takes them."""
    file = tmp_path / "vault.yml"
    wanted = {"gpu_operator_edition": "enterprise", "gpu_operator_driver_enabled": True}
    file.write_text(yaml.safe_dump({**wanted, **SECRETS}))
    done = play("site.yml", "--tags", "gpu_operator", "--diff", "-vv", "-e", f"@{file}", stack="operator", check=False)
    where = {marker: [] for marker in SECRETS.values()}
    for kind in ("secrets", "configmaps", "clusterpolicies", "daemonsets", "deployments", "events"):
        for item in lab.get(kind, "-A")["items"]:
            text = plain(item)
            for marker in SECRETS.values():
                if marker in text:
                    where[marker].append(f"{kind}/{item['metadata']['name']}")
    assert where == {
        SECRETS["gpu_operator_ngc_api_key"]: ["secrets/ngc-secret"],
        SECRETS["gpu_operator_licence_token"]: ["secrets/licensing-config"],
    }
    assert [marker for marker in SECRETS.values() if marker in done.stdout] == []
    policy = lab.get("clusterpolicy", "cluster-policy")["spec"]["driver"]
    assert policy["licensingConfig"] == {"secretName": "licensing-config", "nlsEnabled": True}
    assert (policy["repository"], policy["imagePullSecrets"]) == ("nvcr.io/nvaie", ["ngc-secret"])
    secret = lab.get("secret", "ngc-secret", "-n", "gpu-operator")
    login = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]["nvcr.io"]
    assert login == {"username": "$oauthtoken", "password": SECRETS["gpu_operator_ngc_api_key"]}


def test_the_enterprise_edition_without_its_key_is_refused(play):
    done = play(
        "site.yml", "--tags", "gpu_operator", "-e", "gpu_operator_edition=enterprise", stack="operator", check=False
    )
    assert done.returncode != 0
    assert "gpu_operator_ngc_api_key is empty" in " ".join(done.stdout.split())
    assert changed(done.stdout) == []
