# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which way to usable GPUs fits a cluster: each pain that the cluster shows has a finding of its own."""

import copy

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import device_plugin
from ansible_collections.speechops.riva.plugins.module_utils import gpu_stack as rules

from tests.unit.plugins.test_gpu_pains import GONE, HEALTHY, changed

NFD_LABEL = "feature.node.kubernetes.io/pci-10de.present"
ODD_LABEL = "feature.node.kubernetes.io/pci-0302_10de.present"


def node(name="gpu-1", labels=None, kubelet="v1.36.3", image="Ubuntu 24.04.3 LTS"):
    return rules.read_node(
        {
            "metadata": {"name": name, "labels": {NFD_LABEL: "true"} if labels is None else labels},
            "status": {"nodeInfo": {"kubeletVersion": kubelet, "osImage": image}},
        }
    )


def daemonset(name, *containers, release=None, namespace="gpus", desired=1, runtime_class=None, labels=None):
    return rules.read_daemonset(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels or {},
                "annotations": {"meta.helm.sh/release-name": release} if release else {},
            },
            "spec": {
                "template": {
                    "spec": {
                        "runtimeClassName": runtime_class,
                        "containers": [{"name": container, "image": "x"} for container in containers],
                    }
                }
            },
            "status": {"desiredNumberScheduled": desired},
        }
    )


PLUGIN = daemonset("nvidia-device-plugin", "nvidia-device-plugin-ctr", release="nvidia-device-plugin")
OPERATORS = daemonset("nvidia-device-plugin-daemonset", "nvidia-device-plugin")
DRIVER = daemonset("nvidia-driver-daemonset", "nvidia-driver-ctr")
EXPORTER = daemonset("nvidia-dcgm-exporter", "nvidia-dcgm-exporter")
NFD = daemonset("nfd-worker", "worker", release="nfd", labels={"app.kubernetes.io/name": "node-feature-discovery"})
OWN_NFD = daemonset(
    "gpu-operator-node-feature-discovery-worker",
    "worker",
    release="gpu-operator",
    namespace="gpu-operator",
)
HOST_DRIVER = {"gpu-1": HEALTHY}
UBUNTU = {"id": "ubuntu", "version": "24.04", "architecture": "x86_64"}
NO_DRIVER = {"gpu-1": changed(HEALTHY, {"driver.origin": "none", "os": UBUNTU})}
NOUVEAU = changed(HEALTHY, {"kernel.nouveau": True})
K3S = node(kubelet="v1.34.1+k3s1")
STUCK = rules.Stuck("gpu-operator/nvidia-operator-validator-x", "gpu-1", "driver-validation", 4000)


def found(*daemonsets, nodes=None, **more):
    return rules.Found(nodes=nodes or [node()], daemonsets=daemonsets, **{"service_monitors": [], **more})


def bad(state, hardware=None, **wanted):
    told = rules.findings_of(state, rules.Wanted(**wanted), hardware or {})
    for finding in told:
        assert finding.remedy or finding.status == "ok", finding
    return [(finding.check, finding.status) for finding in told if finding.status != "ok"]


FINE = {
    "nothing there yet": (found(nodes=[node(labels={})]), {}, {}),
    "the operator again": (found(OPERATORS, OWN_NFD), {}, {}),
    "by hand again": (found(PLUGIN), {"stack": "manual"}, HOST_DRIVER),
    "operator with host drivers": (found(), {}, HOST_DRIVER),
    "operator brings the driver": (found(), {"driver": True}, NO_DRIVER),
    "NFD there, left open": (found(NFD), {}, {}),
    "NFD there, not wanted": (found(NFD), {"nfd": False}, {}),
    "odd label, the role's affinity takes it": (
        found(nodes=[node(labels={ODD_LABEL: "true"})]),
        {"stack": "manual"},
        {},
    ),
    "k3s": (found(nodes=[K3S]), {}, {}),
    "preinstalled": (found(PLUGIN), {"stack": "preinstalled"}, {}),
    "preinstalled in some other way": (
        found(nodes=[rules.read_node({"status": {"allocatable": {"nvidia.com/gpu": "2"}}})]),
        {"stack": "preinstalled"},
        {},
    ),
    "metrics read": (found(EXPORTER, service_monitors=["nvidia-dcgm-exporter"]), {}, {}),
    "hosts that the manual way mends": (found(), {"stack": "manual"}, {"gpu-1": NOUVEAU}),
    "Secure Boot, and a module that the kernel took": (
        found(),
        {},
        {"gpu-1": changed(HEALTHY, {"kernel.secure_boot": True})},
    ),
    "Secure Boot, and the driver container's module runs": (
        found(),
        {},
        {"gpu-1": changed(NO_DRIVER["gpu-1"], {"kernel.secure_boot": True})},
    ),
    "Secure Boot, and modules that come signed": (
        found(),
        {"driver": True, "precompiled": True},
        {"gpu-1": changed(NO_DRIVER["gpu-1"], {"driver.module": GONE, "kernel.secure_boot": True})},
    ),
    "headers are the container's business": (
        found(),
        {},
        {"gpu-1": changed(NO_DRIVER["gpu-1"], {"driver.module": GONE, "kernel.headers": False})},
    ),
    "a pod that starts": (found(stuck=[rules.Stuck("a/b", "n", "driver-validation", 60)]), {}, {}),
}


