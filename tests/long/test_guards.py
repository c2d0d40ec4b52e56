"""Who may call, and how much: each guard on the real Traefik, with calls that pass and calls that are refused.

`RECORD=file` adds the figures to a file, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
import subprocess
import time

import pytest

from tests.integration.running_lab import eventually, run
from tests.integration.test_site import extra
from tests.integration.validators import until, validate
from tests.integration.way_in import Service, address_of, at_once, call_code, lost, way_of
from tests.long.test_way_in import record

# A client that is still sending may see the end of the stream before it has read why: gRPC then says INTERNAL.
REFUSAL = re.compile("429|Stream removed|Internal error from Core")

CHECKER = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers.get("authorization") == "Bearer good" else 401)
        self.end_headers()
    log_message = lambda *_: None
http.server.ThreadingHTTPServer(("", 8080), Answer).serve_forever()
"""
LABELS = {"app": "token-check"}
TOKEN_CHECK = [
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "token-check", "labels": LABELS},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": "nvcr.io/nvidia/riva/riva-speech:2.19.0",
                    "command": ["python3", "-c", CHECKER],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }
            ],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "token-check"},
        "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
    },
]


@pytest.fixture(scope="module")
def service(installed):
    made = Service(installed, "guarded")
    yield made
    made.remove()


def guarded(service: Service, folder, **route) -> None:
    service.install(folder, pods=1, route={"host": service.host, **route})
    # Traefik hears of it within two seconds.
    time.sleep(3)


def test_streams_at_a_time(service, tmp_path):
    guarded(service, tmp_path, limits={"streams": 5})
    outcomes = asyncio.run(at_once(address_of(service.lab), service.host, 12, 5, 3))
    refused = lost(outcomes)
    assert len(refused) == 7
    assert all(REFUSAL.search(words) for words in refused), refused
    assert lost(asyncio.run(at_once(address_of(service.lab), service.host, 5, 2, 1))) == []


def test_a_token_is_checked_before_a_stream_begins(service, tmp_path):
    file = tmp_path / "check.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": TOKEN_CHECK}))
    service.kubectl("apply", "-f", str(file))
    try:
        service.kubectl("wait", "pod/token-check", "--for=condition=Ready", "--timeout=60s")
        guarded(service, tmp_path, auth={"address": "http://token-check.riva.svc.cluster.local"})
        way = way_of(service.lab, service.host)
        assert call_code(way) == "UNAUTHENTICATED"
        assert call_code(way, metadata=(("authorization", "Bearer bad"),)) == "UNAUTHENTICATED"
        assert call_code(way, metadata=(("authorization", "Bearer good"),)) == "OK"
    finally:
        service.kubectl("delete", "pod/token-check", "service/token-check", "--wait=false")


# --- by the client's own address


@pytest.fixture(scope="module")
def other(service):
    """A second address of this machine. Traefik sees clients' own, on the node that takes the calls: the first here."""
    lab = service.lab
    limited(lab)
    address = str(ipaddress.ip_network(lab.network)[2 * 256 + 250])
    (way,) = json.loads(run("ip", "-json", "route", "get", address_of(lab).rsplit(":", 1)[0]).stdout)
    run("ip", "address", "add", f"{address}/32", "dev", way["dev"])
    eventually(lambda: status(service, address).isdigit(), 20)
    yield address
    run("ip", "address", "del", f"{address}/32", "dev", way["dev"])
    lab.play("site.yml", "--tags", "traefik")
    lab.kubectl("delete", "secret", "-n", "traefik", "--ignore-not-found", "riva-ca", "riva-tls", "riva-client-ca")


def limited(lab, **more) -> None:
    """Traefik on that node, with fifty connections of one address at a time."""
    nodes = [item["metadata"]["name"] for item in lab.get("nodes")["items"]]
    first = next(name for name in nodes if name.endswith("control-plane"))
    values = {"image": {"tag": "v3.7.15"}, "nodeSelector": {"kubernetes.io/hostname": first}}
    lab.play("site.yml", "--tags", "traefik", *extra(traefik_connections_per_client=50, traefik_values=values, **more))


