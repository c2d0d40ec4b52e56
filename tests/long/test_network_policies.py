"""The NetworkPolicies in force: what is needed passes (each link, streams, a second pod), and nothing else does.

The lab's own network heeds no policies; policing.py puts them into force.
"""

from __future__ import annotations

import json

import pytest

from tests.integration.callers import Callers
from tests.integration.running_lab import eventually
from tests.integration.test_site import extra, recap
from tests.integration.way_in import call_code, way_of
from tests.long.policing import Policing
from tests.long.test_guards import TOKEN_CHECK

# Runs in the speech service's image, which has Python.
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


@pytest.fixture(scope="module")
def policed(installed):
    with Policing(installed):
        yield installed


def pods(lab, namespace: str, labels: str) -> list[dict]:
    listed = lab.get("pods", "-n", namespace, "-l", labels)["items"]
    return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]


@pytest.fixture(scope="module")
def strangers(policed):
    """A pod in the speech services' namespace and one elsewhere, both of no release."""
    (speech, *_others) = pods(policed, "riva", "app.kubernetes.io/name=riva")
    image = next(item["image"] for item in speech["spec"]["containers"] if item["name"] == "riva")
    security = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    sleep = {"name": "sleep", "image": image, "command": ["sleep", "3600"], "securityContext": security}
    spec = {"containers": [sleep], "terminationGracePeriodSeconds": 0}
    for namespace in ("riva", "default"):
        words = ["run", "stranger", "-n", namespace, f"--image={image}", "--restart=Never"]
        policed.kubectl(*words, "--overrides", json.dumps({"apiVersion": "v1", "spec": spec}))
    for namespace in ("riva", "default"):
        policed.kubectl("wait", "pod/stranger", "-n", namespace, "--for=condition=Ready", "--timeout=60s", timeout=90)
    yield
    for namespace in ("riva", "default"):
        policed.kubectl("delete", "pod", "stranger", "-n", namespace, "--wait=false")


def connects(lab, namespace: str, pod: str, address: str, port: int, container: str = "sleep") -> bool:
    words = ["exec", "-n", namespace, pod, "-c", container, "--", "python3", "-c", CONNECT, address, str(port)]
    told = lab.kubectl(*words, check=False)
    assert not told or "refused" in told or "timed out" in told or "No route" in told, told
    return not told


def test_each_link_is_proven_and_streams_pass(policed):
    assert recap(policed.play("playbooks/verify.yml").stdout)["failed"] == 0


def test_a_second_pod_comes_and_takes_its_share(policed):
    """It asks for names, Traefik finds it, the full one knows of its room, its figures reach the HPA."""
    address = policed.get("service", "traefik", "-n", "traefik")["status"]["loadBalancer"]["ingress"][0]["ip"]
    with Callers(f"{address}:50051", 16) as callers:
        eventually(lambda: len(pods(policed, "riva", "app.kubernetes.io/instance=riva-asr")) >= 2, 180)
        eventually(lambda: len({stream.pod for stream in callers.ended}) >= 2, 180)
        callers.until(more=20)
    assert not callers.lost
    print(f"{len(callers.ended)} streams, 0 lost")


def test_strangers_reach_nothing(policed, strangers):
    (speech, *_others) = pods(policed, "riva", "app.kubernetes.io/name=riva")
    (traefik,) = pods(policed, "traefik", "app.kubernetes.io/name=traefik")
    ports = {item["name"]: item["containerPort"] for item in speech["spec"]["containers"][0]["ports"]}
    assert ports
    for namespace in ("riva", "default"):
        for port in (*ports.values(), 50052, 9101):
            assert not connects(policed, namespace, "stranger", speech["status"]["podIP"], port)
        assert not connects(policed, namespace, "stranger", traefik["status"]["podIP"], 9100)
    # What is open to all is open to a pod elsewhere; out of the speech services' namespace not even that.
    assert connects(policed, "default", "stranger", traefik["status"]["podIP"], 50051)
    assert not connects(policed, "riva", "stranger", traefik["status"]["podIP"], 50051)


def test_speech_pods_call_nobody_they_need_not(policed, strangers):
    (speech, *_others) = pods(policed, "riva", "app.kubernetes.io/name=riva")
    (prometheus,) = pods(policed, "monitoring", "app.kubernetes.io/name=prometheus")
    api = policed.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]
    name = speech["metadata"]["name"]
    for address, port in ((api, 443), (prometheus["status"]["podIP"], 9090)):
        assert not connects(policed, "riva", name, address, port, container="riva")
        assert connects(policed, "default", "stranger", address, port)
    dns = policed.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    assert connects(policed, "riva", name, dns, 53, container="riva")


@pytest.fixture
def token_check(policed, tmp_path):
    """Whoever checks tokens, in a namespace of its own: a Service at port 80, its pod at another one. Its address."""
    file = tmp_path / "check.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": TOKEN_CHECK}))
    policed.kubectl("create", "namespace", "auth")
    policed.kubectl("apply", "-n", "auth", "-f", str(file))
    policed.kubectl("wait", "pod/token-check", "-n", "auth", "--for=condition=Ready", "--timeout=60s", timeout=90)
    yield "http://token-check.auth.svc.cluster.local"
    policed.play("site.yml", "--tags", "traefik,riva")
    policed.kubectl("delete", "namespace", "auth", "--wait=false")


def test_traefik_reaches_the_token_check_once_its_policy_says_so(policed, token_check):
    settings, way = extra(riva_auth_address=token_check), way_of(policed)
    good, bad = ((("authorization", f"Bearer {token}"),) for token in ("good", "bad"))
    # The route asks it already, and Traefik's policy is still that of before: nobody comes in, not even with a token.
    policed.play("site.yml", "--tags", "riva", *settings)
    eventually(lambda: call_code(way, good) == "UNKNOWN", 20)
    policed.play("site.yml", "--tags", "traefik", *settings)
    eventually(lambda: call_code(way, good) == "OK", 20)
    assert (call_code(way), call_code(way, bad)) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_without_them_all_of_this_is_open(installed, policed, strangers):
    """Else the tests above would show nothing. The last one: it takes the namespaces' policies away."""
    (speech, *_others) = pods(policed, "riva", "app.kubernetes.io/name=riva")
    for namespace in ("riva", "traefik"):
        policed.kubectl("delete", "networkpolicies", "--all", "-n", namespace)
    try:
        eventually(lambda: connects(policed, "default", "stranger", speech["status"]["podIP"], 8002), 20)
        eventually(lambda: connects(policed, "riva", "stranger", speech["status"]["podIP"], 8002), 20)
    finally:
        told = installed.play("site.yml", "--tags", "traefik,riva").stdout
    assert "NetworkPolicy" in told
    assert not connects(policed, "default", "stranger", speech["status"]["podIP"], 8002)