@pytest.mark.parametrize(("state", "wanted", "hardware"), FINE.values(), ids=FINE.keys())
def test_what_fits(state, wanted, hardware):
    assert bad(state, hardware, **wanted) == []


PAINS = {
    "two drivers": (found(), {"driver": True}, HOST_DRIVER, ("two_drivers", "failed")),
    "no driver at all": (found(), {"driver": False}, NO_DRIVER, ("two_drivers", "failed")),
    "driver on one host of two": (
        found(),
        {},
        {**HOST_DRIVER, "gpu-2": changed(HEALTHY, {"driver.origin": "none"})},
        ("two_drivers", "failed"),
    ),
    "driver container beside the manual way": (found(DRIVER), {"stack": "manual"}, {}, ("two_drivers", "failed")),
    "operator beside a plugin by hand": (found(PLUGIN), {}, {}, ("two_stacks", "failed")),
    "by hand beside the operator": (found(OPERATORS), {"stack": "manual"}, {}, ("two_stacks", "failed")),
    "preinstalled, and nothing there": (found(), {"stack": "preinstalled"}, {}, ("two_stacks", "failed")),
    "Secure Boot and the driver container": (
        found(),
        {},
        {"gpu-1": changed(NO_DRIVER["gpu-1"], {"driver.module": GONE, "kernel.secure_boot": True})},
        ("secure_boot", "failed"),
    ),
    "nouveau and the driver container": (
        found(),
        {},
        {"gpu-1": changed(NO_DRIVER["gpu-1"], {"kernel.nouveau": True})},
        ("nouveau", "warning"),
    ),
    "nouveau beside a host's driver": (found(), {}, {"gpu-1": NOUVEAU}, ("nouveau", "failed")),
    "the same, preinstalled": (
        found(PLUGIN),
        {"stack": "preinstalled"},
        {"gpu-1": NOUVEAU},
        ("nouveau", "failed"),
    ),
    "no Fabric Manager beside a host's driver": (
        found(),
        {},
        {"gpu-1": changed(HEALTHY, {"pci.nvswitches": 4})},
        ("fabric_manager", "failed"),
    ),
    "a host's module that is not loaded": (
        found(),
        {},
        {"gpu-1": changed(HEALTHY, {"driver.module": GONE})},
        ("gpu_driver", "failed"),
    ),
    "k3s, told another socket": (
        found(nodes=[K3S]),
        {"toolkit_environment": {"CONTAINERD_SOCKET": "/run/containerd/containerd.sock"}},
        {},
        ("containerd_path", "failed"),
    ),
    "RuntimeClass missing": (
        found(daemonset("p", "nvidia-device-plugin-ctr", runtime_class="nvidia")),
        {"stack": "preinstalled"},
        {},
        ("runtime_class", "failed"),
    ),
    "RuntimeClass of another runtime": (
        found(runtime_classes={"nvidia": "runc"}),
        {"stack": "manual"},
        {},
        ("runtime_class", "failed"),
    ),
    "two NFDs": (found(NFD), {"nfd": True}, {}, ("feature_discovery", "failed")),
    "no NFD": (found(nodes=[node(labels={})]), {"nfd": False}, {}, ("feature_discovery", "failed")),
    "another form of the label": (
        found(PLUGIN, nodes=[node(labels={ODD_LABEL: "true"})]),
        {"stack": "preinstalled"},
        {},
        ("feature_discovery", "warning"),
    ),
    "stuck in Init": (found(stuck=[STUCK]), {}, {}, ("stuck_in_init", "failed")),
    "no ServiceMonitor": (found(EXPORTER), {}, {}, ("gpu_metrics", "warning")),
    "no ServiceMonitor kind": (found(EXPORTER, service_monitors=None), {}, {}, ("gpu_metrics", "warning")),
}


@pytest.mark.parametrize(("state", "wanted", "hardware", "pain"), PAINS.values(), ids=PAINS.keys())
def test_a_pain_is_named(state, wanted, hardware, pain):
    assert bad(state, hardware, **wanted) == [pain]