def status(service: Service, source: str = "") -> str:
    """What HTTP says to a gRPC call of this machine, from one of its addresses; curl's words where it says nothing."""
    words = ["curl", "--silent", "--show-error", "--max-time", "5", "--http2-prior-knowledge", "--output", "/dev/null"]
    words += ["--write-out", "%{http_code}", "--header", f"Host: {service.host}"]
    words += ["--header", "Content-Type: application/grpc", "--header", "TE: trailers"]
    words += ["--data-binary", "@-", *(["--interface", source] if source else [])]
    url = f"http://{address_of(service.lab)}/grpc.health.v1.Health/Check"
    done = subprocess.run([*words, url], input=bytes(5), capture_output=True)
    return (done.stderr if done.returncode else done.stdout).decode()


async def beside(service: Service, streams: int, seconds: float, source: str) -> tuple[list[str], str]:
    """Which of so many streams were refused, and what a call from another address was told in their midst."""
    running = asyncio.create_task(at_once(address_of(service.lab), service.host, streams, seconds, 4))
    await asyncio.sleep(1.8)
    told = await asyncio.to_thread(status, service, source)
    return lost(await running), told


def test_an_address_that_is_not_on_the_list(service, other, tmp_path):
    guarded(service, tmp_path, allowedSources=["203.0.113.0/24", other])
    assert call_code(way_of(service.lab, service.host)) == "PERMISSION_DENIED"
    assert (status(service), status(service, other)) == ("403", "200")
    guarded(service, tmp_path, allowedSources=["0.0.0.0/0"])
    assert call_code(way_of(service.lab, service.host)) == "OK"


def test_streams_of_one_client(service, other, tmp_path):
    guarded(service, tmp_path, limits={"streamsPerClient": 5})
    refused, told = asyncio.run(beside(service, 12, 5, other))
    record("five streams a client, 12 at once", refused=len(refused), another_address=told)
    assert len(refused) == 7
    assert all(REFUSAL.search(words) for words in refused), refused
    assert told == "200"


def test_new_streams_a_second(service, other, tmp_path):
    guarded(service, tmp_path, limits={"newStreamsPerSecond": 2, "burst": 3})
    refused, told = asyncio.run(beside(service, 20, 3, other))
    record("two new streams a second, 20 in two", refused=len(refused), another_address=told)
    # In the two seconds in which they begin there is room for the burst and two a second.
    assert 10 <= len(refused) <= 16
    assert all(REFUSAL.search(words) for words in refused), refused
    assert told == "200"


def test_connections_from_one_address(service, other, tmp_path):
    """A hundred are held open; fifty are let in, the rest closed at once; streams come in again when they are gone."""
    guarded(service, tmp_path)
    host, port = address_of(service.lab).rsplit(":", 1)
    assert lost(asyncio.run(at_once(f"{host}:{port}", service.host, 20, 3, 20))) == []
    held, closed = held_open(host, int(port))
    told = [status(service), status(service, other)]
    for one in held:
        one.close()
    record("50 connections a client, 100 at once", closed=closed, another_address=told[1])
    assert 45 <= closed <= 55
    assert told[0].startswith("curl: ")
    assert told[1] == "200"
    time.sleep(1)
    assert lost(asyncio.run(at_once(f"{host}:{port}", service.host, 20, 3, 20))) == []


def test_connections_are_counted_before_tls(service, other, tmp_path):
    """With mTLS too, and those count that never say a word of it."""
    lab = service.lab
    limited(lab, traefik_tls="self_made", traefik_mtls=True, traefik_client_folder=str(tmp_path))
    host, port = address_of(lab).rsplit(":", 1)
    held, closed = held_open(host, int(port))
    for one in held:
        one.close()
    assert 45 <= closed <= 55
    files = {"ca_file": "ca.crt", "client_certificate_file": "client.crt", "client_key_file": "client.key"}
    tls = {"tls": True, "mtls": True, **{name: str(tmp_path / file) for name, file in files.items()}}
    seen = until(
        lambda: validate("validate_route", lab, namespace="riva", name="riva-asr", recognize=True, **tls),
        lambda result: result["ok"],
        30,
    )
    assert seen["ok"], seen["table"]
    assert "client_certificate" in {finding["check"] for finding in seen["findings"]}


def held_open(host: str, port: int) -> tuple[list[socket.socket], int]:
    """A hundred connections, and how many of them were closed from the other side."""
    held = [socket.create_connection((host, port), timeout=5) for _ in range(100)]
    time.sleep(1)
    for one in held:
        one.setblocking(False)
    return held, sum(ended(one) for one in held)


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
