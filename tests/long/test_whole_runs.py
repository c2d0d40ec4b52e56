"""site.yml as one whole run without TLS, with TLS and with mTLS; then each other source of certificates; a Gateway.

After each: what verify.yml proves from outside, a second run that changes nothing, and the load test and the
calibration as such a client. The tests build on each other, in the order in which they stand.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import certificates

from lab import extras
from lab.settings import Lab
from tests.integration.running_lab import HELM, run
from tests.integration.test_site import INVENTORY, changes, extra, recap
from tests.integration.validators import until, validate
from tests.integration.way_in import address_of

NAME = "asr.example.com"
# One service that answers to a host name.
SERVICES = [INVENTORY["riva_services"][0] | {"host": NAME}]
WAYS: dict[str, dict] = {
    "none": {},
    "TLS": {"traefik_tls": "self_made", "riva_services": SERVICES},
    "mTLS": {"traefik_tls": "self_made", "traefik_mtls": True, "riva_services": SERVICES},
}
PROOF = ("address", "route", "endpoints", "answer", "recognition", "long_stream")
PROOFS = {"none": PROOF, "TLS": (*PROOF, "certificate"), "mTLS": (*PROOF, "certificate", "client_certificate")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where clients' files lie."""
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module", autouse=True)
def as_before(lab):
    yield
    lab.play("site.yml", "--tags", "traefik,riva")
    lab.kubectl("delete", "secret", "-n", "traefik", "--ignore-not-found", "riva-ca", "riva-tls", "riva-client-ca")


def findings(report: Path) -> dict[str, dict]:
    """Of verify.yml's report, what it saw of the way in."""
    (cluster,) = json.loads(report.read_text())
    return {finding["check"]: finding for finding in cluster["findings"] if finding["check"] in PROOFS["mTLS"]}


def look(lab, **options) -> dict:
    return validate("validate_route", lab, namespace="riva", name="riva-asr", recognize=True, **options)


def statuses(result: dict) -> dict[str, str]:
    return {finding["check"]: finding["status"] for finding in result["findings"]}


@pytest.mark.parametrize("way", WAYS, scope="module")
def test_one_run_from_inputs_to_proof(lab, folder, tmp_path, way):
    report = tmp_path / "report.json"
    given = extra(
        **WAYS[way], traefik_client_folder=str(folder), verify_stream_seconds=70, verify_report_file=str(report)
    )
    began = time.monotonic()
    done = lab.play("site.yml", *given)
    print(f"site.yml, {way}: {time.monotonic() - began:.0f} s")
    assert recap(done.stdout)["failed"] == 0
    assert "PRIVATE KEY" not in done.stdout
    seen = findings(report)
    assert {check: finding["status"] for check, finding in seen.items()} == dict.fromkeys(PROOFS[way], "ok")
    # Above the 60 s after which Traefik's own default cuts.
    assert "70 s of audio" in seen["long_stream"]["message"]
    if way != "none":
        assert "the certificate lasts 89 more days" in seen["certificate"]["message"]
    if way == "mTLS":
        assert "refused by address and by name" in seen["client_certificate"]["message"]


@pytest.mark.parametrize("way", WAYS, scope="module")
def test_a_second_run_changes_nothing(lab, folder, way):
    assert changes(lab.play("site.yml", *extra(**WAYS[way], traefik_client_folder=str(folder))).stdout) == []


def load(lab, folder, way, report, **more) -> subprocess.CompletedProcess:
    settings = extra(
        **WAYS[way],
        traefik_client_folder=str(folder),
        load_test_profile=[{"streams": 4, "duration": 15}],
        load_test_stream_seconds=6,
        load_test_tail_seconds=1,
        load_test_report_folder=str(report),
        **more,
    )
    return lab.play("playbooks/load_test.yml", *settings, check=False)


def calibrate(lab, folder, way, result) -> dict:
    """What a short calibration finds; the services come from the inventory, so the certificate is for the address."""
    settings = {key: value for key, value in WAYS[way].items() if key != "riva_services"}
    lab.play(
        "playbooks/calibrate.yml",
        *extra(
            **settings,
            traefik_client_folder=str(folder),
            calibrate_first_streams=10,
            calibrate_max_streams=40,
            calibrate_settle_seconds=3,
            calibrate_hold_seconds=8,
            calibrate_confirm_seconds=8,
            calibrate_file=str(result / "calibration.yml"),
            calibrate_report_folder=str(result),
        ),
    )
    return yaml.safe_load((result / "calibration.yml").read_text())["riva_calibration"]["riva-asr"]


# Alone, this test and those of certificates have no whole run before them.
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("way", WAYS, scope="module")
def test_load_test_and_calibration_as_such_a_client(lab, folder, tmp_path, way):
    lab.play("site.yml", "--tags", "traefik,riva", *extra(**WAYS[way], traefik_client_folder=str(folder)))
    done = load(lab, folder, way, tmp_path)
    assert done.returncode == 0, done.stdout
    streams = json.loads((tmp_path / "summary.json").read_text())["streams"]
    assert (streams["failed"], streams["finished"] > 5) == (0, True)
    if way == "mTLS":
        nobody = load(lab, folder, way, tmp_path, load_test_tls_certificate_file="", load_test_tls_key_file="")
        assert nobody.returncode != 0
    if way == "none":
        return
    found = calibrate(lab, folder, way, tmp_path)
    print(f"calibrate.yml, {way}: {found['stream_limit']} streams a pod")
    assert 8 <= found["stream_limit"] <= 40


