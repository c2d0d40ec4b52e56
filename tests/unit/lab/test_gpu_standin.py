# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The GPU stand-in: labels in the real form, the operator's rules, the device plugin against a kubelet's protocol."""

from __future__ import annotations

import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from standins.gpu_operator import hooks, nfd, validator
from standins.gpu_operator import policy as rules
from standins.gpu_operator.device_plugin import RESOURCE, SOCKET, Plugin
from standins.gpu_operator.device_plugin_api import KUBELET_SOCKET, VERSION, messages
from standins.gpu_operator.hardware import (
    DescriptionError,
    Hardware,
    feature_labels,
    hardware_from,
    label_changes,
    read_hardware,
)

T4 = {
    "product": "Tesla-T4",
    "count": 2,
    "memory_mib": 15360,
    "compute_major": 7,
    "compute_minor": 5,
    "family": "turing",
    "driver_version": "580.159.04",
    "cuda_version": "13.0",
    "machine": "lab",
    "mig_capable": False,
}
A100 = {
    **T4,
    "product": "NVIDIA-A100-SXM4-40GB",
    "memory_mib": 39538,
    "compute_major": 8,
    "compute_minor": 0,
    "family": "ampere",
    "mig_capable": True,
}
H100 = {
    "product": "NVIDIA H100 80GB HBM3",
    "count": 1,
    "memory_mib": 81559,
    "compute_major": 9,
    "compute_minor": 0,
    "driver_version": "580.159.04",
    "cuda_version": "13.0",
    "mig_capable": True,
}

# What NVIDIA's own GPU Feature Discovery v0.19.0 wrote on a machine with one H100.
REAL_H100 = """
nvidia.com/cuda.driver-version.full=580.159.04
nvidia.com/cuda.driver-version.major=580
nvidia.com/cuda.driver-version.minor=159
nvidia.com/cuda.driver-version.revision=04
nvidia.com/cuda.driver.major=580
nvidia.com/cuda.driver.minor=159
nvidia.com/cuda.driver.rev=04
nvidia.com/cuda.runtime-version.full=13.0
nvidia.com/cuda.runtime-version.major=13
nvidia.com/cuda.runtime-version.minor=0
nvidia.com/cuda.runtime.major=13
nvidia.com/cuda.runtime.minor=0
nvidia.com/gpu.compute.major=9
nvidia.com/gpu.compute.minor=0
nvidia.com/gpu.count=1
nvidia.com/gpu.family=hopper
nvidia.com/gpu.machine=unknown
nvidia.com/gpu.memory=81559
nvidia.com/gpu.mode=compute
nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3
nvidia.com/gpu.replicas=1
nvidia.com/gpu.sharing-strategy=none
nvidia.com/mig.capable=true
nvidia.com/mps.capable=false
nvidia.com/vgpu.present=false
"""


def real_labels() -> dict[str, str]:
    return dict(line.split("=", 1) for line in REAL_H100.split())


# --- labels


def test_an_h100_gets_the_labels_that_a_real_one_got():
    assert feature_labels(hardware_from(H100)) == real_labels()


@pytest.mark.parametrize("strategy", ["single", "mixed"])
def test_a_mig_strategy_adds_one_label(strategy):
    labels = feature_labels(hardware_from(H100), strategy)
    assert labels == {**real_labels(), "nvidia.com/mig.strategy": strategy}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (T4, {"product": "Tesla-T4", "family": "turing", "memory": "15360", "count": "2", "machine": "lab"}),
        (A100, {"product": "NVIDIA-A100-SXM4-40GB", "family": "ampere", "memory": "39538", "compute.minor": "0"}),
        ({**T4, "machine": "My Server 1"}, {"machine": "My-Server-1"}),
        ({**T4, "count": 0}, {"count": "0"}),
    ],
)
def test_labels_follow_the_description(description, expected):
    labels = feature_labels(hardware_from(description), timestamp=1700000000)
    assert {name: labels[f"nvidia.com/gpu.{name}"] for name in expected} == expected
    assert labels.keys() - real_labels().keys() == {"nvidia.com/gfd.timestamp"}
    assert labels["nvidia.com/gfd.timestamp"] == "1700000000"
    assert all(isinstance(value, str) for value in labels.values())


@pytest.mark.parametrize(("strategy", "label"), [("none", None), ("single", "single")])
def test_the_label_of_a_former_strategy_goes(strategy, label):
    changes = label_changes(hardware_from(T4), strategy, 1)
    assert changes["nvidia.com/mig.strategy"] == label
    assert {name for name, value in changes.items() if value is None} <= {"nvidia.com/mig.strategy"}


