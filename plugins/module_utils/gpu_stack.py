# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a cluster has for its GPUs, whether the wanted way fits it, and what follows for the charts' values.

The pains that only the cluster can show; those of a node are in gpu_pains, and here where they are in the way. Names of
containers and labels are those of the charts gpu-operator 26.7.0, nvidia-device-plugin 0.20.0 and
node-feature-discovery 0.19.0.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.speechops.riva.plugins.module_utils import gpu_pains
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, WARNING, Finding
from ansible_collections.speechops.riva.plugins.module_utils.gpu_labels import (
    NFD_NVIDIA,
    NFD_PREFIX,
    gpu_resources,
    nvidia_only,
)
from ansible_collections.speechops.riva.plugins.module_utils.objects import mapping, sequence

OPERATOR, MANUAL, PREINSTALLED = "operator", "manual", "preinstalled"
STACKS = (OPERATOR, MANUAL, PREINSTALLED)
RANCHER_SOCKET = "/run/k3s/containerd/containerd.sock"
# The one form of NFD's label that the device plugin's chart looks for.
PLAIN_FORM = f"{NFD_PREFIX}pci-10de.present"
# Containers of each part, whatever installed it.
PARTS = {
    "device plugin": re.compile(r"nvidia-device-plugin(-ctr|-daemonset)?$"),
    "feature discovery of GPUs": re.compile(r"gpu-feature-discovery(-ctr)?$"),
    "driver": re.compile(r"nvidia-driver-ctr$"),
    "metrics of GPUs": re.compile(r"(nvidia-)?dcgm-exporter$"),
}
NFD_IMAGE = re.compile(r"node-feature-discovery")
# What an init container of NVIDIA's pods waits for, and the finding that tells more about it.
WAITS_FOR = {
    "driver-validation": "the driver: nvidia-smi does not work on the node",
    "toolkit-validation": "the container toolkit: containerd does not know NVIDIA's runtime",
    "cuda-validation": "a CUDA program to run: driver or Fabric Manager",
    "plugin-validation": "the device plugin to offer GPUs",
    "mofed-validation": "the network driver (MOFED)",
    "k8s-driver-manager": "the driver that is there to be unloaded: pods still use the GPU",
    "toolkit-init": "the driver: nvidia-smi does not work on the node",
}
# Findings of a host whose driver does not work: NVIDIA's pods would stand in Init for them.
OF_HOST_DRIVERS = ("gpu_hardware", "gpu_driver", "nouveau", "secure_boot", "kernel_headers", "fabric_manager")
# Systems that the operator has a driver for, by the node's words or by the ID of os-release.
SUPPORTED_BY_OPERATOR = re.compile(r"ubuntu|red hat|rhel|rocky|coreos|rhcos", re.IGNORECASE)


@dataclass(frozen=True)
class Node:
    name: str
    labels: Mapping
    kubelet: str
    os_image: str
    gpu: bool
    offers: bool = False  # Whether it offers any GPU now, under whatever name.


@dataclass(frozen=True)
class DaemonSet:
    namespace: str
    name: str
    parts: tuple[str, ...]
    runtime_class: str | None
    nfd: bool
    release: str | None
    desired: int


@dataclass(frozen=True)
class Stuck:
    """A pod whose init container does not end."""

    pod: str
    node: str
    container: str
    seconds: int


@dataclass(frozen=True)
class Found:
    """What the cluster has."""

    nodes: Sequence[Node] = ()
    daemonsets: Sequence[DaemonSet] = ()
    runtime_classes: Mapping[str, str] = field(default_factory=dict)
    stuck: Sequence[Stuck] = ()
    service_monitors: Sequence[str] | None = None  # None: the cluster does not know the kind.


@dataclass(frozen=True)
class Wanted:
    """What is to be installed. None of a choice leaves it to decisions()."""

    stack: str = OPERATOR
    driver: bool | None = None
    precompiled: bool = False  # The driver's modules come built and signed.
    toolkit: bool = True
    nfd: bool | None = None
    runtime_class: str = "nvidia"
    toolkit_environment: Mapping[str, str] = field(default_factory=dict)
    dcgm_exporter: bool = True
    # Init containers are done within seconds, the driver's within its build.
    init_timeout: int = 1800
    release: str = "gpu-operator"
    namespace: str = "gpu-operator"


