# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nvidia-smi says is read right, and the labels foretold are those that GFD wrote on a real H100."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_findings, gpu_labels, gpu_pains, gpu_requirement
from ansible_collections.speechops.riva.plugins.module_utils import gpu_hardware as rules
from ansible_collections.speechops.riva.plugins.modules import gpu_hardware_info

from tests.unit.plugins.gpu_cases import CARDS, gpu

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "gpu"
SMI = (FIXTURES / "h100-nvidia-smi.xml").read_text()


def captured(strategy):
    lines = (FIXTURES / f"h100-gfd-mig-{strategy}.labels").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def real():
    """The captured H100, with what its second question answers."""
    found = rules.read_smi(SMI)
    rules.add_capabilities(found["gpus"], "00000000:00:06.0, 9.0\n")
    return found


def test_the_real_answer_is_read():
    found = real()
    assert (found["driver"], found["cuda"]) == ("580.159.04", "13.0")
    (card,) = found["gpus"]
    assert {key: card[key] for key in ("address", "device_id", "pci_class", "name", "generation")} == {
        "address": "0000:00:06.0",
        "device_id": "0x2330",
        "pci_class": "0x030200",
        "name": "NVIDIA H100 80GB HBM3",
        "generation": "hopper",
    }
    assert (card["memory_mib"], card["compute_capability"], card["persistence"]) == (81559, "9.0", True)
    assert card["mig"] == {"capable": True, "enabled": False, "pending": False, "devices": []}
    assert card["fabric"] == {"state": None, "status": None, "cluster": None, "clique": None}
    assert not card["vgpu"]


@pytest.mark.parametrize("strategy", ["none", "single", "mixed"])
def test_the_labels_foretold_are_those_that_gfd_wrote_on_a_real_h100(strategy):
    found = real()
    told = rules.predict(found["gpus"], found["driver"], found["cuda"], None, strategy)
    assert told == {"labels": captured(strategy), "either": {}}


def test_the_real_node_has_the_labels_foretold():
    labels = json.loads((FIXTURES / "h100-node.json").read_text())["metadata"]["labels"]
    found = real()
    assert rules.differences(labels, rules.predict(found["gpus"], found["driver"], found["cuda"], None)) == []


def test_no_captured_file_tells_who_owns_the_card():
    for path in (path for path in FIXTURES.rglob("*") if path.is_file()):
        text = path.read_text().lower()
        for tag in ("serial", "pdi", "board_id", "gpu_part_number", "chassis_serial_number"):
            assert f"<{tag}>" not in text or f"<{tag}>redacted<" in text or f"<{tag}>n/a<" in text, (path, tag)
        assert "gpu-00000000-" in text or "gpu-" not in text.replace("gpu-feature", "").replace("gpu-plugin", ""), path


@pytest.mark.parametrize("text", ["", "no devices were found", "<other/>", "<nvidia_smi_log>"])
def test_what_is_no_answer_is_refused(text):
    with pytest.raises(rules.UnreadableError):
        rules.read_smi(text)


MIG_XML = """<?xml version="1.0" ?>
<nvidia_smi_log><driver_version>535.161.08</driver_version><cuda_version>12.2</cuda_version>
<gpu id="00000000:3B:00.0"><product_name>NVIDIA A100-SXM4-40GB</product_name>
<mig_mode><current_mig>Enabled</current_mig><pending_mig>Enabled</pending_mig></mig_mode>
<mig_devices>
{devices}
</mig_devices>
<fb_memory_usage><total>40960 MiB</total></fb_memory_usage>
<pci><pci_device_id>20B010DE</pci_device_id><pci_base_class>3</pci_base_class><pci_sub_class>2</pci_sub_class></pci>
<fabric><state>Completed</state><status>Success</status><cliqueId>32766</cliqueId>
<clusterUUID>7b968a6d-c8aa-45e1-9e07-e1e51be99c31</clusterUUID></fabric>
</gpu></nvidia_smi_log>"""
MIG_DEVICE = """<mig_device><index>{index}</index><device_attributes><shared>
<multiprocessor_count>14</multiprocessor_count><copy_engine_count>1</copy_engine_count><encoder_count>0</encoder_count>
<decoder_count>0</decoder_count><ofa_count>0</ofa_count><jpg_count>0</jpg_count></shared></device_attributes>
<fb_memory_usage><total>4864 MiB</total></fb_memory_usage></mig_device>"""
LISTING = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-x)
  MIG 1g.5gb      Device  0: (UUID: MIG-a)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-b)