@pytest.mark.parametrize(
    ("major", "minor", "family"),
    [
        (7, 0, "volta"),
        (7, 2, "volta"),
        (7, 5, "turing"),
        (8, 0, "ampere"),
        (8, 6, "ampere"),
        (8, 9, "ada-lovelace"),
        (9, 0, "hopper"),
        (10, 0, "blackwell"),
        (12, 0, "blackwell"),
        (13, 0, "rubin"),
        (0, 9, "undefined"),
        (20, 0, "undefined"),
    ],
)
def test_the_family_comes_from_the_compute_capability(major, minor, family):
    assert hardware_from({**T4, "compute_major": major, "compute_minor": minor}).family == family


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"product": None}, "product"),
        ({"count": "2"}, "'count' is '2', it must be of type int"),
        ({"count": True}, "'count' is True"),
        ({"count": -1}, "0 or more"),
        ({"mig_capable": "yes"}, "mig_capable"),
    ],
)
def test_a_wrong_description_is_named(change, says, tmp_path):
    with pytest.raises(DescriptionError, match=says):
        hardware_from({**T4, **change})


def test_reading_a_description(tmp_path):
    assert read_hardware(tmp_path / "none.json") is None
    broken = tmp_path / "gpu.json"
    for text in ("{", "[]", "{}"):
        broken.write_text(text)
        with pytest.raises(DescriptionError, match=r"gpu\.json"):
            read_hardware(broken)


# --- the operator's rules

GPU = {"feature.node.kubernetes.io/pci-10de.present": "true"}
ALL_STATES = dict.fromkeys(rules.STATE_LABELS, "true")


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        ({}, {}),
        ({"feature.node.kubernetes.io/cpu": "x"}, {}),
        (GPU, {rules.PRESENT: "true", **ALL_STATES}),
        ({"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, {rules.PRESENT: "true", **ALL_STATES}),
        ({"feature.node.kubernetes.io/pci-10de.present": "false"}, {}),
        ({**GPU, rules.PRESENT: "true", **ALL_STATES}, {}),
        # One operand turned off by hand stays off.
        (
            {**GPU, rules.PRESENT: "true", **ALL_STATES, "nvidia.com/gpu.deploy.device-plugin": "false"},
            {},
        ),
        # All operands turned off by hand.
        ({**GPU, rules.PRESENT: "true", **ALL_STATES, rules.OPERANDS: "false"}, dict.fromkeys(rules.STATE_LABELS)),
        (
            {**GPU, rules.PRESENT: "true", **ALL_STATES, "nvidia.com/mig.capable": "true"},
            {rules.MIG_MANAGER: "true"},
        ),
        # The card is gone.
        ({rules.PRESENT: "true", **ALL_STATES}, {rules.PRESENT: "false", **dict.fromkeys(rules.STATE_LABELS)}),
        ({rules.PRESENT: "false"}, {}),
    ],
)
def test_labels_of_nodes(labels, changes):
    assert rules.node_changes(labels) == changes
    after = {name: value for name, value in {**labels, **changes}.items() if value is not None}
    assert rules.node_changes(after) == {}, "a second look must change nothing"


@pytest.mark.parametrize(
    ("not_ready", "nfd_labels", "gpu_nodes", "state", "reason"),
    [
        ([], True, 2, "ready", "Reconciled"),
        ([], True, 0, "ready", "NoGPUNodes"),
        ([], False, 0, "ready", "NFDLabelsMissing"),
        (["state-device-plugin"], True, 2, "notReady", "OperandNotReady"),
    ],
)
def test_the_state_and_its_reason(not_ready, nfd_labels, gpu_nodes, state, reason):
    result = rules.outcome(not_ready, nfd_labels, gpu_nodes)
    assert (result.state, result.reason) == (state, reason)
    status = rules.new_status({}, result, "gpu-operator", "2026-01-01T00:00:00Z")
    kinds = {condition["type"]: condition for condition in status["conditions"]}
    assert kinds["Ready" if state == "ready" else "Error"]["reason"] == reason
    assert kinds["Ready"]["status"] == str(state == "ready")
    assert kinds["Error"]["status"] == str(state != "ready")


def test_a_condition_keeps_its_time_while_its_status_stays():
    ready = rules.outcome([], True, 1)
    first = rules.new_status({}, ready, "ns", "2026-01-01T00:00:00Z")
    assert rules.new_status(first, ready, "ns", "2026-01-02T00:00:00Z") == first
    waiting = rules.outcome(["state-device-plugin"], True, 1)
    changed = rules.new_status(first, waiting, "ns", "2026-01-03T00:00:00Z")
    assert {condition["lastTransitionTime"] for condition in changed["conditions"]} == {"2026-01-03T00:00:00Z"}


