"""KEDA on the lab: beside the adapter, without an answer, at zero pods and back, broken on purpose.

    python -m lab add keda --name X; ansible-playbook -e lab_name=X -e riva_autoscaler=keda site.yml
    USE_LAB=X pytest tests/long/test_keda.py

On a lab of its own it installs all of that first, and takes KEDA from its Go module (as long as Kubernetes takes to
build, once).
"""

from __future__ import annotations

import contextlib
import json
import re
import time

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import Way

from tests.integration.running_lab import eventually
from tests.integration.validators import causes, until, validate
from tests.integration.way_in import Service, call_code, way_of

KEDA = ("-e", "riva_autoscaler=keda")
PROMETHEUS = "kube-prometheus-stack-prometheus"
OWNERS = {
    "v1beta1.custom.metrics.k8s.io": "monitoring/prometheus-adapter",
    "v1beta1.external.metrics.k8s.io": "keda/keda-operator-metrics-apiserver",
}


def owners(lab) -> dict[str, str]:
    items = [lab.get("apiservice", name) for name in OWNERS]
    places = [item["spec"]["service"] for item in items]
    return {
        item["metadata"]["name"]: f"{place['namespace']}/{place['name']}"
        for item, place in zip(items, places, strict=True)
    }


def look(lab, name: str = "riva-asr", **options) -> dict:
    return validate("validate_custom_metric", lab, namespace="riva", hpa=name, **options)


def whole(lab, name: str = "riva-asr", timeout: float = 120) -> dict:
    seen = until(lambda: look(lab, name), lambda result: result["status"] == "ok", timeout)
    assert seen["status"] == "ok", seen["table"]
    return seen


@pytest.fixture(scope="module")
def scaled(lab):
    """A lab whose speech service KEDA scales."""
    if "riva-asr" not in lab.kubectl("get", "scaledobject", "-n", "riva", "-o", "name", check=False):
        lab.command("add", "keda", timeout=7200)
        lab.play("site.yml", *KEDA)
    return lab


def test_a_second_run_changes_nothing(scaled):
    assert re.search(r"changed=0\b", scaled.play("site.yml", *KEDA).stdout)


def test_each_metrics_api_has_its_owner(scaled):
    assert owners(scaled) == OWNERS


def test_whoever_takes_the_adapters_api_is_seen_and_it_is_given_back(scaled):
    """The adapter's upgrade leaves KEDA's APIService alone, and KEDA's the adapter's."""
    for role in ("prometheus_adapter", "keda"):
        done = scaled.play("site.yml", *KEDA, "--tags", role)
        assert "failed=0" in done.stdout
        assert owners(scaled) == OWNERS
    # With hpa, the run is refused before it changes anything.
    refused = scaled.play("site.yml", check=False)
    assert refused.returncode != 0
    assert "external.metrics.k8s.io belongs to keda/keda-operator-metrics-apiserver" in refused.stdout
    assert "leave_keda.yml" in refused.stdout
    assert owners(scaled) == OWNERS


@contextlib.contextmanager
def patched(lab, kind: str, name: str, namespace: str, patch: list[dict], back: list[dict]):
    target = (kind, name, "-n", namespace, "--type=json")
    lab.kubectl("patch", *target, "-p", json.dumps(patch))
    try:
        yield
    finally:
        lab.kubectl("patch", *target, "-p", json.dumps(back))


def replaced(lab, path: str, value) -> tuple[list[dict], list[dict]]:
    old = lab.get("scaledobject", "riva-asr", "-n", "riva")
    for key in path.strip("/").split("/"):
        old = old[int(key)] if isinstance(old, list) else old[key]
    return [{"op": "replace", "path": path, "value": value}], [{"op": "replace", "path": path, "value": old}]


@pytest.mark.parametrize(
    ("path", "value", "link", "words"),
    [
        ("/spec/triggers/0/metadata/ignoreNullValues", "true", "scaled_object", "takes no answer for a zero"),
        ("/spec/triggers/0/metadata/query", "vector(1)", "scaled_object", "no trigger asks for nv_inference"),
        (
            "/spec/triggers/0/metadata/serverAddress",
            "http://nobody.monitoring.svc:9090",
            "scaled_object",
            "not kube-prometheus-stack-prometheus",
        ),
    ],
)
def test_a_broken_scaled_object_is_named(scaled, path, value, link, words):
    whole(scaled)
    change, back = replaced(scaled, path, value)
    with patched(scaled, "scaledobject", "riva-asr", "riva", change, back):
        seen = until(lambda: look(scaled), lambda result: words in result["table"], 60)
        found = [entry for entry in seen["findings"] if words in entry["message"]]
        assert [entry["check"] for entry in found] == [link], seen["table"]
        assert found[0]["remedy"]
    whole(scaled)