# --- other sources of certificates


def keep(lab, kind: str, name: str, files: dict[str, str]) -> None:
    """A Secret as an administrator makes it, or puts in place of the one that is there."""
    data = {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "traefik"}, "type": kind}
    create(lab, item | {"data": data})


def create(lab, *items: dict) -> None:
    kubectl = Lab().binaries / "kubectl"
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    subprocess.run([kubectl, f"--kubeconfig={lab.kubeconfig}", "apply", "-f", "-"], input=text, text=True, check=True)


def server_pair(lab, ca, **when) -> dict[str, str]:
    names = [NAME, address_of(lab).rsplit(":", 1)[0]]
    pair = certificates.issue(certificates.SERVER, NAME, ca, names, **when)
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


@pytest.mark.usefixtures("installed")
def test_a_secret_that_was_given(lab, folder, tmp_path):
    """Server's pair and clients' CA of a company's own; then a certificate that ends soon, one that has ended, none."""
    ca, clients = (certificates.issue(certificates.CA, name) for name in ("company", "company clients"))
    client = certificates.issue(certificates.CLIENT, "caller", clients)
    files = {"ca.crt": ca.certificate, "client.crt": client.certificate, "client.key": client.key}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    keep(lab, "kubernetes.io/tls", "company-tls", server_pair(lab, ca, days=200))
    keep(lab, "Opaque", "company-clients", {"ca.crt": clients.certificate})
    settings = {
        "traefik_tls": "secret",
        "traefik_tls_secret": "company-tls",
        "traefik_mtls": True,
        "traefik_mtls_ca_secret": "company-clients",
        "traefik_client_ca_file": str(tmp_path / "ca.crt"),
        "traefik_client_certificate_file": str(tmp_path / "client.crt"),
        "traefik_client_key_file": str(tmp_path / "client.key"),
        "riva_services": SERVICES,
    }
    report = tmp_path / "report.json"
    done = lab.play("site.yml", "--tags", "traefik,verify", *extra(**settings, verify_report_file=str(report)))
    assert recap(done.stdout)["failed"] == 0
    seen = findings(report)
    assert "the certificate lasts 199 more days" in seen["certificate"]["message"]
    assert seen["client_certificate"]["status"] == "ok"
    assert changes(lab.play("site.yml", "--tags", "traefik", *extra(**settings)).stdout) == []

    tls = {"tls": True, "mtls": True, "ca_file": str(tmp_path / "ca.crt"), "route_host": NAME}
    tls |= {"client_certificate_file": str(tmp_path / "client.crt"), "client_key_file": str(tmp_path / "client.key")}

    def replaced(words: str, **when) -> dict:
        # Traefik takes the new one by itself.
        keep(lab, "kubernetes.io/tls", "company-tls", server_pair(lab, ca, **when))
        return until(lambda: look(lab, **tls), lambda result: words in result["table"], 60)

    soon = replaced("the certificate lasts 4 more days", days=5)
    assert statuses(soon)["certificate"] == "warning", soon["table"]
    assert statuses(soon)["recognition"] == "ok", soon["table"]
    ended = replaced("certificate has expired", days=1, now=datetime.now(UTC) - timedelta(days=9))
    assert statuses(ended)["certificate"] == "failed", ended["table"]
    assert "certificate has expired" in ended["table"]

    lab.kubectl("delete", "secret", "-n", "traefik", "company-tls")
    refused = lab.play("site.yml", "--tags", "traefik", *extra(**settings), check=False)
    assert refused.returncode != 0
    assert "company-tls" in refused.stdout
    assert "traefik_tls_secret" in refused.stdout


