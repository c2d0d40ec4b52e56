# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From an item of riva_services to the values of its release."""

from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import riva_values

SETTINGS = {
    "image_repository": "nvcr.io/nvidia/riva/riva-speech",
    "image_tag": "2.19.0",
    "image_pull_secrets": [],
    "model_store": {"type": "hostPath", "host_path": "/var/lib/riva"},
    "model_load_seconds": 3600,
    "longest_stream_seconds": 600,
    "scaling_preset": "balanced",
    "calibration": {"calibrated": {"stream_limit": 30, "planned_streams": 29, "model_load_seconds": 30.0}},
    "latency_objective_ms": 300,
    "chunk_ms": 160,
    "scrape_interval": 15,
    "ingress_class": "riva-traefik",
}


def at(values, path):
    for part in path.split("."):
        values = values[part]
    return values


CASES = [
    ({}, "speechServices", {"asr": True, "nlp": False, "nmt": False, "tts": False}),
    ({"speech": ["tts"]}, "speechServices.asr", False),
    ({"speech": ["tts"]}, "speechServices.tts", True),
    ({}, "autoscaling.maxReplicas", 3),
    ({"max_replicas": "5"}, "autoscaling.maxReplicas", 5),
    ({}, "autoscaling.queueTimeTargetMs", 10),
    ({"queue_time_target_ms": 1.5}, "autoscaling.queueTimeTargetMs", 1.5),
    ({}, "streams", {}),
    ({"stream_limit": 20}, "streams.limit", 20),
    ({"stream_limit": 20}, "autoscaling.demand.plannedStreams", 19),
    ({"name": "calibrated"}, "streams.limit", 30),
    ({"name": "calibrated", "stream_limit": 28, "planned_streams": 25}, "autoscaling.demand.plannedStreams", 25),
    ({"longest_stream_seconds": 90}, "longestStreamSeconds", 90),
    ({"scaling_preset": "article"}, "autoscaling.metricName", "article_avg_time_queue_ms"),
    ({}, "modelLoadSeconds", 3600),
    ({"name": "calibrated"}, "modelLoadSeconds", 300),
    ({"model_load_seconds": 90}, "modelLoadSeconds", 900),
    ({}, "modelStore", {"type": "hostPath", "hostPath": "/var/lib/riva"}),
    ({}, "serviceMonitor.interval", "15s"),
    ({"host": "asr.example.com"}, "route.host", "asr.example.com"),
    ({"models": ["a/b:1"]}, "modelInit", {"enabled": True, "models": ["a/b:1"]}),
    ({"env": {"A": "1"}}, "env", {"A": "1"}),
    ({"values": {"autoscaling": {"maxReplicas": 9}}}, "autoscaling.maxReplicas", 9),
    ({"values": {"autoscaling": {"maxReplicas": 9}}}, "autoscaling.minReplicas", 1),
    ({"values": {"tolerations": []}}, "tolerations", []),
]


@pytest.mark.parametrize(("service", "path", "wanted"), CASES)
def test_chart_values(service, path, wanted):
    values = riva_values.chart_values({"name": "riva-asr", **service}, SETTINGS)
    assert at(values, path) == wanted


def test_a_service_wins_over_what_holds_for_all():
    values = riva_values.chart_values(
        {"name": "a", "values": {"gpus": 2}}, SETTINGS, {"gpus": 4, "sharedMemory": "1Gi"}
    )
    assert (values["gpus"], values["sharedMemory"]) == (2, "1Gi")


def test_the_settings_are_not_changed():
    before = json.dumps(SETTINGS)
    riva_values.chart_values({"name": "a", "values": {"modelStore": {"type": "pvc"}}}, SETTINGS)
    assert json.dumps(SETTINGS) == before


def decoded(secret, key):
    return base64.b64decode(secret["data"][key]).decode()


def test_ngc_secrets():
    login, key, deploy = riva_values.ngc_secrets("nvapi-1", "tlt")
    auth = json.loads(decoded(login, ".dockerconfigjson"))["auths"]["nvcr.io"]
    assert auth["username"] == "$oauthtoken"
    assert base64.b64decode(auth["auth"]).decode() == "$oauthtoken:nvapi-1"
    assert login["type"] == "kubernetes.io/dockerconfigjson"
    assert decoded(key, "apikey") == "nvapi-1"
    assert decoded(deploy, "key") == "tlt"
    assert [s["metadata"]["name"] for s in riva_values.ngc_secrets("nvapi-1")] == [
        "imagepullsecret",
        "modelpullsecret",
    ]


