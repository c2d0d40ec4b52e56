"""What real GPU nodes answered (docs/real-gpu.md), held against the rules and the stand-ins that run without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_findings, gpu_labels

from lab.standins.gpu_operator.hardware import Hardware, feature_labels
from lab.standins.riva.batcher import NS_PER_MS, BatcherConfig
from lab.standins.riva.curves import CURVES

FIXTURES = Path(__file__).parents[2] / "fixtures" / "real_gpu"
PAGE = (Path(__file__).parents[3] / "docs" / "real-gpu.md").read_text()


def answer(name):
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.mark.parametrize("machine", ["h100", "h200-x2"])
def test_the_labels_of_the_live_node_are_those_of_its_hardware(machine):
    node = gpu_labels.project_node(answer(f"{machine}-node"))
    (found,) = gpu_findings.hardware_findings([node], {node.name: answer(f"{machine}-expected")})
    assert (found.status, found.message) == ("ok", "its 25 labels are those of its hardware")


def test_a_card_that_was_swapped_is_seen():
    node = gpu_labels.project_node(answer("h200-x2-node"))
    (found,) = gpu_findings.hardware_findings([node], {node.name: answer("h100-expected")})
    assert found.status == "failed"
    assert "NVIDIA-H100-80GB-HBM3" in found.message


@pytest.mark.parametrize(("machine", "gpus"), [("h100", 1), ("h200-x2", 2)])
def test_the_node_offers_its_gpus(machine, gpus):
    status = answer(f"{machine}-node")["status"]
    assert status["allocatable"]["nvidia.com/gpu"] == status["capacity"]["nvidia.com/gpu"] == str(gpus)


def test_the_stand_in_labels_a_node_as_the_real_discovery_does():
    real = {name: text for name, text in answer("h100-node")["metadata"]["labels"].items() if "nvidia.com/" in name}
    card = Hardware("NVIDIA-H100-80GB-HBM3", 1, 81559, 9, 0, "580.159.04", "13.0", mig_capable=True)
    assert feature_labels(card) == real


def test_the_simulated_gpu_waits_as_the_real_one():
    """The difference that the page states: at most a quarter, at loads where a pod still keeps up."""
    measured = answer("h100-engines")
    for real, simulated in zip(measured["real"], measured["simulated"], strict=True):
        assert real["chunks"] == simulated["chunks"]
        for figure in ("mean_batch", "p50_ms", "p95_ms"):
            assert simulated[figure] == pytest.approx(real[figure], rel=0.16), (real["streams"], figure)
        assert simulated["queue_ms"] == pytest.approx(real["queue_ms"], rel=0.25)


def test_what_was_calibrated_is_what_the_curve_says():
    """The curve knows nothing of gRPC, HAProxy and Traefik; the calibration went through all three."""
    points = tuple((size, round(ms * NS_PER_MS)) for size, ms in CURVES["h200-1.1b"])
    streams = BatcherConfig(max_batch_size=8, service_curve=points).capacity_per_second * 0.16
    found = answer("h200-x2-calibration")["capacity"]
    assert found["streams"] <= streams
    assert found["saturation"] == pytest.approx(streams, rel=0.01)


def test_the_page_states_the_figures():
    load = answer("h200-x2-load")
    assert load["replicas"]["path"] == [1, 2, 1]
    assert (load["streams"]["failed"], load["streams"]["refused"]) == (0, 0)
    assert f"{load['streams']['finished']:,} streams" in PAGE
    assert f"{answer('h200-x2-calibration')['capacity']['streams']} streams" in PAGE
