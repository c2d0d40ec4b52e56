# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Both ways whole, by site.yml from nothing: by hand with drivers on the hosts, then preinstalled, then the operator.

The cluster is a lab of its own. Each of its GPU nodes has a host beside it, of the node's name and with the GPUs that
the node says it has, on which the driver is installed (tests/gpu_host); the API server drains the node for it. The
tests build on each other, in the order in which they stand; the fixtures `by_hand`, `whole`, `drivers` and
`by_operator` bring what the tests before them would have left, where only some run (gpu.sh).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from lab.settings import GPU_MODELS, GPU_SOFTWARE
from tests.gpu_host.host import INVENTORY, changed
from tests.gpu_host.packages import NEW, OLD
from tests.gpu_host.pretended import pretend
from tests.gpu_host.systems import make_base
from tests.integration.running_lab import REPOSITORY, RunningLab, run
from tests.integration.test_gpu_stack import CLASS, EXPORTER

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")

SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SWITCH = "sys/bus/pci/devices/0000:07:00.0"
SECRETS = {
    "gpu_operator_ngc_api_key": "planted-api-key-7d1f",
    "gpu_operator_licence_token": "planted-token.of-a-licence-server.93bc",
}


@pytest.fixture(scope="module")
def lab():
    """A fresh one. USE_LAB names one that is up already, for single tests of a way that is there."""
    if name := os.environ.get("USE_LAB"):
        yield RunningLab(name, "")
        return
    with RunningLab.of_its_own("byhand", "10.109.0.0/22") as fresh:
        yield fresh


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
def lab_inventory(tmp_path_factory):
    """The lab's, but here the GPU Operator's role decides by itself whether to bring a driver."""
    folder = tmp_path_factory.mktemp("inventory") / "lab"
    shutil.copytree(REPOSITORY / "inventories" / "lab", folder)
    file = folder / "group_vars" / "riva_clusters.yml"
    text = file.read_text()
    assert "gpu_operator_driver_enabled: false\n" in text
    file.write_text(text.replace("gpu_operator_driver_enabled: false\n", ""))
    return folder


