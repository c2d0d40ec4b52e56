# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The riva chart as Helm renders it: what the article had wrong, and what a user may get wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).resolve().parents[3] / "roles" / "riva" / "files" / "chart"
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")

pytestmark = pytest.mark.skipif(not HELM, reason="helm is not installed here")


def helm(*arguments, values=None):
    return subprocess.run(
        [HELM, *arguments, *(["-f", "-"] if values is not None else [])],
        input=json.dumps(values) if values is not None else None,
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def _rendered(values, release="riva-asr"):
    answer = helm("template", release, str(CHART), "--namespace", "speech", values=json.loads(values))
    assert answer.returncode == 0, answer.stderr
    return {item["kind"]: item for item in yaml.safe_load_all(answer.stdout) if item}


def rendered(release="riva-asr", **values):
    return _rendered(json.dumps(values), release)


def container(**values):
    return rendered(**values)["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def test_lint():
    answer = helm("lint", "--strict", str(CHART))
    assert answer.returncode == 0, answer.stdout


def test_every_port_of_the_service_leads_to_a_port_of_the_container():
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": 50051, "http": 8000, "triton-grpc": 8001, "metrics": 8002}
    for port in rendered()["Service"]["spec"]["ports"]:
        assert port["targetPort"] in ports
    monitored = rendered()["ServiceMonitor"]["spec"]["endpoints"]
    assert [(m["port"], m["interval"]) for m in monitored] == [("metrics", "15s")]


def test_selectors_name_the_release():
    objects = rendered(release="riva-tts")
    wanted = {"app.kubernetes.io/name": "riva", "app.kubernetes.io/instance": "riva-tts"}
    assert objects["Service"]["spec"]["selector"] == wanted
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == wanted
    assert objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == wanted
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "riva-tts"
    assert {item["metadata"]["name"] for item in objects.values()} == {"riva-tts"}
    assert {item["metadata"]["namespace"] for item in objects.values()} == {"speech"}


def test_the_hpa_owns_the_number_of_pods():
    assert "replicas" not in rendered()["Deployment"]["spec"]
    assert rendered(autoscaling={"enabled": False}, replicas=2)["Deployment"]["spec"]["replicas"] == 2
    assert "HorizontalPodAutoscaler" not in rendered(autoscaling={"enabled": False})


@pytest.mark.parametrize(("target", "quantity"), [(10, "10"), (1.5, "1500m"), (0.5, "500m"), (0.001, "1m")])
def test_the_target_is_milliseconds(target, quantity):
    hpa = rendered(autoscaling={"queueTimeTargetMs": target})["HorizontalPodAutoscaler"]
    (metric,) = hpa["spec"]["metrics"]
    assert hpa["apiVersion"] == "autoscaling/v2"
    assert metric["pods"]["metric"]["name"] == "avg_time_queue_ms"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": quantity}


def test_start_riva_gets_a_value_for_every_service():
    assert container(speechServices={"tts": True})["args"] == [
        "--asr_service=true",
        "--nlp_service=false",
        "--nmt_service=false",
        "--tts_service=true",
    ]


def test_environment():
    env = container(env={"A": "1", "B": True}, extraEnv=[{"name": "C", "value": "x"}])["env"]
    assert env == [
        {"name": "TRTIS_MODEL_STORE", "value": "/data/models"},
        {"name": "A", "value": "1"},
        {"name": "B", "value": "true"},
        {"name": "C", "value": "x"},
    ]


def test_the_startup_probe_waits_as_long_as_models_load():
    probe = container(modelLoadSeconds=121)["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 121
    deployment = rendered(modelLoadSeconds=121)["Deployment"]["spec"]
    assert deployment["progressDeadlineSeconds"] > 121


def test_a_pod_leaves_the_balancer_before_it_stops():
    assert container(preStopSeconds=7)["lifecycle"]["preStop"]["sleep"]["seconds"] == 7
    pod = rendered(preStopSeconds=7, longestStreamSeconds=90)["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 7 + 90


def test_gpu_limit_beside_others():
    limits = container(gpus=2, resources={"limits": {"memory": "8Gi"}})["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": 2, "memory": "8Gi"}


@pytest.mark.parametrize(
    ("store", "wanted"),
    [
        ({}, {"hostPath": {"path": "/var/lib/riva", "type": "DirectoryOrCreate"}}),
        ({"type": "emptyDir"}, {"emptyDir": {}}),
        ({"type": "pvc"}, {"persistentVolumeClaim": {"claimName": "riva-asr-models"}}),
        ({"type": "pvc", "existingClaim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}),
    ],
)
def test_model_store(store, wanted):
    objects = rendered(modelStore=store)
    volume = objects["Deployment"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume == {"name": "models", **wanted}
    made = store.get("type") == "pvc" and not store.get("existingClaim")
    assert ("PersistentVolumeClaim" in objects) is made


def test_secrets_are_named_never_given():
    init = rendered(modelInit={"enabled": True, "models": ["a/b:1"]})["Deployment"]["spec"]["template"]["spec"][
        "initContainers"
    ][0]
    assert init["image"].endswith(":2.19.0-servicemaker")
    assert init["args"] == ["a/b:1"]
    for entry in init["env"]:
        assert set(entry) == {"name", "valueFrom"}


def test_route():
    spec = rendered()["IngressRoute"]["spec"]
    assert rendered()["IngressRoute"]["apiVersion"] == "traefik.io/v1alpha1"
    assert spec["entryPoints"] == ["riva-grpc"]
    (rule,) = spec["routes"]
    assert rule["match"] == "PathPrefix(`/`)"
    assert (rule["services"][0]["scheme"], rule["services"][0]["strategy"]) == ("h2c", "p2c")
    named = rendered(route={"host": "asr.example.com"})["IngressRoute"]["spec"]["routes"][0]
    assert named["match"] == "Host(`asr.example.com`)"


def test_a_new_chart_alone_does_not_restart_pods():
    labels = rendered()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in labels
    assert "app.kubernetes.io/version" not in labels


REFUSED = [
    {"autoscalling": {}},
    {"autoscaling": {"maxReplica": 3}},
    {"autoscaling": {"queueTimeTargetMs": 0}},
    {"modelStore": {"type": "nfs"}},
    {"ports": {"grpc": 0}},
    {"gpus": "one"},
    {"env": {"A": ["x"]}},
    {"route": {"strategy": "random"}},
]


@pytest.mark.parametrize("values", REFUSED)
def test_the_schema_refuses(values):
    answer = helm("template", "x", str(CHART), values=values)
    assert answer.returncode != 0
    assert "schema" in answer.stderr