# --- reading objects


def is_gpu_node(labels: Mapping) -> bool:
    return labels.get("nvidia.com/gpu.present") == "true" or any(
        NFD_NVIDIA.fullmatch(str(name)) and value == "true" for name, value in labels.items()
    )


def read_node(item: Mapping) -> Node:
    metadata, info = mapping(item.get("metadata")), mapping(mapping(item.get("status")).get("nodeInfo"))
    labels = mapping(metadata.get("labels"))
    return Node(
        str(metadata.get("name")),
        labels,
        str(info.get("kubeletVersion") or ""),
        str(info.get("osImage") or ""),
        is_gpu_node(labels),
        bool(gpu_resources(nvidia_only(mapping(item.get("status")).get("allocatable")))),
    )


def read_daemonset(item: Mapping) -> DaemonSet | None:
    """A DaemonSet that has to do with GPUs or with NFD; None for any other."""
    metadata = mapping(item.get("metadata"))
    template = mapping(mapping(item.get("spec")).get("template"))
    pod = mapping(template.get("spec"))
    containers = [mapping(container) for container in sequence(pod.get("containers"))]
    names = [str(container.get("name")) for container in containers]
    parts = tuple(part for part, pattern in PARTS.items() if any(pattern.match(name) for name in names))
    labels = mapping(metadata.get("labels"))
    images = [str(container.get("image")) for container in containers]
    named = str(labels.get("app.kubernetes.io/name") or "")
    nfd = any(NFD_IMAGE.search(text) for text in (*images, named, str(metadata.get("name"))))
    if not parts and not nfd:
        return None
    return DaemonSet(
        str(metadata.get("namespace")),
        str(metadata.get("name")),
        parts,
        pod.get("runtimeClassName") or None,
        nfd and not parts,
        mapping(metadata.get("annotations")).get("meta.helm.sh/release-name")
        or labels.get("app.kubernetes.io/instance"),
        int(mapping(item.get("status")).get("desiredNumberScheduled") or 0),
    )


def read_stuck(pod: Mapping, now: float, seconds_of) -> Stuck | None:
    """A pod of NVIDIA's whose init container has run too long; `seconds_of` turns a time stamp into seconds."""
    metadata, status = mapping(pod.get("metadata")), mapping(pod.get("status"))
    if status.get("phase") != "Pending":
        return None
    for container in sequence(status.get("initContainerStatuses")):
        container = mapping(container)
        state = mapping(container.get("state"))
        if "terminated" in state and mapping(state["terminated"]).get("exitCode") == 0:
            continue
        if str(container.get("name")) not in WAITS_FOR:
            return None
        age = int(now - seconds_of(metadata.get("creationTimestamp")))
        node = str(mapping(pod.get("spec")).get("nodeName") or "?")
        name = f"{metadata.get('namespace')}/{metadata.get('name')}"
        return Stuck(name, node, str(container["name"]), age)
    return None


# --- what follows


def distribution(nodes: Iterable[Node]) -> str:
    """k3s, rke2 or other, by the kubelets' versions (v1.34.1+k3s1)."""
    versions = " ".join(node.kubelet for node in nodes)
    return "k3s" if "+k3s" in versions else "rke2" if "+rke2" in versions else "other"


def hosts_with_driver(hardware: Mapping[str, Mapping]) -> list[str]:
    """Nodes whose host has a driver that is not the operator's container."""
    return sorted(
        name
        for name, about in hardware.items()
        if set(about["driver"]["origin"].split("+")) & {"packages", "runfile", "other"}
    )


def without_operators_driver(found: Found, hardware: Mapping[str, Mapping]) -> bool:
    """Whether a GPU node has a system that the operator has no driver for, as Debian."""
    systems = [node.os_image for node in found.nodes if node.gpu] + [about["os"]["id"] for about in hardware.values()]
    if any(system and not SUPPORTED_BY_OPERATOR.search(system) for system in systems):
        return True
    # Before feature discovery nobody knows which nodes have GPUs; but none of these can be helped.
    images = [node.os_image for node in found.nodes if node.os_image]
    return bool(images) and not any(SUPPORTED_BY_OPERATOR.search(image) for image in images)


