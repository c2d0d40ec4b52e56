"""Another engine, another autoscaler, on a service that people talk to: no stream is lost, and the pods stay.

    USE_LAB=X pytest tests/long/test_switching.py

Half of a lab's GPUs are too old for a NIM, so it needs four GPU nodes: where X has fewer, or none is named, it brings a
lab of its own up. A lab that was named ends as it began: engine sdk, autoscaler hpa.
"""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from tests.integration.running_lab import RunningLab, eventually, settings_of
from tests.integration.validators import until, validate
from tests.integration.way_in import Traffic, address_of, lost

PARTS = ("--tags", "prometheus_adapter,keda,traefik,riva")


def engine(lab) -> str:
    pod = lab.get("deployment", "riva-asr", "-n", "riva")["spec"]["template"]["spec"]
    return next(entry["image"] for entry in pod["containers"] if entry["name"] == "riva")


def owner(lab) -> str:
    return lab.get("apiservice", "v1beta1.external.metrics.k8s.io")["spec"]["service"]["namespace"]


def scaler(lab) -> str:
    owners = lab.get("hpa", "riva-asr", "-n", "riva")["metadata"].get("ownerReferences") or [{"kind": "nobody"}]
    return owners[0]["kind"]


def switch(lab, *options: str, playbook: str = "site.yml") -> list[str]:
    """What was lost of the streams that ran while a playbook did, with these options."""
    traffic = Traffic(address_of(lab), "", streams=6, seconds=15, connections=6)
    # All parts of leave_keda.yml are needed.
    parts = PARTS if playbook == "site.yml" else ()

    async def work(_traffic) -> None:
        await asyncio.sleep(10)
        done = await asyncio.to_thread(lab.play, playbook, *options, *parts)
        assert "failed=0" in done.stdout
        await asyncio.sleep(20)

    outcomes = asyncio.run(traffic.during(work))
    print(json.dumps({"options": options, "streams": len(outcomes), "lost": lost(outcomes)}))
    return lost(outcomes)


def whole(lab) -> str:
    def look() -> dict:
        return validate("validate_custom_metric", lab, namespace="riva", hpa="riva-asr")

    seen = until(look, lambda result: result["status"] == "ok", 180)
    assert seen["status"] == "ok", seen["table"]
    return seen["table"]


@pytest.fixture(scope="module")
def ready():
    """A lab with four GPU nodes, of its own unless the one that USE_LAB names has as many; with KEDA's images."""
    used = os.environ.get("USE_LAB")
    found = settings_of(used) if used else {}
    own = found.get("gpu_nodes", 0) < 4
    lab = RunningLab("young", "10.77.0.0/22") if own else RunningLab(used, found["network"])
    if own:
        lab.command("down")
        lab.up("--gpu-nodes", "4")
        lab.play("site.yml")
    lab.command("add", "keda", timeout=7200)
    yield lab
    if own:
        lab.command("down")


def test_from_the_hpa_to_keda(ready):
    assert switch(ready, "-e", "riva_autoscaler=keda") == []
    assert (owner(ready), scaler(ready)) == ("keda", "ScaledObject")
    assert "made by KEDA" in whole(ready)


def test_from_sdk_to_nim(ready):
    assert switch(ready, "-e", "riva_autoscaler=keda", "-e", "riva_engine=nim") == []
    assert engine(ready) == "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us:1.4.0"
    pods = ready.get("pods", "-n", "riva", "-l", "app.kubernetes.io/instance=riva-asr")["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    labels = {
        ready.get("node", pod["spec"]["nodeName"])["metadata"]["labels"]["nvidia.com/gpu.product"] for pod in running
    }
    assert labels == {"NVIDIA-A100-PCIE-40GB"}
    whole(ready)


def test_from_keda_to_the_hpa(ready):
    """KEDA's kinds are there until no release has any of them, else Helm can't upgrade; the pods stay."""
    assert switch(ready, "-e", "riva_engine=nim", playbook="playbooks/leave_keda.yml") == []
    assert (owner(ready), scaler(ready)) == ("monitoring", "nobody")
    assert "made by KEDA" not in whole(ready)
    assert "scaledobjects.keda.sh" not in ready.kubectl("get", "crd", "-o", "name")


def test_from_nim_to_sdk(ready):
    assert switch(ready) == []
    assert engine(ready) == "nvcr.io/nvidia/riva/riva-speech:2.19.0"
    eventually(lambda: ready.get("deployment", "riva-asr", "-n", "riva")["status"].get("readyReplicas"), 60)
    whole(ready)
