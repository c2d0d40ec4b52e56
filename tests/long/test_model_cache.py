"""The states of a node's model cache: how long a pod takes to start with each, and Jobs that fill it beforehand.

    USE_LAB=X pytest tests/long/test_model_cache.py

Fetching takes 25 s here, where a real model takes up to an hour.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import cold_start_seconds, model_load

from tests.integration.running_lab import eventually
from tests.integration.way_in import Service

FETCH = "25"
MODEL = "nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0"


@pytest.fixture
def node(installed):
    """A node whose folder for models is empty, in a namespace that admits pods with a folder of the node."""
    label = "pod-security.kubernetes.io/enforce"
    before = installed.get("namespace", "riva")["metadata"]["labels"].get(label)
    installed.kubectl("label", "namespace", "riva", f"{label}=privileged", "--overwrite")
    name = f"{installed.name}-gpu-2"
    folder = Path("/var/lib/speechops-lab") / installed.name / "nodes" / name
    yield name
    for found in folder.glob("**/riva-cache-test*"):
        shutil.rmtree(found, ignore_errors=True)
    installed.kubectl("label", "namespace", "riva", f"{label}={before}" if before else f"{label}-", "--overwrite")


@pytest.fixture
def keys(installed):
    installed.kubectl(
        "create", "secret", "generic", "cache-keys", "-n", "riva", "--from-literal=apikey=a", "--from-literal=key=b"
    )
    yield "cache-keys"
    installed.kubectl("delete", "secret", "cache-keys", "-n", "riva")


def start_of(service: Service) -> dict:
    found = eventually(lambda: [pod for pod in service.pods() if model_load(pod)], 120)
    return {**model_load(found[0]), "cold_s": cold_start_seconds(model_load(found[0]))}


def values(node: str, keys: str, **more) -> dict:
    return {
        "modelStore": {"type": "hostPath", "hostPath": "/var/lib/riva-cache-test"},
        "modelInit": {
            "enabled": True,
            "models": [MODEL],
            "apiKeySecret": keys,
            "deployKeySecret": keys,
            "env": {"RIVA_STANDIN_FETCH_SECONDS": FETCH},
            **more,
        },
        "nodeSelector": {"kubernetes.io/hostname": node},
        "route": {"enabled": False},
    }


def test_a_filled_cache_is_worth_the_fetching(installed, node, keys, tmp_path):
    """Empty: fetched first. Filled by a Job beforehand: at once. The measured start says which it was."""
    figures = {}
    for state in ("cold", "warm"):
        service = Service(installed, f"cache-{state}")
        service.install(tmp_path, pods=1, **values(node, keys))
        try:
            figures[state] = start_of(service)
        finally:
            service.remove()
    print(figures)
    assert figures["cold"]["cold_s"] >= 25
    assert figures["warm"]["cold_s"] is None
    assert figures["cold"]["start_s"] - figures["warm"]["start_s"] >= 15


def test_jobs_fill_the_cache_before_a_pod_comes(installed, node, keys, tmp_path):
    service = Service(installed, "cache-seed")
    more = values(node, keys, preSeedNodes=[node])
    service.install(tmp_path, pods=0, **more)
    try:
        done = eventually(
            lambda: [
                job
                for job in installed.get("jobs", "-n", "riva", "-l", "app.kubernetes.io/instance=cache-seed")["items"]
                if job.get("status", {}).get("succeeded")
            ],
            120,
        )
        assert [job["metadata"]["annotations"]["speechops.io/node"] for job in done] == [node]
        service.install(tmp_path, pods=1, **more)
        seeded = start_of(service)
        print({"seeded": seeded})
        assert seeded["cold_s"] is None
    finally:
        service.remove()
    assert installed.get("jobs", "-n", "riva", "-l", "app.kubernetes.io/instance=cache-seed")["items"] == []


def test_a_nim_keeps_what_it_fetched(installed, node, tmp_path):
    """A NIM fetches by itself, as uid 1000, into a folder of the node that was root's; the next pod finds it there."""
    figures = {}
    for state in ("cold", "warm"):
        service = Service(installed, f"nim-{state}")
        service.install(
            tmp_path,
            pods=1,
            engine="nim",
            image={"repository": "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us", "tag": "1.4.0"},
            nim={"offline": False, "apiKeySecret": "nim-key", "minComputeMajor": 0},
            modelStore={"type": "hostPath", "hostPath": "/var/lib/riva-cache-test-nim"},
            nodeSelector={"kubernetes.io/hostname": node},
            env={"RIVA_STANDIN_FETCH_SECONDS": FETCH},
            route={"enabled": False},
        )
        try:
            figures[state] = start_of(service)
        finally:
            service.remove()
    print(figures)
    assert figures["cold"]["load_s"] >= 25
    assert figures["warm"]["load_s"] < 20


@pytest.fixture(autouse=True)
def nim_key(installed):
    installed.kubectl("create", "secret", "generic", "nim-key", "-n", "riva", "--from-literal=apikey=a")
    yield
    installed.kubectl("delete", "secret", "nim-key", "-n", "riva")