def foreign_nfd(found: Found, wanted: Wanted) -> list[DaemonSet]:
    """Node Feature Discovery that is not of the release to be installed."""
    return [
        item
        for item in found.daemonsets
        if item.nfd and (item.release, item.namespace) != (wanted.release, wanted.namespace)
    ]


def decisions(found: Found, wanted: Wanted, hardware: Mapping[str, Mapping]) -> dict:
    """The values that follow from what is there, for what the user left open."""
    driver = wanted.driver
    if driver is None:
        driver = not (hosts_with_driver(hardware) or without_operators_driver(found, hardware))
    nfd = not foreign_nfd(found, wanted) if wanted.nfd is None else wanted.nfd
    kind = distribution(found.nodes)
    environment = dict(wanted.toolkit_environment)
    if kind in ("k3s", "rke2"):
        environment.setdefault("CONTAINERD_SOCKET", RANCHER_SOCKET)
    return {
        "driver": driver,
        "nfd": nfd,
        "distribution": kind,
        "toolkit_environment": [{"name": name, "value": environment[name]} for name in sorted(environment)],
    }


# --- findings


def findings_of(found: Found, wanted: Wanted, hardware: Mapping[str, Mapping]) -> list[Finding]:
    """Whether the wanted way fits what is there; before anything is changed."""
    return [
        *two_stacks(found, wanted),
        *two_drivers(found, wanted, hardware),
        *hosts(found, wanted, hardware),
        *containerd_path(found, wanted),
        *runtime_class(found, wanted),
        *feature_discovery(found, wanted),
        *stuck_in_init(found, wanted),
        *gpu_metrics(found, wanted),
    ]


def two_stacks(found: Found, wanted: Wanted) -> Iterable[Finding]:
    """Two device plugins on one node overwrite each other's socket."""
    of_operator = [item for item in found.daemonsets if "device plugin" in item.parts and is_operators(item)]
    by_hand = [item for item in found.daemonsets if "device plugin" in item.parts and not is_operators(item)]
    if wanted.stack == OPERATOR and by_hand:
        yield Finding(
            "two_stacks",
            place_of(by_hand[0]),
            FAILED,
            "a device plugin of its own is in the cluster, and gpu_stack is operator, which brings another",
            f"set gpu_stack to manual, or remove it: helm uninstall -n {by_hand[0].namespace} {by_hand[0].release}",
        )
    elif wanted.stack == MANUAL and of_operator:
        yield Finding(
            "two_stacks",
            place_of(of_operator[0]),
            FAILED,
            "the GPU Operator runs in the cluster, and gpu_stack is manual, which brings another device plugin",
            "set gpu_stack to operator, or remove it first: playbooks/uninstall.yml, or helm uninstall",
        )
    elif wanted.stack == PREINSTALLED and not (of_operator or by_hand or any(node.offers for node in found.nodes)):
        yield Finding(
            "two_stacks",
            "cluster",
            FAILED,
            "gpu_stack is preinstalled, and neither a device plugin nor an allocatable GPU is in the cluster",
            "set gpu_stack to operator or manual, or install a device plugin first",
        )
    else:
        yield Finding("two_stacks", "cluster", OK, "one device plugin at most", "")


def is_operators(item: DaemonSet) -> bool:
    return item.name == "nvidia-device-plugin-daemonset"


def place_of(item: DaemonSet) -> str:
    return f"{item.namespace}/{item.name}"


def two_drivers(found: Found, wanted: Wanted, hardware: Mapping[str, Mapping]) -> Iterable[Finding]:
    with_driver, brings = hosts_with_driver(hardware), decisions(found, wanted, hardware)["driver"]
    containers = [item for item in found.daemonsets if "driver" in item.parts and item.desired]
    if wanted.stack == OPERATOR and brings and with_driver:
        yield Finding(
            "two_drivers",
            ", ".join(with_driver),
            FAILED,
            "the hosts have a driver, and gpu_operator_driver_enabled is true, which brings a second one",
            "set gpu_operator_driver_enabled to false, or remove the hosts' (role nvidia_driver, uninstall)",
        )
    elif wanted.stack == OPERATOR and not brings and hardware and len(with_driver) < len(hardware):
        without = sorted(set(hardware) - set(with_driver))
        yield Finding(
            "two_drivers",
            ", ".join(without),
            FAILED,
            "the operator brings no driver, and these hosts have none",
            "install it there (role nvidia_driver), or set gpu_operator_driver_enabled to true and remove the others'",
        )
    elif wanted.stack == MANUAL and containers:
        yield Finding(
            "two_drivers",
            place_of(containers[0]),
            FAILED,
            "the GPU Operator's driver container runs, and gpu_stack is manual, which installs another",
            "set gpu_stack to operator, or remove the GPU Operator and reboot its nodes",
        )
    else:
        yield Finding("two_drivers", "cluster", OK, "one driver at most on each node", "")


