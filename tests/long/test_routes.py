"""Which calls go where, and what comes along; what others' routes change; and the entry point's own bounds.

`RECORD=file` adds each figure to a file, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import channel

from tests.integration.running_lab import eventually
from tests.integration.test_site import extra
from tests.integration.way_in import (
    Outcome,
    Service,
    address_of,
    aio_channel,
    at_once,
    lost,
    stream,
    traefik_pods,
    way_of,
)
from tests.long.test_way_in import record

HOST = "languages.example.com"
LANGUAGES = ("en", "de")


def asked_for(language: str) -> tuple:
    return (("x-language", language),)


# --- one route per speech service


@pytest.fixture(scope="module")
def languages(installed, tmp_path_factory):
    """Two speech services that share a host name; a header tells which one is meant."""
    folder = tmp_path_factory.mktemp("languages")
    made = [Service(installed, f"asr-{language}") for language in LANGUAGES]
    for service, language in zip(made, LANGUAGES, strict=True):
        route = {"host": HOST, "header": {"name": "x-language", "value": language}}
        service.install(folder, pods=1, streams={"limit": 100}, route=route)
    # Traefik hears of it within two seconds.
    time.sleep(3)
    yield installed
    for service in made:
        service.remove()


def test_a_header_tells_which_service_is_meant(languages):
    for language in LANGUAGES:
        outcomes = asyncio.run(at_once(address_of(languages), HOST, 10, 3, 1, metadata=asked_for(language)))
        assert lost(outcomes) == []
        took = Counter(one.pod.rsplit("-", 2)[0] for one in outcomes)
        record("route by header", language=language, took=took)
        assert took == {f"asr-{language}": 10}


def taker(lab, host: str, metadata: tuple = ()) -> str:
    """The service that takes a stream."""
    (outcome,) = asyncio.run(at_once(address_of(lab), host, 1, 3, 1, metadata=metadata))
    assert lost([outcome]) == []
    return outcome.pod.rsplit("-", 2)[0]


def test_without_the_header_it_is_the_service_that_takes_any(languages):
    assert taker(languages, HOST, asked_for("de")) == "asr-de"
    assert taker(languages, HOST, asked_for("fr")) == "riva-asr"
    assert taker(languages, HOST) == "riva-asr"


# A gRPC server that says what metadata it was given, and gives some itself.
ECHO = """
import grpc, json, time
from concurrent.futures import ThreadPoolExecutor
class Echo(grpc.GenericRpcHandler):
    def service(self, call):
        got = [[key, value if isinstance(value, str) else value.hex()] for key, value in call.invocation_metadata]
        def answer(request, context):
            context.send_initial_metadata((("x-got", json.dumps(got)),))
            context.set_trailing_metadata((("x-cost", "7"), ("trace-bin", bytes([0, 255]))))
            return b""
        return grpc.unary_unary_rpc_method_handler(answer)