def policy(**spec):
    image = {"repository": "nvcr.io/nvidia", "image": "k8s-device-plugin", "version": "v0.20.0"}
    return {
        "metadata": {"name": "cluster-policy", "uid": "1", "generation": 1},
        "spec": {"devicePlugin": image, "gfd": image, "validator": image, **spec},
    }


@pytest.mark.parametrize("operand", rules.OPERANDS_RUN, ids=lambda operand: operand.part)
def test_operands_are_the_real_ones(operand):
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    given = policy(daemonsets={"tolerations": tolerations, "priorityClassName": "p", "labels": {"a": "b"}})
    objects = rules.operand_objects(operand, given, "gpu-operator")
    made = objects[-1][1]
    pod = made["spec"]["template"]["spec"]
    assert made["kind"] == "DaemonSet"
    assert made["metadata"]["name"] in {
        "nvidia-device-plugin-daemonset",
        "gpu-feature-discovery",
        "nvidia-operator-validator",
    }
    assert pod["nodeSelector"] == {operand.label: "true"}
    assert operand.label in rules.STATE_LABELS
    assert pod["tolerations"] == tolerations
    assert pod["priorityClassName"] == "p"
    assert pod["containers"][0]["image"] == "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"
    assert made["spec"]["template"]["metadata"]["labels"]["a"] == "b"
    for path, item in objects:
        assert path.endswith(item["metadata"]["name"])
        assert item["metadata"]["ownerReferences"][0]["kind"] == "ClusterPolicy"


def test_an_operand_can_be_turned_off():
    off = {operand.part: rules.enabled(operand, {"gfd": {"enabled": False}}) for operand in rules.OPERANDS_RUN}
    assert off == {"validator": True, "device-plugin": True, "gpu-feature-discovery": False}


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({}, False),
        ({"observedGeneration": 1}, True),  # no node matches: the real operator calls that ready
        ({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2}, True),
        ({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 1}, False),
        ({"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberReady": 2}, False),
    ],
)
def test_when_a_daemon_set_is_ready(status, ready):
    assert rules.rolled_out({"metadata": {"generation": 1}, "status": status}) is ready


# --- the parts around it


@pytest.mark.parametrize(
    ("allocatable", "problem"),
    [({RESOURCE: "2"}, ""), ({RESOURCE: "1"}, "offers 1"), ({}, "offers 0"), ({RESOURCE: "3"}, "offers 3")],
)
def test_the_validator_compares_what_the_kubelet_offers(allocatable, problem):
    found = validator.problem_of({"status": {"allocatable": allocatable}}, hardware_from(T4))
    assert found.startswith("the node " + problem) if problem else found == ""


def test_the_validator_wants_a_description():
    assert "no description" in validator.problem_of({}, None)


def test_features_files():
    lines = ["# a comment", "", "pci-10de.present=true", "flag", "example.com/x=1"]
    assert nfd.features_of(lines) == {
        "feature.node.kubernetes.io/pci-10de.present": "true",
        "feature.node.kubernetes.io/flag": "true",
        "example.com/x": "1",
    }


@pytest.mark.parametrize(
    ("labels", "wanted", "changes"),
    [
        ({}, GPU, GPU),
        (GPU, GPU, {}),
        (GPU, {}, dict.fromkeys(GPU)),
        ({"other": "1", rules.PRESENT: "true"}, {}, {}),
    ],
)
def test_nfd_touches_only_its_own_labels(labels, wanted, changes):
    assert nfd.label_changes(labels, wanted) == changes


def test_a_worker_finds_a_card_by_description_or_features_file(tmp_path):
    description, features = tmp_path / "gpu.json", tmp_path / "features.d"
    always = set(nfd.found_labels(description, features))
    features.mkdir()
    (features / "speechops-lab").write_text("pci-10de.present=true\n")
    (features / ".hidden").write_text("hidden=true\n")
    assert set(nfd.found_labels(description, features)) - always == set(GPU)


def test_helpers_of_the_upstream_charts_hooks(capsys):
    assert hooks.main(["cleanup-gpuclusters", "--gpucluster-name", "gpu-cluster"]) == 0
    assert hooks.main(["manage-crds", "apply", "--filepath=/x"]) == 0
    assert hooks.main(["other"]) == 2
    assert "use cleanup-gpuclusters or manage-crds" in capsys.readouterr().err