def hosts(found: Found, wanted: Wanted, hardware: Mapping[str, Mapping]) -> Iterable[Finding]:
    """What is wrong on the hosts. In the manual way the role nvidia_driver mends it, or refuses."""
    if wanted.stack == MANUAL:
        return
    if wanted.stack == OPERATOR and decisions(found, wanted, hardware)["driver"]:
        for name, facts in sorted(hardware.items()):
            yield from of_driver_container(name, facts, wanted)
        return
    for name in hosts_with_driver(hardware):
        for finding in gpu_pains.findings_of(hardware[name]):
            if finding.status == FAILED and finding.check in OF_HOST_DRIVERS:
                yield finding


def of_driver_container(name: str, facts: Mapping, wanted: Wanted) -> Iterable[Finding]:
    """Sources: NVIDIA/gpu-operator#141 and #497 (nothing signs), NVIDIA/k8s-driver-manager#37 (nouveau is unloaded)."""
    kernel = facts["kernel"]
    if kernel["secure_boot"] and not facts["driver"]["module"]["loaded"] and not wanted.precompiled:
        yield Finding(
            "secure_boot",
            name,
            FAILED,
            "Secure Boot is on, and the operator's driver container signs no module: the kernel will refuse it",
            "switch Secure Boot off in the firmware; or set driver.usePrecompiled in gpu_operator_values, where NVIDIA"
            " has signed modules for this kernel; or sign with your own key: gpu_stack manual, nvidia_driver_mok_key",
        )
    if kernel["nouveau"]:
        yield Finding(
            "nouveau",
            name,
            WARNING,
            "nouveau is loaded; the operator's driver container unloads it, which fails where anything uses it",
            "better before: blacklist nouveau and options nouveau modeset=0 in /etc/modprobe.d, update-initramfs -u"
            " (dracut -f), reboot",
        )


def containerd_path(found: Found, wanted: Wanted) -> Iterable[Finding]:
    kind = distribution(found.nodes)
    said = wanted.toolkit_environment.get("CONTAINERD_SOCKET")
    if wanted.stack == OPERATOR and wanted.toolkit and kind != "other" and said not in (None, RANCHER_SOCKET):
        yield Finding(
            "containerd_path",
            "cluster",
            FAILED,
            f"{kind} has its containerd at {RANCHER_SOCKET}, and CONTAINERD_SOCKET of the toolkit is {said}",
            "leave it out of gpu_operator_toolkit_environment: the role sets it for k3s and RKE2",
        )
    else:
        words = (
            f"{kind}: the toolkit is told of {RANCHER_SOCKET}" if kind != "other" else "containerd at its usual place"
        )
        yield Finding("containerd_path", "cluster", OK, words, "")


def runtime_class(found: Found, wanted: Wanted) -> Iterable[Finding]:
    """Pods that name a RuntimeClass that is not there are never created, and nobody says so but an event."""
    missing = [
        item for item in found.daemonsets if item.runtime_class and item.runtime_class not in found.runtime_classes
    ]
    handler = found.runtime_classes.get(wanted.runtime_class)
    if missing:
        yield Finding(
            "runtime_class",
            place_of(missing[0]),
            FAILED if wanted.stack == PREINSTALLED else WARNING,
            f"its pods name the RuntimeClass {missing[0].runtime_class}, which is not there: they are not even created",
            f"kubectl create -f - with kind RuntimeClass, name and handler {missing[0].runtime_class}; the"
            " nvidia_device_plugin role and the GPU Operator bring it",
        )
    elif handler and not handler.startswith("nvidia"):
        yield Finding(
            "runtime_class",
            wanted.runtime_class,
            FAILED,
            f"its handler is {handler}, no runtime of NVIDIA's",
            f"kubectl delete runtimeclass {wanted.runtime_class}; it is made anew",
        )
    else:
        words = "is there" if handler else "is not there, and nothing needs it yet"
        yield Finding("runtime_class", wanted.runtime_class or "none", OK, words, "")