@pytest.fixture(scope="module")
def play(lab, inventory, lab_inventory):
    def run_it(playbook, *arguments, stack="manual", check=True):
        return run(
            Path(sys.executable).parent / "ansible-playbook",
            "-i",
            lab_inventory,
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


def provided(hosts, play, tag):
    """The hosts have drivers, one of them with an NVSwitch; what this tag of site.yml brings, where they had none."""
    if not all(map(version_on, hosts.values())):
        put(hosts[max(hosts)], switch())
        play("site.yml", "--tags", tag)


@pytest.fixture(scope="module")
def by_hand(hosts, play):
    """The GPUs are usable, by hand."""
    provided(hosts, play, "gpu")


@pytest.fixture(scope="module")
def whole(lab, by_hand, play):
    """All that site.yml installs, with the GPUs by hand."""
    if "riva-asr" not in lab.kubectl("get", "hpa", "-n", "riva", "-o", "name", check=False):
        play("site.yml")


@pytest.fixture(scope="module")
def drivers(hosts, play):
    """The hosts have drivers, and the cluster may know nothing of it."""
    provided(hosts, play, "nvidia_driver")


@pytest.fixture(scope="module")
def by_operator(lab, drivers, play):
    """The GPUs are usable by the operator, with the hosts' drivers."""
    if "gpu-operator" not in lab.kubectl("get", "deployments", "-A", "-o", "name"):
        play("site.yml", "--tags", "gpu", stack="operator")


@pytest.fixture
def without_operator(lab, hosts, play):
    """Neither the operator nor a driver is there."""
    if any(map(version_on, hosts.values())):
        play("playbooks/uninstall.yml", "-e", "uninstall_driver=true", stack="operator")


def version_on(root):
    return (root / "usr/lib/nvidia/module").read_text() if (root / "usr/lib/nvidia/module").exists() else ""


def fabric_manager_on(root):
    return run("chroot", root, "dpkg-query", "-W", "-f", "${Version}", "nvidia-fabricmanager").stdout


def schedulable(lab, name):
    node = lab.get("node", name)
    marks = [mark for mark in node["metadata"].get("annotations", {}) if "speechops" in mark]
    return not node["spec"].get("unschedulable") and marks == []


@contextmanager
def harmed(root, **files):
    """Files of a host that are there, or are others, until the block ends; None takes one away."""
    before = {name: (root / name).read_bytes() if (root / name).exists() else None for name in files}
    put(root, files)
    try:
        yield
    finally:
        put(root, before)


def put(root, files):
    for name, content in files.items():
        path = root / name
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def switch():
    """An NVSwitch on the bus."""
    values = {"vendor": "0x10de\n", "device": "0x22a3\n", "class": "0x068000\n"}
    return {f"{SWITCH}/{name}": value for name, value in values.items()}


def refused(done, check, *words):
    """A play that changed nothing, because of this finding."""
    assert done.returncode != 0, done.stdout
    assert re.search(rf"failed:? +{check} ", done.stdout), done.stdout
    said = " ".join(done.stdout.split())
    assert [word for word in words if word not in said] == [], done.stdout
    assert changed(done.stdout) == []


SECURE = {SECURE_BOOT: b"\x06\0\0\0\x01"}
CONTAINER = {"run/nvidia/driver/usr/bin/nvidia-smi": ""}
BARE = {
    "Secure Boot without a key": ("manual", SECURE, {}, "secure_boot", "nvidia_driver_mok_key"),
    "the operator's driver container": ("manual", CONTAINER, {}, "two_drivers", "set gpu_stack to operator"),
    "no feature discovery": (
        "manual",
        {},
        {"nvidia_device_plugin_nfd_enabled": False},
        "feature_discovery",
        "no node would be taken for a GPU node",
    ),
    "Secure Boot and the driver container": (
        "operator",
        SECURE,
        {"gpu_operator_driver_enabled": True},
        "secure_boot",
        "driver.usePrecompiled",
    ),
    "nobody brings a driver to Debian": ("operator", {}, {}, "two_drivers", "these hosts have none"),
}


@pytest.mark.parametrize(("stack", "files", "variables", "check", "words"), BARE.values(), ids=BARE.keys())
def test_a_pain_is_named_by_site_before_anything_is_changed(hosts, play, stack, files, variables, check, words):
    with harmed(hosts[min(hosts)], **files):
        done = play("site.yml", "--tags", "gpu", "-e", json.dumps(variables), stack=stack, check=False)
    refused(done, check, words)


def steps(output, *tasks):
    """(task, host) of those of these tasks that changed something, in their order."""
    found, task = [], ""
    for line in output.splitlines():
        if line.startswith("TASK ["):
            task = line.partition("[")[2].rpartition("]")[0].rpartition(" : ")[2]
        elif line.startswith("changed: [") and task in tasks:
            found.append((task, re.split(r"[]\s]", line.partition("[")[2])[0]))
    return found


def test_site_from_nothing(lab, hosts, play):
    first, second = sorted(hosts)
    put(hosts[second], switch())
    output = play("site.yml").stdout
    before = output.partition("\nchanged: ")[0]
    pains = ("nouveau", "kernel_headers", "fabric_manager", "containerd_path")
    assert [pain for pain in pains if not re.search(rf"(failed|warning) +{pain} +{second} ", before)] == []
    # One node after another: the first takes pods again before the second is drained.
    ways = ("The node is drained", "The node has been rebooted the way that was given", "The node is schedulable")
    assert steps(output, *ways) == [(way, name) for name in (first, second) for way in ways]
    assert fabric_manager_on(hosts[second]) == f"{OLD}-1"
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


def test_the_other_way_is_refused(by_hand, play):
    refused(play("site.yml", "--tags", "gpu", stack="operator", check=False), "two_stacks", "set gpu_stack to manual")


def test_pains_of_the_cluster_are_named_by_site_before_anything_is_changed(lab, by_hand, play, tmp_path):
    file = tmp_path / "pain.yaml"
    file.write_text(f"{CLASS}---{EXPORTER}")
    lab.kubectl("apply", "-f", file)
    try:
        done = play("site.yml", "--tags", "gpu", "-e", "nvidia_device_plugin_runtime_class=pain", check=False)
        refused(done, "runtime_class", "its handler is runc")
        # No fault of the way to GPUs, so it is told, and not refused.
        done = play("site.yml", "--tags", "gpu")
        assert re.search(r"\[WARNING\]: warning: gpu_metrics default/pain", done.stdout), done.stdout
        assert changed(done.stdout) == []
    finally:
        lab.kubectl("delete", "-f", file, "--wait=false")


THERE = {
    "nouveau": {"proc/modules": "nvidia 1 0 - Live 0x0\nnouveau 1 0 - Live 0x0\n"},
    "gpu_driver": {"proc/modules": "", "proc/driver/nvidia/version": None},
    "fabric_manager": switch(),
}


@pytest.mark.parametrize(("check", "files"), THERE.items(), ids=THERE.keys())
def test_a_pain_of_a_driver_that_is_there_is_named_before_anything_is_changed(hosts, by_hand, play, check, files):
    with harmed(hosts[min(hosts)], **files):
        done = play("site.yml", "--tags", "gpu", stack="preinstalled", check=False)
    refused(done, check)


def test_an_upgrade_brings_the_driver_to_each_node(lab, hosts, whole, play):
    newer = ("-e", f"nvidia_driver_version={NEW}")
    planned = play("playbooks/upgrade.yml", "--check", *newer).stdout
    assert "nvidia-device-plugin" in planned
    assert {f" {OLD} " in version_on(root) for root in hosts.values()} == {True}
    done = set(changed(play("playbooks/upgrade.yml", *newer).stdout))
    assert {"The node is drained", "The node is schedulable"} <= done
    for name, root in hosts.items():
        assert f" {NEW} " in version_on(root), name
        assert schedulable(lab, name), name
    assert fabric_manager_on(hosts[max(hosts)]) == f"{NEW}-1"
    assert changed(play("playbooks/upgrade.yml", *newer).stdout) == []


def test_uninstall_takes_the_driver_where_it_is_asked_to(lab, hosts, play):
    asked = ("-e", "uninstall_driver=true", "-e", f"nvidia_driver_version={NEW}")
    play("playbooks/uninstall.yml", "--check", *asked)
    assert {f" {NEW} " in version_on(root) for root in hosts.values()} == {True}
    play("playbooks/uninstall.yml", "-e", f"nvidia_driver_version={NEW}")
    assert {f" {NEW} " in version_on(root) for root in hosts.values()} == {True}
    assert "nvidia" not in lab.kubectl("get", "daemonsets,runtimeclasses", "-A", "-o", "name")


def test_the_operator_from_nothing_takes_the_drivers_that_are_there(lab, hosts, drivers, play):
    before = {name: version_on(root) for name, root in hosts.items()}
    output = play("site.yml", stack="operator").stdout
    done = changed(output)
    crds = "The CRDs are those of the chart of release gpu-operator"
    assert done.index(crds) < done.index("Helm has installed release gpu-operator")
    policy = lab.get("clusterpolicy", "cluster-policy")
    assert (policy["status"]["state"], policy["spec"]["driver"]["enabled"]) == ("ready", False)
    nodes = [lab.get("node", name) for name in hosts]
    assert [node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes] == ["2", "2"]
    assert {name: version_on(root) for name, root in hosts.items()} == before


def test_a_second_run_of_the_operators_way_changes_nothing(play):
    assert changed(play("site.yml", stack="operator").stdout) == []


def test_old_crds_are_those_of_the_chart_again(lab, by_operator, play):
    """Helm itself never changes a CRD that is there."""
    columns = '[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]'
    lab.kubectl("patch", "crd", "clusterpolicies.nvidia.com", "--type=json", "-p", columns)
    assert "STATUS" not in lab.kubectl("get", "clusterpolicy")
    done = changed(play("site.yml", "--tags", "gpu", stack="operator").stdout)
    assert done == ["The CRDs are those of the chart of release gpu-operator"]
    assert "STATUS" in lab.kubectl("get", "clusterpolicy")


SHORT = {
    "a GPU too few": (
        {"gpu_operator_expected_gpus": 5},
        "Allocatable nvidia.com/gpu",
        "gpu_operator_expected_gpus is 5",
    ),
    "a node too few": (
        {"gpu_operator_expected_nodes": 3},
        "Nodes labelled nvidia.com/gpu.present",
        "gpu_operator_expected_nodes is 3",
    ),
}


@pytest.mark.parametrize(("variables", "what", "words"), SHORT.values(), ids=SHORT.keys())
def test_ready_is_more_than_the_operators_own_word(by_operator, play, variables, what, words):
    variables = json.dumps({**variables, "gpu_operator_timeout": 35})
    done = play("site.yml", "--tags", "gpu", "-e", variables, stack="operator", check=False)
    assert done.returncode != 0
    lines = re.findall(r"\[lab\] gpu-operator/gpu-operator, \d+ of 35 s: .*", done.stdout)
    assert len(lines) > 1
    assert [line for line in lines if what not in line] == []
    assert words in " ".join(done.stdout.split())


GROUPS = {
    "gpu_operator_mig_manager_enabled": True,
    "gpu_operator_mig_layouts": {"halves": [{"devices": "all", "mig-enabled": True, "mig-devices": {"3g.20gb": 2}}]},
}


def in_groups(hosts):
    first, second = sorted(hosts)
    groups = [
        {"name": "shared", "nodes": [first], "sharing": "time-slicing", "replicas": 4},
        {"name": "slices", "nodes": [second], "mig_strategy": "mixed", "mig_layout": "halves"},
    ]
    return "-e", json.dumps({**GROUPS, "gpu_operator_groups": groups})


def test_groups_of_nodes_share_and_are_cut(lab, hosts, by_operator, play):
    """What the operator's parts read of it: the stand-in has no MIG manager, and its device plugin shares nothing."""
    (first, second), variables = sorted(hosts), in_groups(hosts)
    planned = changed(play("site.yml", "--tags", "gpu", "--check", "--diff", *variables, stack="operator").stdout)
    assert "Nodes of a group are labelled with its configuration" in planned
    assert own_labels(lab, first) == own_labels(lab, second) == {}
    play("site.yml", "--tags", "gpu", *variables, stack="operator")
    assert own_labels(lab, first) == {"device-plugin.config": "shared"}
    assert own_labels(lab, second) == {"device-plugin.config": "slices", "mig.config": "halves"}
    spec = lab.get("clusterpolicy", "cluster-policy")["spec"]
    plugin, manager = spec["devicePlugin"]["config"], spec["migManager"]["config"]
    assert (plugin["name"], plugin["default"]) == ("device-plugin-config", "default")
    texts = lab.get("configmap", plugin["name"], "-n", "gpu-operator")["data"]
    shared, slices = yaml.safe_load(texts["shared"]), yaml.safe_load(texts["slices"])
    assert set(texts) == {"default", "shared", "slices"}
    assert shared["sharing"]["timeSlicing"]["resources"] == [{"name": "nvidia.com/gpu", "replicas": 4}]
    assert slices["flags"]["migStrategy"] == "mixed"
    layouts = lab.get("configmap", manager["name"], "-n", "gpu-operator")["data"]["config.yaml"]
    assert yaml.safe_load(layouts)["mig-configs"] == GROUPS["gpu_operator_mig_layouts"]
    assert changed(play("site.yml", "--tags", "gpu", *variables, stack="operator").stdout) == []


def own_labels(lab, name):
    """The labels by which a node has a configuration of its own."""
    labels = lab.get("node", name)["metadata"]["labels"]
    return {
        key: labels[f"nvidia.com/{key}"]
        for key in ("device-plugin.config", "mig.config")
        if f"nvidia.com/{key}" in labels
    }


def test_a_wait_names_state_pod_and_node(lab, hosts, by_operator, play):
    """As a driver's container that builds for twenty minutes, here an image that is not there."""
    variables = json.dumps({"gpu_operator_values": {"gfd": {"version": "v0"}}, "gpu_operator_timeout": 60})
    done = play("site.yml", "--tags", "gpu", "-e", variables, stack="operator", check=False)
    assert done.returncode != 0
    line = (
        r"\[lab\] gpu-operator/gpu-operator, \d+ of 60 s: .*states not ready: \[gpu-feature-discovery\].*"
        rf"; pod gpu-feature-discovery-\w+ on ({'|'.join(hosts)}): gpu-feature-discovery: (ErrImage|ImagePull)"
    )
    assert re.search(line, done.stdout), done.stdout


def test_uninstall_takes_driver_and_labels_along_that_the_operator_used(lab, hosts, by_operator, play):
    asked = ("-e", "uninstall_driver=true", *in_groups(hosts))
    play("playbooks/uninstall.yml", *asked, stack="operator")
    for name, root in hosts.items():
        assert version_on(root) == "", name
        assert schedulable(lab, name), name
        assert own_labels(lab, name) == {}, name
    assert "nvidia" not in lab.kubectl("get", "daemonsets,runtimeclasses", "-A", "-o", "name")
    assert changed(play("playbooks/uninstall.yml", *asked, stack="operator").stdout) == []


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


def test_secrets_of_the_enterprise_edition_are_in_secrets_alone(lab, without_operator, play, tmp_path):
    """The images of the edition can't be had; its Secrets and values are made, and the lab's operator takes them."""
    file = tmp_path / "vault.yml"
    # The driver's image is waited for in vain.
    wanted = {
        "gpu_operator_edition": "enterprise",
        "gpu_operator_driver_enabled": True,
        "gpu_operator_timeout": 30,
    }
    file.write_text(yaml.safe_dump({**wanted, **SECRETS}))
    done = play("site.yml", "--tags", "gpu", "--diff", "-vv", "-e", f"@{file}", stack="operator", check=False)
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
    token = lab.get("secret", "licensing-config", "-n", "gpu-operator")["data"]
    assert set(token) == {"gridd.conf", "client_configuration_token.tok"}
    play("playbooks/uninstall.yml", "-e", f"@{file}", stack="operator")
    assert "secret/" not in lab.kubectl(
        "get", "secret", "ngc-secret", "licensing-config", "-n", "gpu-operator", "-o", "name", check=False
    )


def test_the_enterprise_edition_without_its_key_is_refused(play):
    done = play("site.yml", "--tags", "gpu", "-e", "gpu_operator_edition=enterprise", stack="operator", check=False)
    assert done.returncode != 0
    assert "neither gpu_operator_ngc_api_key nor riva_ngc_api_key is set" in " ".join(done.stdout.split())
    assert changed(done.stdout) == []