@pytest.mark.parametrize(
    ("state", "wanted", "hardware", "decisions"),
    [
        (found(), {}, {}, {"driver": True, "nfd": True, "distribution": "other", "toolkit_environment": []}),
        (found(), {}, HOST_DRIVER, {"driver": False}),
        (found(), {}, NO_DRIVER, {"driver": True}),
        (found(), {"driver": True}, HOST_DRIVER, {"driver": True}),
        (found(nodes=[node(image="Debian GNU/Linux 12 (bookworm)")]), {}, {}, {"driver": False}),
        (found(nodes=[node(), node(image="Debian GNU/Linux 12 (bookworm)")]), {}, {}, {"driver": False}),
        # Nobody has labelled a node yet.
        (found(nodes=[node(labels={}, image="Debian GNU/Linux 12 (bookworm)")]), {}, {}, {"driver": False}),
        (found(nodes=[node(labels={}), node(labels={}, image="Debian GNU/Linux 12")]), {}, {}, {"driver": True}),
        (found(), {}, {"gpu-1": changed(NO_DRIVER["gpu-1"], {"os.id": "debian"})}, {"driver": False}),
        (found(NFD), {}, {}, {"nfd": False}),
        (found(OWN_NFD), {}, {}, {"nfd": True}),
        (
            found(nodes=[node(kubelet="v1.34.1+rke2r1")]),
            {"toolkit_environment": {"A": "b"}},
            {},
            {
                "distribution": "rke2",
                "toolkit_environment": [
                    {"name": "A", "value": "b"},
                    {"name": "CONTAINERD_SOCKET", "value": "/run/k3s/containerd/containerd.sock"},
                ],
            },
        ),
    ],
)
def test_decisions(state, wanted, hardware, decisions):
    made = rules.decisions(state, rules.Wanted(**wanted), hardware)
    assert {name: made[name] for name in decisions} == decisions


def test_a_pod_that_waits_in_init_is_read():
    pod = {
        "metadata": {"name": "v", "namespace": "gpu-operator", "creationTimestamp": "then"},
        "spec": {"nodeName": "gpu-1"},
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [
                {"name": "driver-validation", "state": {"terminated": {"exitCode": 0}}},
                {"name": "toolkit-validation", "state": {"running": {}}},
            ],
        },
    }
    stuck = rules.read_stuck(pod, 5000, lambda _: 100)
    assert stuck == rules.Stuck("gpu-operator/v", "gpu-1", "toolkit-validation", 4900)
    other = copy.deepcopy(pod)
    other["status"]["initContainerStatuses"][1]["name"] = "wait-for-database"
    assert rules.read_stuck(other, 5000, lambda _: 100) is None
    assert rules.read_stuck({"status": {"phase": "Running"}}, 5000, lambda _: 100) is None


@pytest.mark.parametrize("item", [{}, {"metadata": None, "spec": [], "status": "x"}])
def test_hostile_objects_are_borne(item):
    assert rules.read_daemonset(item) is None
    assert rules.read_stuck(item, 0, lambda _: 0) is None
    assert not rules.read_node(item).gpu


# --- sharing and MIG of the device plugin


@pytest.mark.parametrize(
    ("group", "config"),
    [
        ({}, {"version": "v1", "flags": {"migStrategy": "none"}}),
        ({"mig_strategy": "mixed"}, {"version": "v1", "flags": {"migStrategy": "mixed"}}),
        (
            {"sharing": "time-slicing", "replicas": 4},
            {
                "version": "v1",
                "flags": {"migStrategy": "none"},
                "sharing": {
                    "timeSlicing": {
                        "failRequestsGreaterThanOne": True,
                        "renameByDefault": False,
                        "resources": [{"name": "nvidia.com/gpu", "replicas": 4}],
                    }
                },
            },
        ),
        (
            {"sharing": "mps", "replicas": "10"},
            {
                "version": "v1",
                "flags": {"migStrategy": "none"},
                "sharing": {"mps": {"resources": [{"name": "nvidia.com/gpu", "replicas": 10}]}},
            },
        ),
    ],
)
def test_configuration_of_the_device_plugin(group, config):
    assert device_plugin.configuration(group) == config


def test_groups_choose_their_configuration_by_a_label():
    groups = [{"name": "shared", "nodes": ["a", "b"], "sharing": "time-slicing", "replicas": 2}]
    assert device_plugin.node_labels(groups) == {"a": "shared", "b": "shared"}
    assert sorted(device_plugin.configurations({}, groups)) == ["default", "shared"]
    assert device_plugin.sharing_of(groups[0]) == {
        "strategy": "time-slicing",
        "resources": {"nvidia.com/gpu": 2},
        "rename": False,
    }


@pytest.mark.parametrize(
    ("default", "groups", "words"),
    [
        ({"sharing": "time-slicing"}, [], "set replicas to 2 or more"),
        ({"replicas": 4}, [], "set sharing to time-slicing or mps"),
        ({}, [{"name": "a", "sharing": "mps", "replicas": 2, "mig_strategy": "single"}], "MPS cannot share MIG slices"),
        ({}, [{"name": "a", "sharing": "mps", "replicas": 2, "rename": True}], "rename is for time-slicing only"),
        ({}, [{"name": "a"}, {"name": "a"}], "two groups are named a"),
        ({}, [{"name": "default"}], "no group may be named default"),
        ({}, [{"name": "a", "nodes": ["n"]}, {"name": "b", "nodes": ["n"]}], "node n is in two groups"),
    ],
)
def test_problems_of_groups(default, groups, words):
    (problem,) = device_plugin.problems(default, groups)
    assert words in problem
    assert device_plugin.problems({}, []) == []