def feature_discovery(found: Found, wanted: Wanted) -> Iterable[Finding]:
    """Without NFD's labels neither way finds a GPU node, and neither complains."""
    others = foreign_nfd(found, wanted)
    labelled = any(str(name).startswith(NFD_PREFIX) for node in found.nodes for name in node.labels)
    odd = [node for node in found.nodes if node.gpu and PLAIN_FORM not in node.labels and wants_plain_form(node)]
    wanted_nfd = wanted.stack != PREINSTALLED and decisions(found, wanted, {})["nfd"]
    if wanted_nfd and others:
        yield Finding(
            "feature_discovery",
            place_of(others[0]),
            FAILED,
            "Node Feature Discovery runs already, and a second one would take its labels away and put them back",
            "leave gpu_operator_nfd_enabled (nvidia_device_plugin_nfd_enabled) unset, or set it to false",
        )
    elif wanted.stack != PREINSTALLED and not wanted_nfd and not others and not labelled:
        yield Finding(
            "feature_discovery",
            "cluster",
            FAILED,
            "Node Feature Discovery is not there and not wanted: no node would be taken for a GPU node",
            "set gpu_operator_nfd_enabled (nvidia_device_plugin_nfd_enabled) to true, or install it",
        )
    elif odd and wanted.stack == PREINSTALLED:
        yield Finding(
            "feature_discovery",
            odd[0].name,
            WARNING,
            "NFD labels its GPU in another form than pci-10de.present, which the device plugin's chart looks for",
            "set deviceLabelFields to [vendor] in NFD's worker, or give the chart an affinity for that form",
        )
    else:
        yield Finding("feature_discovery", "cluster", OK, "one Node Feature Discovery", "")


def wants_plain_form(node: Node) -> bool:
    return any(NFD_NVIDIA.fullmatch(str(name)) for name in node.labels)


def stuck_in_init(found: Found, wanted: Wanted) -> Iterable[Finding]:
    stuck = [item for item in found.stuck if item.seconds > wanted.init_timeout]
    for item in stuck[:10]:
        yield Finding(
            "stuck_in_init",
            item.pod,
            FAILED,
            f"stands at {item.container} on {item.node} for {item.seconds // 60} min: it waits for"
            f" {WAITS_FOR[item.container]}",
            f"kubectl logs -n {item.pod.partition('/')[0]} {item.pod.partition('/')[2]} -c {item.container};"
            " gpu_hardware_info on the node names the cause",
        )
    if not stuck:
        yield Finding("stuck_in_init", "cluster", OK, "no pod of NVIDIA's waits too long", "")


def gpu_metrics(found: Found, wanted: Wanted) -> Iterable[Finding]:
    """The chart leaves its ServiceMonitor out without a word where the cluster does not know the kind."""
    exporters = [item for item in found.daemonsets if "metrics of GPUs" in item.parts]
    monitored = [name for name in found.service_monitors or () if "dcgm" in name]
    if exporters and found.service_monitors is None:
        yield Finding(
            "gpu_metrics",
            place_of(exporters[0]),
            WARNING,
            "the GPUs' metrics are exported, and the cluster has no ServiceMonitor kind: nobody reads them",
            "install kube-prometheus-stack first (site.yml does), then the GPU Operator again",
        )
    elif exporters and wanted.dcgm_exporter and not monitored:
        yield Finding(
            "gpu_metrics",
            place_of(exporters[0]),
            WARNING,
            "the GPUs' metrics are exported, and no ServiceMonitor names them: the operator came before Prometheus",
            "run the gpu_operator role again, with gpu_operator_dcgm_exporter_enabled true",
        )
    else:
        yield Finding("gpu_metrics", "cluster", OK, "nothing is exported unread", "")