server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Echo(),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
server.wait_for_termination()
"""


@pytest.fixture
def echo(installed, tmp_path):
    """A route of the chart with that server behind it."""
    service = Service(installed, "echo")
    service.install(tmp_path, pods=0)
    labels = {"app.kubernetes.io/instance": "echo", "app.kubernetes.io/name": "riva"}
    container = {
        "name": "riva",
        "image": "nvcr.io/nvidia/riva/riva-speech:2.19.0",
        "command": ["python3", "-c", ECHO],
        "ports": [{"name": "grpc", "containerPort": 50051}],
        "readinessProbe": {"tcpSocket": {"port": 50051}, "periodSeconds": 1},
    }
    file = tmp_path / "pod.json"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "echo", "labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            }
        )
    )
    service.kubectl("apply", "-f", str(file))
    service.kubectl("wait", "pod/echo", "--for=condition=Ready", "--timeout=60s")
    time.sleep(3)
    yield service
    service.kubectl("delete", "pod/echo", "--wait=false")
    service.remove()


def test_metadata_is_kept_both_ways(echo):
    sent = (("authorization", "Bearer one"), ("x-session", "a"), ("x-session", "b"), ("call-bin", b"\x00\xff\x10"))
    with channel(way_of(echo.lab, echo.host)) as opened:
        call = opened.unary_unary("/any.Service/Call", request_serializer=bytes, response_deserializer=bytes)
        _answer, how = call.with_call(b"", timeout=5, metadata=sent)
    got = [tuple(item) for item in json.loads(dict(how.initial_metadata())["x-got"])]
    assert how.code() == grpc.StatusCode.OK
    for wanted in ("authorization", "x-session", "call-bin"):
        assert [value for key, value in got if key == wanted] == [
            value if isinstance(value, str) else value.hex() for key, value in sent if key == wanted
        ]
    trailing = dict(how.trailing_metadata())
    assert (trailing["x-cost"], trailing["trace-bin"]) == ("7", b"\x00\xff")
    record("metadata", sent=len(sent), kept=len(sent))


# --- others' routes


def metrics(lab) -> str:
    (pod,) = traefik_pods(lab)
    name = pod["metadata"]["name"]
    return lab.kubectl("get", "--raw", f"/api/v1/namespaces/traefik/pods/{name}:9100/proxy/metrics")


def reloads(lab) -> int:
    """How often this Traefik has taken a new configuration, which resets its balance of streams."""
    return int(float(re.search(r"^traefik_config_reloads_total (\S+)", metrics(lab), re.MULTILINE)[1]))


def strangers_route(namespace: str, ingress_class: str, host: str) -> dict:
    rule = {"kind": "Rule", "match": f"Host(`{host}`)", "services": [{"name": "asr-de", "port": 50051}]}
    return {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": "strangers", "namespace": namespace},
        "spec": {"ingressClassName": ingress_class, "entryPoints": ["riva-grpc"], "routes": [rule]},
    }


STRANGERS = {"of another namespace": ("default", "riva-traefik"), "of another class": ("riva", "another")}


@pytest.mark.parametrize("whose", STRANGERS)
def test_others_routes_change_nothing(languages, tmp_path, whose):
    """They are not served, and don't reset the balance of streams; one of Riva's does, or this would show nothing."""
    lab = languages
    # Riva's own pods may still come and go.
    time.sleep(5)
    before = reloads(lab)
    namespace, ingress_class = STRANGERS[whose]
    file = tmp_path / "route.json"
    try:
        for number in range(5):
            file.write_text(json.dumps(strangers_route(namespace, ingress_class, f"stranger-{number}.example.com")))
            lab.kubectl("apply", "-f", str(file))
            time.sleep(1)
        time.sleep(3)
        assert reloads(lab) == before
        assert taker(lab, "stranger-4.example.com") == "riva-asr"
        path = "/spec/routes/0/services/0/passiveHealthCheck/failureWindow"
        patch = json.dumps([{"op": "replace", "path": path, "value": f"{20 + before}s"}])
        lab.kubectl("patch", "ingressroute/asr-en", "-n", "riva", "--type=json", "-p", patch)
        eventually(lambda: reloads(lab) > before, 15)
    finally:
        lab.kubectl("delete", "ingressroute/strangers", "-n", namespace, "--ignore-not-found")
    record("others' routes", whose=whose, reloads=0)


def test_prometheus_reads_traefiks_metrics(installed):
    def asked(query: str) -> list[dict]:
        path = "/api/v1/namespaces/monitoring/services/kube-prometheus-stack-prometheus:9090/proxy/api/v1/query?query="
        return json.loads(installed.kubectl("get", "--raw", path + quote(query)))["data"]["result"]

    # A plain query would still find what was read five minutes ago.
    recent = 'last_over_time(up{namespace="traefik"}[45s])'
    eventually(lambda: [item["value"][1] for item in asked(recent)] == ["1"], 90)
    assert asked("traefik_open_connections") != []


# --- the entry point's own bounds


@pytest.fixture(scope="module")
def bounded(installed, tmp_path_factory):
    """Traefik with connections that get old after fifteen seconds and take ten streams at a time."""
    service = Service(installed, "bounded")
    service.install(tmp_path_factory.mktemp("bounded"), pods=1, streams={"limit": 100})
    play = ("site.yml", "--tags", "traefik")
    installed.play(*play, *extra(traefik_connection_seconds=15, traefik_max_concurrent_streams=10))
    # The old pod may still take some, with its own bounds.
    eventually(lambda: len(installed.get("pods", "-n", "traefik")["items"]) == 1, 90)
    yield service
    installed.play(*play)
    service.remove()


def connections_to(address: str) -> int:
    """Established connections of this machine to an address of IPv4, by sockets of either family."""
    host, port = address.rsplit(":", 1)
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{int(port):04X}"
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().splitlines()
    ]
    return sum(words[2].endswith(wanted) and words[3] == "01" for words in lines)


def test_an_old_connection_takes_no_new_streams_and_ends_no_old_one(bounded):
    address = address_of(bounded.lab)

    async def whole():
        opened = aio_channel(address, bounded.host)
        long = asyncio.create_task(stream(opened, Outcome(60)))
        await asyncio.sleep(5)
        seen = [connections_to(address)]
        short = []
        for _ in range(8):
            short.append(await stream(opened, Outcome(4)))
            seen.append(connections_to(address))
        outcomes = [await long, *short]
        await opened.close()
        return outcomes, seen

    outcomes, seen = asyncio.run(whole())
    record("old connections", seconds=15, whole=sum(one.whole for one in outcomes), connections=seen)
    assert lost(outcomes) == []
    # The first one stays, for the long stream; what is new takes others.
    assert seen[0] == 1
    assert max(seen) >= 2


def test_more_streams_than_a_connection_takes_wait_in_the_client(bounded):
    address = address_of(bounded.lab)
    for connections, wait in ((1, True), (2, False)):
        outcomes = asyncio.run(at_once(address, bounded.host, 20, 6, connections))
        late = sum(one.opened_after > 4 for one in outcomes)
        record("20 streams, 10 a connection", connections=connections, late=late)
        assert lost(outcomes) == []
        assert late == (10 if wait else 0)