def test_a_paused_scaled_object_is_named(scaled):
    scaled.kubectl("annotate", "scaledobject", "riva-asr", "-n", "riva", "autoscaling.keda.sh/paused=true")
    try:
        seen = until(lambda: look(scaled), lambda result: "is paused" in result["table"], 60)
        assert "scaled_object" in [entry["check"] for entry in causes(seen)], seen["table"]
        assert "autoscaling.keda.sh/paused-" in seen["table"] + json.dumps(seen["findings"])
    finally:
        scaled.kubectl("annotate", "scaledobject", "riva-asr", "-n", "riva", "autoscaling.keda.sh/paused-")
    whole(scaled)


def condition(lab, kind: str, name: str = "riva-asr") -> dict:
    status = lab.get("scaledobject", name, "-n", "riva").get("status", {})
    return {entry["type"]: entry for entry in status.get("conditions", [])}.get(kind, {})


def replicas(lab, name: str = "riva-asr") -> int:
    return lab.get("deployment", name, "-n", "riva")["spec"].get("replicas", 0)


def test_without_prometheus_what_is_there_stays(scaled):
    """KEDA falls back after three queries without an answer; two pods stay two; with an answer it goes on."""
    floor = json.dumps([{"op": "replace", "path": "/spec/minReplicaCount", "value": 2}])
    scaled.kubectl("patch", "scaledobject", "riva-asr", "-n", "riva", "--type=json", "-p", floor)
    eventually(lambda: replicas(scaled) == 2, 120)
    back = json.dumps([{"op": "replace", "path": "/spec/minReplicaCount", "value": 1}])
    stop = ("patch", "prometheus", PROMETHEUS, "-n", "monitoring", "--type=merge", "-p")
    scaled.kubectl(*stop, '{"spec": {"replicas": 0}}')
    try:
        scaled.kubectl("patch", "scaledobject", "riva-asr", "-n", "riva", "--type=json", "-p", back)
        eventually(lambda: condition(scaled, "Fallback").get("status") == "True", 180)
        began = time.monotonic()
        seen = look(scaled)
        assert "prometheus" in [entry["check"] for entry in causes(seen)], seen["table"]
        while time.monotonic() - began < 100:
            assert replicas(scaled) == 2
            time.sleep(5)
    finally:
        scaled.kubectl(*stop, '{"spec": {"replicas": 1}}')
    eventually(lambda: condition(scaled, "Fallback").get("status") == "False", 240)
    eventually(lambda: replicas(scaled) == 1, 300)
    whole(scaled)


def test_scraping_that_stops_is_no_zero(scaled, tmp_path):
    """Nobody scrapes the pods: no query has a result, KEDA says so, and does not scale down."""
    change = [{"op": "replace", "path": "/spec/selector", "value": {"matchLabels": {"app": "nobody"}}}]
    old = scaled.get("servicemonitor", "riva-asr", "-n", "riva")["spec"]["selector"]
    back = [{"op": "replace", "path": "/spec/selector", "value": old}]
    with patched(scaled, "servicemonitor", "riva-asr", "riva", change, back):
        eventually(lambda: condition(scaled, "Fallback").get("status") == "True", 300)
        seen = look(scaled)
        assert "service_monitor" in [entry["check"] for entry in causes(seen)], seen["table"]
        assert replicas(scaled) == 1
    eventually(lambda: condition(scaled, "Fallback").get("status") == "False", 240)
    whole(scaled)


@pytest.fixture
def asleep(scaled, tmp_path):
    """A service that goes to zero pods after half a minute."""
    service = Service(scaled, "sleeper")
    service.install(
        tmp_path,
        autoscaling={
            "enabled": True,
            "kind": "keda",
            "minReplicas": 0,
            "maxReplicas": 2,
            "queueTimeTargetMs": 150,
            "demand": {"plannedStreams": 20},
            "keda": {"pollingSeconds": 5, "zeroAfterSeconds": 30, "wakeSeconds": 60},
        },
        streams={"limit": 20},
        serviceMonitor={"enabled": True, "interval": "5s"},
    )
    yield service
    service.remove()


def test_a_service_that_nobody_calls_sleeps_and_a_call_wakes_it(scaled, asleep):
    """Zero pods while nobody calls; the first call is answered UNAVAILABLE and brings a pod; verify knows both."""
    way: Way = way_of(scaled, asleep.host)
    eventually(lambda: replicas(scaled, "sleeper") == 0, 300)
    eventually(lambda: asleep.pods() == [], 90)
    seen = until(lambda: look(scaled, "sleeper", scrape_interval=5), lambda result: result["status"] == "ok", 90)
    assert seen["status"] == "ok", seen["table"]
    assert "gone to zero pods" in seen["table"]
    # It stays there, although the queries that the pods would answer have no series any more.
    time.sleep(45)
    assert replicas(scaled, "sleeper") == 0
    assert call_code(way) == "UNAVAILABLE"
    called = time.monotonic()
    eventually(lambda: replicas(scaled, "sleeper") >= 1, 90)
    woken = time.monotonic() - called
    eventually(lambda: call_code(way) == "OK", 120)
    served = time.monotonic() - called
    print(f"woken after {woken:.0f} s, served after {served:.0f} s")
    assert served < 120
    # Nobody calls again, so it goes to sleep again.
    eventually(lambda: replicas(scaled, "sleeper") == 0, 300)
