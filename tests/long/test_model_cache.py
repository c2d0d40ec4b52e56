"""The states of a node's model cache: how long a pod takes to start with each, and Jobs that fill it beforehand.

    USE_LAB=X pytest tests/long/test_model_cache.py

Fetching takes 25 s here, where a real model takes up to an hour. The bucket is served by rclone in a pod.
"""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.calibration_rules import cold_start_seconds, model_load

from lab.extras import RCLONE_VERSION
from lab.processes import node_process
from lab.settings import STATE, Lab
from tests.integration.running_lab import eventually, run
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
    yield name
    # On the node itself: what goes below its file system it still takes to be there.
    inside = ("nsenter", f"--target={node_process(Lab(installed.name), name)}", "--mount")
    run(*inside, "sh", "-c", "rm -rf /var/lib/cache-test*")
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
        "modelStore": {"type": "hostPath", "hostPath": "/var/lib/cache-test"},
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
            modelStore={"type": "hostPath", "hostPath": "/var/lib/cache-test-nim"},
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


MODEL_BYTES = bytes(range(256)) * 256
SERVED = {
    "restartPolicy": "Never",
    "volumes": [{"name": "srv", "emptyDir": {}}, {"name": "given", "configMap": {"name": "bucket"}}],
    "initContainers": [
        {
            "name": "put",
            "image": f"docker.io/rclone/rclone:{RCLONE_VERSION}",
            # A ConfigMap's files are links.
            "command": ["rclone", "--config=", "copy", "--copy-links", "/given", "/srv/speech/a100/models/conformer/1"],
            "volumeMounts": [{"name": "srv", "mountPath": "/srv"}, {"name": "given", "mountPath": "/given"}],
        }
    ],
    "containers": [
        {
            "name": "s3",
            "image": f"docker.io/rclone/rclone:{RCLONE_VERSION}",
            "command": ["rclone", "--config=", "-vv", "serve", "s3", "/srv", "--addr=:9000"],
            "args": ["--auth-key=reader,geheim1234"],
            "volumeMounts": [{"name": "srv", "mountPath": "/srv"}],
            "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        }
    ],
}


@pytest.fixture
def bucket(installed, tmp_path):
    """A bucket with one built model, and the Secret that reads it; yields `modelInit.s3`."""
    installed.command("add", "rclone", timeout=7200)
    common = {"apiVersion": "v1", "metadata": {"name": "bucket", "namespace": "riva", "labels": {"app": "bucket"}}}
    keys = {"access_key_id": "reader", "secret_access_key": "geheim1234"}
    items = [
        {**common, "kind": "Secret", "stringData": keys},
        {**common, "kind": "ConfigMap", "binaryData": {"model.plan": base64.b64encode(MODEL_BYTES).decode()}},
        {**common, "kind": "Pod", "spec": SERVED},
        {**common, "kind": "Service", "spec": {"selector": {"app": "bucket"}, "ports": [{"port": 9000}]}},
    ]
    file = tmp_path / "bucket.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    installed.kubectl("apply", "-f", str(file))
    try:
        installed.kubectl("wait", "pod/bucket", "-n", "riva", "--for=condition=Ready", "--timeout=90s", timeout=100)
        yield {"path": "speech/a100", "endpoint": "http://bucket.riva.svc:9000", "secretName": "bucket"}
    finally:
        installed.kubectl("delete", "-f", str(file), "--now", "--ignore-not-found")


def stored(installed, node: str) -> list[Path]:
    """The models in the node's folder."""
    folder = STATE / installed.name / "nodes" / node
    return list(folder.glob("**/cache-test/models/conformer/1/model.plan"))


def test_models_come_from_a_bucket(installed, node, bucket, tmp_path):
    """A Job copies them to the node, without a key of NGC; a pod there finds them and fetches nothing."""
    more = values(node, "", models=[], s3=bucket, preSeedNodes=[node])
    service = Service(installed, "cache-s3")
    service.install(tmp_path, pods=0, **more)
    try:
        eventually(lambda: stored(installed, node), 90)
        seeded = ("get", "jobs", "-n", "riva", "-l", "app.kubernetes.io/instance=cache-s3", "-o")
        eventually(lambda: installed.kubectl(*seeded, "jsonpath={.items[*].status.succeeded}") == "1", 60)
        assert stored(installed, node)[0].read_bytes() == MODEL_BYTES
        assert "reader" not in service.helm("get", "values", "cache-s3")
        service.install(tmp_path, pods=1, **more)
        found = start_of(service)
        # The Job's pod is the service's too.
        (pod,) = [pod for pod in service.pods() if pod["metadata"]["labels"]["app.kubernetes.io/name"] == "riva"]
        copied = service.kubectl("logs", pod["metadata"]["name"], "-c", "riva-model-init")
        print({"from_a_bucket": found, "log": copied.strip().splitlines()[-1:]})
        assert found["cold_s"] is None
        assert "There was nothing to transfer" in copied
    finally:
        service.remove()


def test_a_bucket_that_refuses_the_keys_is_told(installed, node, bucket, tmp_path):
    with contextlib.ExitStack() as stack:
        wrong = ("--from-literal=access_key_id=reader", "--from-literal=secret_access_key=wrong")
        installed.kubectl("create", "secret", "generic", "wrong-keys", "-n", "riva", *wrong)
        stack.callback(installed.kubectl, "delete", "secret", "wrong-keys", "-n", "riva")
        service = Service(installed, "cache-s3")
        more = values(node, "", models=[], s3={**bucket, "secretName": "wrong-keys"}, preSeedNodes=[node])
        service.install(tmp_path, pods=0, **more)
        stack.callback(service.remove)
        job = ("logs", "-l", "app.kubernetes.io/instance=cache-s3", "--tail=50")
        eventually(lambda: "StatusCode: 403" in service.kubectl(*job), 90)
        assert stored(installed, node) == []


@pytest.fixture(autouse=True)
def nim_key(installed):
    installed.kubectl("create", "secret", "generic", "nim-key", "-n", "riva", "--from-literal=apikey=a")
    yield
    installed.kubectl("delete", "secret", "nim-key", "-n", "riva")
