"""The way in on the installed lab: mTLS on and off, by host name and by address, and clients that do it wrong.

The tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import certificates, outside_calls
from ansible_collections.speechops.riva.plugins.module_utils.certificates import CLIENT, Pair

from tests.integration.test_site import INVENTORY, changes, extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import address_of, at_once, call_code, http1, lost, traefik_pods, way_of

MUTUAL = {"traefik_tls": "self_made", "traefik_mtls": True, "traefik_tls_names": ["asr.example.com"]}


def look(lab, folder: Path | None = None, **options) -> dict:
    """What verify.yml says of the way in, without and with TLS."""
    tls = {}
    if folder:
        tls = {
            "tls": True,
            "mtls": True,
            "ca_file": str(folder / "ca.crt"),
            "client_certificate_file": str(folder / "client.crt"),
            "client_key_file": str(folder / "client.key"),
        }
    return validate("validate_route", lab, namespace="riva", name="riva-asr", recognize=True, **tls, **options)


def statuses(result: dict) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in result["findings"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def mutual(installed, folder):
    """The lab with mTLS; plain again at the end."""
    done = installed.play(
        "site.yml", "--tags", "traefik", "--diff", *extra(**MUTUAL, traefik_client_folder=str(folder))
    )
    yield installed, done.stdout
    again = installed.play("site.yml", "--tags", "traefik")
    assert recap(again.stdout)["failed"] == 0
    seen = until(lambda: look(installed), lambda result: result["ok"], 30)
    assert seen["ok"], seen["table"]
    # The Secrets stay for the next time; they are no part of what site.yml makes without TLS.
    installed.kubectl("delete", "secret", "-n", "traefik", "riva-ca", "riva-tls", "riva-client-ca")


def test_plain_calls_from_outside(installed):
    seen = look(installed, stream_seconds=6)
    assert statuses(seen) == dict.fromkeys(
        ("address", "route", "endpoints", "answer", "recognition", "long_stream"), "ok"
    ), seen["table"]


def test_many_streams_on_one_connection(installed):
    """As many as the pod carries, at once: none waits for another."""
    outcomes = asyncio.run(at_once(address_of(installed), "", 15, 4, 1))
    assert lost(outcomes) == []


def test_an_http1_client_gets_an_error_and_oversized_metadata_is_refused(installed):
    way = way_of(installed)
    assert http1(way) == "HTTP/1.1 404 Not Found"
    assert call_code(way, metadata=(("x-large", "x" * 100_000),)) not in ("OK", "DEADLINE_EXCEEDED")
    assert call_code(way, metadata=(("x-small", "x" * 1000),)) == "OK"


def test_the_access_log_has_no_metadata(installed):
    call_code(way_of(installed), metadata=(("authorization", "Bearer very-secret-token"), ("x-mine", "very-own")))

    def lines() -> dict:
        text = installed.kubectl("logs", "-n", "traefik", "deployment/traefik", "--tail=200")
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return {"text": text, "calls": [item for item in found if item.get("RequestPath", "").endswith("Health/Check")]}

    seen = until(lines, lambda result: bool(result["calls"]), 20)
    assert seen["calls"]
    assert "very-secret-token" not in seen["text"]
    assert "very-own" not in seen["text"]
    assert {"RequestPath", "Duration", "DownstreamStatus", "ClientHost"} <= set(seen["calls"][-1])


def test_traefik_outlives_the_longest_stream(installed):
    """On its own stop it takes new streams for a while, then lets all end; its pod is killed after both only."""
    pod = installed.get("deployment", "traefik", "-n", "traefik")["spec"]["template"]["spec"]
    words = " ".join(pod["containers"][0]["args"])
    found = dict(re.findall(r"--entryPoints\.riva-grpc\.transport\.lifeCycle\.(\w+)=(\d+)", words))
    accept, grace = (int(found[name]) for name in ("requestAcceptGraceTimeout", "graceTimeOut"))
    assert accept > 0
    assert grace >= INVENTORY["riva_longest_stream_seconds"]
    assert pod["terminationGracePeriodSeconds"] > accept + grace


def test_traefiks_kinds_were_applied_server_side(installed):
    """Helm itself never upgrades them."""
    kinds = installed.get("crd", "ingressroutes.traefik.io", "--show-managed-fields")
    managers = {(item["manager"], item["operation"]) for item in kinds["metadata"]["managedFields"]}
    assert ("speechops.riva", "Apply") in managers


def test_mutual_tls_by_name_and_by_address(mutual, folder):
    lab, output = mutual
    assert "PRIVATE KEY" not in output
    for name in ("asr.example.com", ""):
        seen = look(lab, folder, route_host=name)
        assert set(statuses(seen).values()) == {"ok"}, seen["table"]
        assert {"certificate", "client_certificate", "answer", "recognition"} <= set(statuses(seen))


def test_no_key_is_in_the_release(mutual):
    lab, _output = mutual
    release = lab.get("secrets", "-n", "traefik", "-l", "owner=helm")["items"][-1]
    text = base64.b64decode(base64.b64decode(release["data"]["release"]))
    assert b"PRIVATE KEY" not in gzip.decompress(text)
    assert "PRIVATE KEY" not in lab.kubectl(
        "get", "tlsoptions,tlsstores,configmaps,pods", "-n", "traefik", "-o", "json"
    )


def bad_pair(lab, folder, tmp_path, kind) -> Path:
    """A client's files in which one thing is wrong."""
    if kind == "of another CA":
        pair = certificates.issue(CLIENT, "stranger", certificates.issue(certificates.CA, "another"))
    else:
        data = lab.get("secret", "riva-ca", "-n", "traefik")["data"]
        ca = Pair(*(base64.b64decode(data[key]).decode() for key in ("tls.crt", "tls.key")))
        pair = certificates.issue(CLIENT, "late", ca, days=1, now=datetime.now(UTC) - timedelta(days=9))
    (tmp_path / "client.crt").write_text(pair.certificate)
    (tmp_path / "client.key").write_text(pair.key)
    (tmp_path / "ca.crt").write_text((folder / "ca.crt").read_text())
    return tmp_path


@pytest.mark.parametrize("kind", ["of another CA", "ended"])
def test_a_client_with_a_bad_certificate_is_refused(mutual, folder, tmp_path, kind):
    lab, _output = mutual
    seen = look(lab, bad_pair(lab, folder, tmp_path, kind))
    assert statuses(seen)["answer"] == "failed", seen["table"]


def test_plain_text_and_old_tls_are_refused(mutual, folder):
    lab, _output = mutual
    way = way_of(lab)
    # Plain text finds no route (404): all of them are for TLS.
    assert call_code(way) == "UNIMPLEMENTED"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), socket.create_connection((way.host, way.port), timeout=5) as raw:
        old.wrap_socket(raw)
    # The others are served all the while.
    assert look(lab, folder)["ok"]


def test_a_stranger_to_the_ca_does_not_trust_the_server(mutual):
    lab, _output = mutual
    with pytest.raises(ssl.SSLError):
        outside_calls.certificate(way_of(lab, tls=True))


def test_one_pod_of_traefik_is_enough_here(mutual):
    lab, _output = mutual
    assert len(traefik_pods(lab)) == 1
    assert lab.get("poddisruptionbudgets", "-n", "traefik")["items"] == []


def test_contradictions_are_told_before_any_change(installed):
    done = installed.play("site.yml", "--tags", "traefik", *extra(traefik_mtls=True), check=False)
    assert done.returncode != 0
    assert "traefik_mtls is true and traefik_tls is none" in done.stdout
    assert changes(done.stdout) == []
