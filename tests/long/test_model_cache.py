"""The states of a node's model cache: how long a pod takes to start with each, and Jobs that fill it beforehand.

    USE_LAB=X pytest tests/long/test_model_cache.py

Fetching takes 25 s here, where a real model takes up to an hour. The bucket is served by rclone on this machine.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import cold_start_seconds, model_load

from lab.settings import CACHE
from tests.benchmarks.bare_apiserver import free_port
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


@pytest.fixture
def bucket(installed, tmp_path):
    """A bucket with one built model, and the Secret that reads it; yields `modelInit.s3` and what the server logged."""
    installed.command("add", "rclone", timeout=7200)
    model = tmp_path / "served/speech/a100/models/conformer/1"
    model.mkdir(parents=True)
    (model / "model.plan").write_bytes(bytes(range(256)) * 4096)
    # The machine's own address on the lab's network.
    host, port, log = installed.network.replace(".0/22", ".1"), free_port(), tmp_path / "bucket.log"
    program = [CACHE / "rclone/rclone", "--config=", "-vv", "serve", "s3", tmp_path / "served"]
    with open(log, "wb") as file:
        server = subprocess.Popen(
            [*program, "--auth-key=reader,geheim1234", f"--addr={host}:{port}"], stdout=file, stderr=file
        )
    try:
        eventually(lambda: socket.create_connection((host, port), 1), 20).close()
        keys = ("--from-literal=access_key_id=reader", "--from-literal=secret_access_key=geheim1234")
        installed.kubectl("create", "secret", "generic", "bucket", "-n", "riva", *keys)
        yield {"path": "speech/a100", "endpoint": f"http://{host}:{port}", "secretName": "bucket"}, log
    finally:
        server.terminate()
        server.wait(10)
        installed.kubectl("delete", "secret", "bucket", "-n", "riva", "--ignore-not-found")


def stored(installed, node: str) -> list[Path]:
    """The models in the node's folder."""
    folder = Path("/var/lib/speechops-lab") / installed.name / "nodes" / node
    return list(folder.glob("**/riva-cache-test/models/conformer/1/model.plan"))


def test_models_come_from_a_bucket(installed, node, bucket, tmp_path):
    """A Job copies them to the node, without a key of NGC; a pod there finds them and fetches nothing."""
    s3, log = bucket
    more = values(node, "", models=[], s3=s3, preSeedNodes=[node])
    service = Service(installed, "cache-s3")
    service.install(tmp_path, pods=0, **more)
    try:
        eventually(lambda: stored(installed, node), 90)
        seeded = ("get", "jobs", "-n", "riva", "-l", "app.kubernetes.io/instance=cache-s3", "-o")
        eventually(lambda: installed.kubectl(*seeded, "jsonpath={.items[*].status.succeeded}") == "1", 60)
        assert stored(installed, node)[0].read_bytes() == bytes(range(256)) * 4096
        assert "reader" not in service.helm("get", "values", "cache-s3")
        service.install(tmp_path, pods=1, **more)
        found = start_of(service)
        (pod,) = service.pods()
        copied = service.kubectl("logs", pod["metadata"]["name"], "-c", "riva-model-init")
        print({"from_a_bucket": found, "log": copied.strip().splitlines()[-1:]})
        assert found["cold_s"] is None
        assert "There was nothing to transfer" in copied
    finally:
        service.remove()
    assert "GetObject" in log.read_text() or "GET OBJECT" in log.read_text()


def test_a_bucket_that_refuses_the_keys_is_told(installed, node, bucket, tmp_path):
    s3, _log = bucket
    with contextlib.ExitStack() as stack:
        wrong = ("--from-literal=access_key_id=reader", "--from-literal=secret_access_key=wrong")
        installed.kubectl("create", "secret", "generic", "wrong-keys", "-n", "riva", *wrong)
        stack.callback(installed.kubectl, "delete", "secret", "wrong-keys", "-n", "riva")
        service = Service(installed, "cache-s3")
        more = values(node, "", models=[], s3={**s3, "secretName": "wrong-keys"}, preSeedNodes=[node])
        service.install(tmp_path, pods=0, **more)
        stack.callback(service.remove)
        job = ("logs", "-l", "app.kubernetes.io/instance=cache-s3", "--tail=50")
        eventually(lambda: "SignatureDoesNotMatch" in service.kubectl(*job), 90)
        assert stored(installed, node) == []


@pytest.fixture(autouse=True)
def nim_key(installed):
    installed.kubectl("create", "secret", "generic", "nim-key", "-n", "riva", "--from-literal=apikey=a")
    yield
    installed.kubectl("delete", "secret", "nim-key", "-n", "riva")