"""


def test_mig_devices_are_read():
    found = rules.read_smi(MIG_XML.format(devices="".join(MIG_DEVICE.format(index=index) for index in (0, 1))))
    rules.add_mig_profiles(found["gpus"], LISTING)
    (card,) = found["gpus"]
    assert [device["profile"] for device in card["mig"]["devices"]] == ["1g.5gb", "1g.5gb+me"]
    assert card["mig"]["devices"][0]["memory_mib"] == 4864
    labels = rules.predict(found["gpus"], "535.161.08", "12.2", "DGX A100", "mixed")["labels"]
    assert labels["nvidia.com/mig-1g.5gb.count"] == "1"
    assert labels["nvidia.com/mig-1g.5gb.me.product"] == "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb.me"
    assert labels["nvidia.com/gpu.machine"] == "DGX-A100"
    assert labels["nvidia.com/gpu.clique"] == "7b968a6d-c8aa-45e1-9e07-e1e51be99c31.32766"


FAMILY = {
    "T4": "turing",
    "V100": "volta",
    "A100-40": "ampere",
    "A100-80": "ampere",
    "A10": "ampere",
    "L4": "ada-lovelace",
    "L40S": "ada-lovelace",
    "H100-PCIe": "hopper",
    "H100-SXM": "hopper",
    "H200": "hopper",
    "B200": "blackwell",
    "GH200": "hopper",
}


def labels_of(gpus, **settings):
    told = rules.predict(gpus, "580.159.04", "13.0", "lab", **settings)
    return {name.removeprefix("nvidia.com/"): value for name, value in told["labels"].items()}


def these(labels, *names):
    return {name: labels.get(name) for name in names}


@pytest.mark.parametrize("card", CARDS)
def test_labels_of_whole_gpus(card):
    name, _device, capability, memory, capable = CARDS[card]
    labels = labels_of([gpu(card, number=number) for number in range(4)])
    assert these(labels, "gpu.product", "gpu.count", "gpu.memory", "gpu.family", "gpu.replicas") == {
        "gpu.product": name.replace(" ", "-"),
        "gpu.count": "4",
        "gpu.memory": str(memory),
        "gpu.family": FAMILY[card],
        "gpu.replicas": "1",
    }
    assert [labels["gpu.compute.major"], labels["gpu.compute.minor"]] == capability.split(".")
    assert these(labels, "mig.capable", "mig.strategy", "mps.capable", "gpu.sharing-strategy", "gpu.mode") == {
        "mig.capable": str(capable).lower(),
        "mig.strategy": None,
        "mps.capable": "false",
        "gpu.sharing-strategy": "none",
        "gpu.mode": "compute",
    }


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(
    ("sharing", "suffix", "strategy", "mps"),
    [
        ({"strategy": "time-slicing", "resources": {"nvidia.com/gpu": 4}}, "-SHARED", "time-slicing", "false"),
        ({"strategy": "time-slicing", "resources": {"nvidia.com/gpu": 4}, "rename": True}, "", "time-slicing", "false"),
        ({"strategy": "mps", "resources": {"nvidia.com/gpu": 4}}, "-SHARED", "mps", "true"),
    ],
)
def test_labels_of_shared_gpus(card, sharing, suffix, strategy, mps):
    labels = labels_of([gpu(card)], sharing=sharing)
    assert these(labels, "gpu.product", "gpu.replicas", "gpu.sharing-strategy", "mps.capable") == {
        "gpu.product": CARDS[card][0].replace(" ", "-") + suffix,
        "gpu.replicas": "4",
        "gpu.sharing-strategy": strategy,
        "mps.capable": mps,
    }


def test_one_replica_is_no_sharing():
    labels = labels_of([gpu("T4")], sharing={"strategy": "time-slicing", "resources": {"nvidia.com/gpu": 1}})
    assert these(labels, "gpu.product", "gpu.sharing-strategy") == {
        "gpu.product": "Tesla-T4",
        "gpu.sharing-strategy": "none",
    }


A100 = "NVIDIA-A100-SXM4-40GB"
SINGLE = {
    "seven slices on each of two": (
        [gpu("A100-40", *["1g.5gb"] * 7), gpu("A100-40", *["1g.5gb"] * 7, number=1)],
        {"gpu.product": f"{A100}-MIG-1g.5gb", "gpu.count": "14", "gpu.memory": "4864", "gpu.replicas": "1"},
    ),
    "MIG off everywhere": ([gpu("A100-40")], {"gpu.product": A100, "gpu.count": "1", "gpu.replicas": "1"}),
    "two profiles": (
        [gpu("A100-40", "1g.5gb", "2g.10gb")],
        {"gpu.product": f"{A100}-MIG-INVALID", "gpu.count": "0", "gpu.replicas": "0", "gpu.sharing-strategy": ""},
    ),
    "one GPU without MIG": (
        [gpu("A100-40", "1g.5gb"), gpu("A100-40", number=1)],
        {"gpu.product": f"{A100}-MIG-INVALID", "gpu.memory": "0", "gpu.family": "ampere"},
    ),
    "MIG on, and no slice": ([gpu("A100-40", mig=True)], {"gpu.product": f"{A100}-MIG-INVALID", "gpu.count": "0"}),
    "a slice of half a compute instance": (
        [gpu("H100-SXM", "1c.3g.40gb")],
        {"gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1c.3g.40gb", "gpu.slices.gi": "3", "gpu.slices.ci": "1"},
    ),
}


@pytest.mark.parametrize(("gpus", "expected"), SINGLE.values(), ids=SINGLE.keys())
def test_labels_of_mig_single(gpus, expected):
    labels = labels_of(gpus, mig_strategy="single")
    assert labels["mig.strategy"] == "single"
    assert these(labels, *expected) == expected


def test_labels_of_mig_single_shared():
    sharing = {"strategy": "time-slicing", "resources": {"nvidia.com/gpu": 3}}
    labels = labels_of([gpu("A100-40", *["1g.5gb"] * 7)], mig_strategy="single", sharing=sharing)
    assert these(labels, "gpu.product", "gpu.count", "gpu.replicas") == {
        "gpu.product": f"{A100}-MIG-1g.5gb-SHARED",
        "gpu.count": "7",
        "gpu.replicas": "3",
    }


def test_labels_of_mig_mixed():
    gpus = [gpu("H100-PCIe", "1g.10gb", "1g.10gb", "3g.40gb"), gpu("H100-PCIe", number=1)]
    sharing = {"strategy": "time-slicing", "resources": {"nvidia.com/mig-1g.10gb": 2}}
    labels = labels_of(gpus, mig_strategy="mixed", sharing=sharing)
    expected = {
        "gpu.product": "NVIDIA-H100-PCIe",
        "gpu.count": "2",
        "gpu.replicas": "1",
        "mig-1g.10gb.count": "2",
        "mig-1g.10gb.replicas": "2",
        "mig-1g.10gb.product": "NVIDIA-H100-PCIe-MIG-1g.10gb-SHARED",
        "mig-3g.40gb.count": "1",
        "mig-3g.40gb.replicas": "1",
        "mig-3g.40gb.slices.gi": "3",
        "mig-3g.40gb.engines.copy": "1",
        "mig.strategy": "mixed",
    }
    assert these(labels, *expected) == expected


def test_a_parent_of_slices_has_no_replicas():
    labels = labels_of([gpu("A100-80", "1g.10gb")], mig_strategy="mixed")
    assert these(labels, "gpu.replicas", "gpu.count") == {"gpu.replicas": "0", "gpu.count": "1"}


def test_two_models_leave_it_open_which_is_labelled():
    told = rules.predict([gpu("T4"), gpu("A10", number=1), gpu("A10", number=2)], "580.1", "13.0", "lab")
    assert told["either"]["nvidia.com/gpu.product"] == ["NVIDIA-A10", "Tesla-T4"]
    assert told["either"]["nvidia.com/gpu.count"] == ["1", "2"]
    assert "nvidia.com/gpu.product" not in told["labels"]
    assert told["labels"]["nvidia.com/gpu.replicas"] == "1"
    t4 = rules.predict([gpu("T4")], "580.1", "13.0", "lab")["labels"]
    assert rules.differences(t4, told) == []


def test_without_a_driver_there_is_no_label():
    assert rules.predict([gpu("T4")], None, None, "lab") == {"labels": {}, "either": {}}
    assert rules.predict([], "580.1", "13.0", "lab") == {"labels": {}, "either": {}}


@pytest.mark.parametrize(
    ("text", "label"),
    [("Tesla T4", "Tesla-T4"), ("  a  b (R) c ", "a-b-R-c"), ("x/y_z.1", "xy_z.1"), ("", "")],
)
def test_sanitise(text, label):
    assert rules.sanitise(text) == label


def test_a_graphics_card_is_in_graphics_mode():
    cards = [{**gpu("A10"), "pci_class": "0x030000"}]
    assert labels_of(cards)["gpu.mode"] == "graphics"
    assert labels_of([*cards, gpu("A10", number=1)])["gpu.mode"] == "unknown"


# --- PCI


def test_pci_devices_tell_gpus_and_switches_without_a_driver():
    nvidia = {"vendor": "0x10de"}
    found = rules.read_pci(
        [
            {**nvidia, "address": "0000:07:00.0", "device": "0x22a3", "class": "0x068000"},
            {**nvidia, "address": "0000:06:00.0", "device": "0x2330", "class": "0x030200", "driver": "nouveau"},
            {**nvidia, "address": "0000:06:00.1", "device": "0x10f8", "class": "0x040300"},
            {"vendor": "0x8086", "address": "0000:00:02.0", "device": "0x1234", "class": "0x030000"},
            {**nvidia, "address": "0000:09:00.0", "device": "rubbish", "class": "0x030200"},
            {**nvidia},
        ]
    )
    assert found["nvswitches"] == 1
    assert found["gpus"] == [
        {
            "address": "0000:06:00.0",
            "device_id": "0x2330",
            "pci_class": "0x030200",
            "generation": "hopper",
            "driver": "nouveau",
        }
    ]


# --- differences


def expected(card="T4", **settings):
    return rules.predict([gpu(card)], "580.159.04", "13.0", "lab", **settings)


STALE = {
    "a GPU was swapped": (expected("A10"), expected("T4"), {"nvidia.com/gpu.product", "nvidia.com/gpu.memory"}, True),
    "the driver was upgraded": (
        rules.predict([gpu("T4")], "570.1.2", "12.8", "lab"),
        expected("T4"),
        {"nvidia.com/cuda.driver-version.full", "nvidia.com/cuda.runtime.major"},
        False,
    ),
    "MIG was switched off": (
        rules.predict([gpu("A100-40", "1g.5gb")], "580.159.04", "13.0", "lab", "mixed"),
        expected("A100-40"),
        {"nvidia.com/mig.strategy", "nvidia.com/mig-1g.5gb.count", "nvidia.com/gpu.replicas"},
        True,
    ),
}


@pytest.mark.parametrize(("labels", "wanted", "names", "serious"), STALE.values(), ids=STALE.keys())
def test_stale_labels_are_found(labels, wanted, names, serious):
    found = rules.differences(labels["labels"], wanted)
    assert names <= {item["label"] for item in found}
    assert rules.matter(found) is serious


def test_labels_of_others_are_left_alone():
    wanted = expected()
    others = {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.deploy.driver": "true",
        "nvidia.com/gfd.timestamp": "1",
        "nvidia.com/mig.config": "all-disabled",
        "nvidia.com/mig.config.state": "success",
        "nvidia.com/device-plugin.config": "shared",
        "kubernetes.io/hostname": "x",
    }
    assert rules.differences({**wanted["labels"], **others}, wanted) == []


def test_gpu_labels_reads_what_is_foretold():
    told = gpu_labels.read_labels(expected("L40S")["labels"])
    assert (told.model, told.count, told.memory_mib, told.family) == ("NVIDIA-L40S", 1, 46068, "ada-lovelace")


# --- what a real machine answered


class RealNvml:
    """NVML as it answered on a real H100, question by question."""

    class NVMLError(Exception):
        pass

    NVML_GPU_VIRTUALIZATION_MODE_VGPU = 2

    def __init__(self):
        self.said = json.loads((FIXTURES / "h100-nvml.json").read_text())
        card = self.said["devices"][0]
        self.nvmlDeviceGetName = lambda _: card["name"].encode()
        self.nvmlDeviceGetPciInfo = lambda _: SimpleNamespace(
            busId=card["bus_id"].encode(), pciDeviceId=int(card["pci_device_id"], 16)
        )
        self.nvmlDeviceGetMemoryInfo = lambda _: SimpleNamespace(total=card["memory_total"])
        self.nvmlDeviceGetCudaComputeCapability = lambda _: card["cuda_compute_capability"]
        self.nvmlDeviceGetMigMode = lambda _: card["mig_mode"]
        self.nvmlDeviceGetPersistenceMode = lambda _: card["persistence_mode"]
        self.nvmlDeviceGetVirtualizationMode = lambda _: card["virtualization_mode"]


def test_nvml_and_nvidia_smi_say_the_same_of_a_real_h100():
    by_nvml = gpu_hardware_info.nvml_gpu(RealNvml(), object())
    (by_smi,) = real()["gpus"]
    assert by_nvml == {**by_smi, "pci_class": None}  # sysfs knows the class


def test_a_question_that_nvml_refuses_leaves_its_answer_open():
    nvml = RealNvml()

    def refused(_handle):
        raise nvml.NVMLError("Not Supported")

    nvml.nvmlDeviceGetMigMode = nvml.nvmlDeviceGetMemoryInfo = refused
    found = gpu_hardware_info.nvml_gpu(nvml, object())
    assert (found["mig"]["capable"], found["memory_mib"]) == (False, None)


def test_the_module_said_so_on_a_real_machine():
    said = json.loads((FIXTURES / "h100-hardware-info.json").read_text())
    assert said["hardware"]["gpus"] == real()["gpus"]
    assert said["labels"] == {"labels": captured("none"), "either": {}}
    checks = {finding.check: finding.status for finding in gpu_pains.findings_of(said["hardware"])}
    assert set(checks.values()) == {"ok", "unknown"}
    assert checks["containerd_path"] == "unknown"


def test_a_real_node_is_as_its_hardware_wants_it():
    """A node made by a real kubelet and NVIDIA's own device plugin, against what the rules foretell for its card."""
    found = real()
    told = rules.predict(found["gpus"], found["driver"], found["cuda"], None)
    node = gpu_labels.project_node(json.loads((FIXTURES / "h100-node.json").read_text()))
    wanted = gpu_requirement.Requirement(
        min_gpus=1,
        products=("NVIDIA-H100*",),
        families=("hopper",),
        min_memory=80 * 1024,
        min_compute_capability="9.0",
        min_driver="580",
        min_cuda="13.0",
        sharing="none",
        mig="capable",
    )
    findings = gpu_findings.findings_of(gpu_requirement.judge_all([node], wanted), wanted)
    findings += gpu_findings.hardware_findings([node], {"lab-1": told})
    assert {finding.check for finding in findings} == {"gpu_nodes", "gpus", "gpu_labels"}
    assert [finding for finding in findings if finding.status != "ok"] == []