# --- the device plugin, against a kubelet that speaks the real protocol


class Kubelet:
    """The kubelet's side: it empties the folder when it starts, and takes registrations."""

    def __init__(self, folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        self.requests: list = []
        self.arrived = threading.Event()
        handler = grpc.unary_unary_rpc_method_handler(
            self.register, messages.RegisterRequest.FromString, messages.Empty.SerializeToString
        )
        self.server = grpc.server(ThreadPoolExecutor(2))
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"{VERSION}.Registration", {"Register": handler}),)
        )
        self.server.add_insecure_port(f"unix://{folder / KUBELET_SOCKET}")
        self.server.start()

    def register(self, request, _context):
        self.requests.append(request)
        self.arrived.set()
        return messages.Empty()

    def stop(self):
        self.server.stop(0).wait()


@pytest.fixture
def folder():
    # A socket's path has to be short.
    path = Path(tempfile.mkdtemp(prefix="dp-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def plugin(folder):
    made: Plugin = Plugin(folder, read=lambda: made.hardware)
    made.hardware = hardware_from(T4)
    yield made
    made.stop()


def calls(channel):
    def call(kind, method, request, response):
        return kind(
            f"/{VERSION}.DevicePlugin/{method}",
            request_serializer=getattr(messages, request).SerializeToString,
            response_deserializer=getattr(messages, response).FromString,
        )

    return (
        call(channel.unary_unary, "GetDevicePluginOptions", "Empty", "DevicePluginOptions"),
        call(channel.unary_stream, "ListAndWatch", "Empty", "ListAndWatchResponse"),
        call(channel.unary_unary, "Allocate", "AllocateRequest", "AllocateResponse"),
    )


def test_device_plugin_registers_offers_and_allocates(folder, plugin):
    kubelet = Kubelet(folder)
    try:
        plugin.look()
        request = kubelet.requests[0]
        assert (request.version, request.resource_name, request.endpoint) == (VERSION, RESOURCE, SOCKET)
        with grpc.insecure_channel(f"unix://{folder / request.endpoint}") as channel:
            options, list_and_watch, allocate = calls(channel)
            assert options(messages.Empty(), timeout=5).pre_start_required is False
            stream = list_and_watch(messages.Empty(), timeout=20)
            offered = [(device.ID, device.health) for device in next(stream).devices]
            assert offered == [(device, "Healthy") for device in plugin.hardware.device_ids]
            # A card falls off the bus: the kubelet hears of it without asking.
            plugin.hardware = hardware_from({**T4, "count": 1})
            plugin.look()
            assert len(next(stream).devices) == 1
            wanted = plugin.hardware.device_ids[:1]
            container = messages.ContainerAllocateRequest(devices_ids=wanted)
            answer = allocate(messages.AllocateRequest(container_requests=[container]), timeout=5)
            variables = {variable.key: variable.value for variable in answer.container_responses[0].envs}
            assert variables == {"NVIDIA_VISIBLE_DEVICES": wanted[0]}
            stranger = messages.ContainerAllocateRequest(devices_ids=["GPU-none"])
            with pytest.raises(grpc.RpcError, match="unknown devices: GPU-none"):
                allocate(messages.AllocateRequest(container_requests=[stranger]), timeout=5)
            stream.cancel()
        plugin.look()
        assert len(kubelet.requests) == 1, "it registers once"
    finally:
        kubelet.stop()


def test_device_plugin_registers_again_after_the_kubelet_restarts(folder, plugin):
    plugin.look()
    assert plugin.registered is None, "no kubelet yet: it waits"
    first = Kubelet(folder)
    plugin.look()
    first.stop()
    second = Kubelet(folder)
    try:
        plugin.look()
        assert len(second.requests) == 1
        with grpc.insecure_channel(f"unix://{folder / SOCKET}") as channel:
            _, list_and_watch, _ = calls(channel)
            stream = list_and_watch(messages.Empty(), timeout=5)
            assert len(next(stream).devices) == 2
            stream.cancel()
    finally:
        second.stop()


def test_device_plugin_keeps_its_devices_while_the_description_is_broken(folder, plugin):
    plugin.look()

    def broken() -> Hardware:
        raise DescriptionError("half written")

    plugin.read = broken
    plugin.look()
    assert len(plugin.devices) == 2


def test_ids_of_devices_are_short_and_stable():
    hardware = hardware_from({**T4, "count": 16})
    assert len(set(hardware.device_ids)) == 16
    assert all(len(device) <= 63 for device in hardware.device_ids)
    assert hardware.device_ids == hardware_from({**T4, "count": 16}).device_ids