@pytest.fixture
def cert_manager(lab, tmp_path):
    """cert-manager's own controllers at work on the lab, with a company's CA as their Issuer; the CA's file."""
    program, definitions = extras.cert_manager(Lab())
    lab.kubectl("apply", "--server-side", "-f", str(definitions))
    lab.kubectl(
        "wait", "crd", "--for=condition=Established", "certificates.cert-manager.io", "clusterissuers.cert-manager.io"
    )
    with open(tmp_path / "cert-manager.log", "w") as log:
        process = subprocess.Popen([program, f"--kubeconfig={lab.kubeconfig}"], stdout=log, stderr=subprocess.STDOUT)
    kinds = "cert-manager.io/v1"
    create(lab, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}})
    spec = {
        "isCA": True,
        "commonName": "company",
        "secretName": "company-ca",
        "privateKey": {"algorithm": "ECDSA", "size": 256},
        "issuerRef": {"name": "self-signed", "kind": "ClusterIssuer"},
    }
    metadata = {"name": "company-ca", "namespace": "cert-manager"}
    try:
        create(
            lab,
            {
                "apiVersion": kinds,
                "kind": "ClusterIssuer",
                "metadata": {"name": "self-signed"},
                "spec": {"selfSigned": {}},
            },
            {"apiVersion": kinds, "kind": "Certificate", "metadata": metadata, "spec": spec},
            {
                "apiVersion": kinds,
                "kind": "ClusterIssuer",
                "metadata": {"name": "company-ca"},
                "spec": {"ca": {"secretName": "company-ca"}},
            },
        )
        lab.kubectl("wait", "clusterissuer/company-ca", "--for=condition=Ready", "--timeout=60s", timeout=90)
        data = lab.get("secret", "company-ca", "-n", "cert-manager")["data"]
        (tmp_path / "ca.crt").write_bytes(base64.b64decode(data["tls.crt"]))
        yield tmp_path / "ca.crt"
    finally:
        process.terminate()
        process.wait(20)
        lab.kubectl("delete", "--ignore-not-found", "-f", str(definitions), timeout=120)
        lab.kubectl("delete", "namespace", "cert-manager", "--wait=false")


@pytest.mark.usefixtures("installed")
def test_a_certificate_of_cert_manager(lab, cert_manager):
    settings = extra(
        traefik_tls="cert_manager",
        traefik_tls_secret="issued",
        traefik_tls_issuer={"name": "company-ca"},
        traefik_client_ca_file=str(cert_manager),
        riva_services=SERVICES,
    )
    lab.play("site.yml", "--tags", "traefik", *settings)
    tls = {"tls": True, "ca_file": str(cert_manager)}
    for name in (NAME, ""):
        seen = until(partial(look, lab, **tls, route_host=name), lambda result: "certificate" in statuses(result), 30)
        # The lab's route answers to the name alone: by address only the certificate is looked at.
        assert statuses(seen)["certificate"] == "ok", seen["table"]
        assert "the certificate lasts 89 more days" in seen["table"]
    assert set(statuses(look(lab, **tls, route_host=NAME)).values()) == {"ok"}
    assert changes(lab.play("site.yml", "--tags", "traefik", *settings).stdout) == []
    # A new one, for example because the old one's key is known to others: Traefik takes it by itself.
    before = lab.get("secret", "issued", "-n", "traefik")["data"]["tls.crt"]
    lab.kubectl("delete", "secret", "issued", "-n", "traefik")

    def renewed() -> dict:
        found = json.loads(lab.kubectl("get", "secret", "issued", "-n", "traefik", "-o", "json", check=False) or "{}")
        return {"new": found.get("data", {}).get("tls.crt", before) != before}

    assert until(renewed, lambda seen: seen["new"], 60)["new"]
    seen = until(lambda: look(lab, **tls, route_host=NAME), lambda result: result["ok"], 60)
    assert seen["ok"], seen["table"]
    lab.kubectl("delete", "secret", "issued", "-n", "traefik", "--ignore-not-found")


# --- the Gateway API


@pytest.fixture
def gateway_kinds(lab):
    definitions = extras.gateway_api(Lab())
    lab.kubectl("apply", "--server-side", "-f", str(definitions))
    yield
    # Its Gateway and its route go first: Traefik and the service as they were.
    lab.play("site.yml", "--tags", "traefik,riva", *extra(riva_services=SERVICES))
    lab.kubectl("delete", "--ignore-not-found", "-f", str(definitions), timeout=120)


def test_a_route_of_the_gateway_api(lab, gateway_kinds):
    """Traefik as the Gateway, by its chart's own keys; the whole run, with the proof from outside at its end."""
    values = {
        **INVENTORY["traefik_values"],
        "providers": {"kubernetesGateway": {"enabled": True}},
        "gateway": {"listeners": {"web": {"port": 50051, "protocol": "HTTP", "namespacePolicy": {"from": "All"}}}},
    }
    settings = extra(
        traefik_values=values,
        riva_route_kind="GRPCRoute",
        riva_gateway={"name": "traefik-gateway", "namespace": "traefik", "section": "web"},
        riva_services=SERVICES,
        verify_stream_seconds=6,
    )
    done = lab.play("site.yml", *settings)
    assert recap(done.stdout)["failed"] == 0
    kinds = lab.kubectl("get", "ingressroutes.traefik.io", "-n", "riva", "-o", "name")
    assert "riva-asr" not in kinds
    (parent,) = lab.get("grpcroute", "riva-asr", "-n", "riva")["status"]["parents"]
    assert {item["type"]: item["status"] for item in parent["conditions"]} == {
        "Accepted": "True",
        "ResolvedRefs": "True",
    }
    # Another name finds no route there.
    stranger = look(lab, route_kind="GRPCRoute", route_host="other.example.com")
    assert statuses(stranger)["answer"] == "failed"
    assert changes(lab.play("site.yml", *settings).stdout) == []
    run(HELM, "status", "traefik", "--namespace", "traefik", KUBECONFIG=lab.kubeconfig)