TYPES = [("True", True), ("False", False), ("12", 12), ("v1", "v1"), ("1.5", "1.5"), (True, True), ("", "")]


@pytest.mark.parametrize(("given", "wanted"), TYPES)
def test_plain_types(given, wanted):
    assert riva_values.plain_types({"a": [given]}) == {"a": [wanted]}


FETCHES = {"models": ["nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0"]}
BUCKET = {"model_bucket": {"path": "speech/a100", "endpoint": "https://s3.example.com", "secret": "bucket"}}


@pytest.mark.parametrize(
    ("service", "settings", "filled"),
    [
        (FETCHES, {"model_store": {"type": "hostPath"}}, False),
        (FETCHES, {"model_store": {"type": "hostPath"}, "pre_seed_nodes": ["gpu-1"]}, True),
        ({}, {"model_store": {"type": "hostPath"}, **BUCKET}, False),
        ({}, {"model_store": {"type": "hostPath"}, **BUCKET, "pre_seed_nodes": ["gpu-1"]}, True),
        ({"engine": "nim"}, {"model_store": {"type": "hostPath"}, **BUCKET, "nim": {"offline": True}}, True),
        (FETCHES, {"model_store": {"type": "pvc"}}, True),
        (FETCHES, {"model_store": {"type": "emptyDir"}}, False),
        ({}, {"model_store": {"type": "hostPath"}}, True),
        ({"engine": "nim"}, {"model_store": {"type": "hostPath"}, "nim": {}}, False),
        ({"engine": "nim"}, {"model_store": {"type": "hostPath"}, "nim": {"offline": True}}, True),
    ],
)
def test_whether_a_new_pod_finds_its_models(service, settings, filled):
    assert riva_values.cache_filled(service, settings) is filled


def test_models_come_from_a_bucket_where_the_service_names_none():
    s3 = {"path": "speech/a100", "endpoint": "https://s3.example.com", "secretName": "bucket"}
    assert riva_values.chart_values({"name": "a"}, {**SETTINGS, **BUCKET})["modelInit"] == {"enabled": True, "s3": s3}
    fetched = riva_values.chart_values({"name": "a", **FETCHES}, {**SETTINGS, **BUCKET})["modelInit"]
    assert fetched == {"enabled": True, "models": FETCHES["models"]}
    nim = riva_values.chart_values({"name": "a", "engine": "nim", "image_tag": "1"}, {**SETTINGS, **BUCKET, "nim": NIM})
    assert "modelInit" not in nim


def test_scaling_reckons_with_the_start_that_a_new_pod_has():
    """The measured start-up of the cache's state is what the demand looks ahead, and the patience before pods go."""
    service = {"name": "a", **FETCHES, "stream_limit": 20, "model_load_seconds": 12, "cold_start_seconds": 300}
    stores = {"model_store": {"type": "hostPath"}}
    found = {}
    for state, more in (("cold", {}), ("seeded", {"pre_seed_nodes": ["gpu-1"]})):
        scaling = riva_values.chart_values(service, {**SETTINGS, **stores, **more})["autoscaling"]
        down = scaling["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        found[state] = (scaling["demand"]["horizonSeconds"], down)
    assert found == {"cold": (319, 1200), "seeded": (31, 120)}


@pytest.mark.parametrize(
    ("engine", "store", "scc"),
    [
        ("sdk", "hostPath", "hostmount-anyuid"),
        ("nim", "hostPath", "hostmount-anyuid"),
        ("sdk", "pvc", "anyuid"),
        ("nim", "pvc", "nonroot-v2"),
        ("nim", "emptyDir", "nonroot-v2"),
    ],
)
def test_a_pod_has_the_tightest_scc_under_which_it_starts(engine, store, scc):
    settings = {**SETTINGS, "model_store": {"type": store}, "nim": NIM}
    service = {"name": "a", "engine": engine}
    assert riva_values.chart_values(service, {**settings, "openshift": True})["openshift"] == {"scc": scc}
    assert "openshift" not in riva_values.chart_values(service, settings)


NIM = {
    "registry": "nvcr.io/nim/nvidia",
    "container_id": "a",
    "image_tag": "1",
    "metrics_port": 8002,
    "metrics_path": "/m",
}
