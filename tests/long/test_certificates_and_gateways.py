"""The role's Certificate with cert-manager's own controllers, and the chart's GRPCRoute with Traefik as the Gateway.

Both on a real API server without nodes: quick, where tests/long/test_whole_runs.py has the whole lab around them.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import CallFailed, Way, recognition
from ansible_collections.speechops.riva.plugins.module_utils.way_in import certificate_object
from cryptography import x509
from riva.client.proto import riva_asr_pb2, riva_asr_pb2_grpc

from lab import extras
from lab.settings import Lab
from tests.benchmarks.bare_apiserver import BareApiserver, free_port
from tests.integration.running_lab import HELM, REPOSITORY, run

KINDS = "cert-manager.io/v1"
NAMES = ["10.1.2.3", "asr.example.com"]


class Api:
    """kubectl of a bare API server."""

    def __init__(self, server: BareApiserver) -> None:
        self.kubeconfig = str(server.kubeconfig)

    def kubectl(self, *words: str, text: str | None = None) -> str:
        command = [Lab().binaries / "kubectl", f"--kubeconfig={self.kubeconfig}", *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *words: str) -> dict:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *items: dict) -> str:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return self.kubectl("apply", "-f", "-", text=text)


@pytest.fixture
def api():
    with BareApiserver() as server:
        made = Api(server)
        for name in ("riva", "traefik", "cert-manager"):
            made.kubectl("create", "namespace", name)
        yield made


@pytest.fixture
def company(api, tmp_path):
    """cert-manager's controllers at work, and a company's CA as their Issuer."""
    program, definitions = extras.cert_manager(Lab())
    api.kubectl("apply", "--server-side", "-f", str(definitions))
    api.kubectl("wait", "crd", "--for=condition=Established", "--all", "--timeout=60s")
    with open(tmp_path / "cert-manager.log", "w") as log:
        process = subprocess.Popen([program, f"--kubeconfig={api.kubeconfig}"], stdout=log, stderr=log)
    spec = {"isCA": True, "commonName": "company", "secretName": "company-ca"}
    spec["issuerRef"] = {"name": "self-signed", "kind": "ClusterIssuer"}
    metadata = {"name": "company-ca", "namespace": "cert-manager"}
    issuers = {"self-signed": {"selfSigned": {}}, "company-ca": {"ca": {"secretName": "company-ca"}}}
    try:
        api.apply(
            {"apiVersion": KINDS, "kind": "Certificate", "metadata": metadata, "spec": spec},
            *(
                {"apiVersion": KINDS, "kind": "ClusterIssuer", "metadata": {"name": name}, "spec": how}
                for name, how in issuers.items()
            ),
        )
        api.kubectl("wait", "clusterissuer/company-ca", "--for=condition=Ready", "--timeout=120s")
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_the_certificate_that_the_role_asks_for_is_issued(api, company):
    wanted = certificate_object("issued", "traefik", {"name": "company-ca"}, NAMES, 90, 30)
    api.apply(wanted)
    api.kubectl("wait", "certificate/issued", "-n", "traefik", "--for=condition=Ready", "--timeout=120s")
    secret = api.get("secret", "issued", "-n", "traefik")
    # What Traefik reads.
    assert secret["type"] == "kubernetes.io/tls"
    made = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(str(name.value) for name in names) == NAMES
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 90
    assert "unchanged" in api.apply(wanted)
    # Another key with each new certificate.
    api.kubectl("delete", "secret", "issued", "-n", "traefik")
    api.kubectl("wait", "secret/issued", "-n", "traefik", "--for=create", "--timeout=120s")
    api.kubectl("wait", "certificate/issued", "-n", "traefik", "--for=condition=Ready", "--timeout=120s")
    assert api.get("secret", "issued", "-n", "traefik")["data"]["tls.key"] != secret["data"]["tls.key"]


class Echo(riva_asr_pb2_grpc.RivaSpeechRecognitionServicer):
    """Takes all audio."""

    def StreamingRecognize(self, requests, context):
        taken = 0
        for request in requests:
            taken += len(request.audio_content)
            answer = riva_asr_pb2.StreamingRecognizeResponse()
            answer.results.add().audio_processed = taken / 32000
            yield answer


@pytest.fixture
def server():
    """Address and port of a speech server; an EndpointSlice takes no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    made = grpc.server(ThreadPoolExecutor(4))
    riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(Echo(), made)
    port = made.add_insecure_port(f"{address}:0")
    made.start()
    yield address, port
    made.stop(0).wait()


def rendered(chart: str, name: str, values: dict, folder, *templates: str) -> str:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(values))
    shown = [word for template in templates for word in ("-s", f"templates/{template}")]
    return run(HELM, "template", name, chart, "-n", name.split("-")[0], "-f", str(file), *shown).stdout


def test_the_charts_grpcroute_leads_to_the_service(api, server, tmp_path):
    address, port = server
    api.kubectl("apply", "--server-side", "-f", str(extras.gateway_api(Lab())))
    api.kubectl("wait", "crd", "--for=condition=Established", "--all", "--timeout=60s")
    entry = free_port()
    gateway = {
        "providers": {"kubernetesGateway": {"enabled": True}},
        "ports": {"riva-grpc": {"port": entry, "protocol": "TCP", "expose": {"default": True}}},
        "gateway": {"listeners": {"web": {"port": entry, "protocol": "HTTP", "namespacePolicy": {"from": "All"}}}},
    }
    api.kubectl("apply", "-f", "-", text=rendered("lab/charts/traefik", "traefik", gateway, tmp_path, "gateway.yaml"))
    parent = {"name": "traefik-gateway", "namespace": "traefik", "sectionName": "web"}
    route = {"route": {"kind": "GRPCRoute", "gateway": parent, "host": "asr.example.com"}}
    files = ("grpcroute.yaml", "service.yaml")
    api.kubectl("apply", "-f", "-", text=rendered("roles/riva/files/chart", "riva-asr", route, tmp_path, *files))
    # No controller runs here that would find pods.
    labels = {"kubernetes.io/service-name": "riva-asr"}
    api.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "riva-asr", "namespace": "riva", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "grpc", "port": port, "protocol": "TCP"}],
        }
    )
    words = [REPOSITORY / ".venv/bin/traefik", f"--entryPoints.riva-grpc.address=127.0.0.1:{entry}"]
    with open(tmp_path / "traefik.log", "w") as log:
        process = subprocess.Popen(
            [*words, "--providers.kubernetesgateway"],
            env={**os.environ, "KUBECONFIG": api.kubeconfig},
            stdout=log,
            stderr=log,
        )
    try:
        assert taken(Way("127.0.0.1", entry, "asr.example.com")) == 2
        with pytest.raises(CallFailed, match="UNIMPLEMENTED"):
            recognition(Way("127.0.0.1", entry, "other.example.com"))
        (seen,) = api.get("grpcroute", "riva-asr", "-n", "riva")["status"]["parents"]
        assert {item["type"]: item["status"] for item in seen["conditions"]} == {
            "Accepted": "True",
            "ResolvedRefs": "True",
        }
    finally:
        process.terminate()
        process.wait(30)


def taken(way: Way, seconds: float = 90) -> float:
    """What the server took of two seconds of audio, as soon as the route is there."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return recognition(way)
        except CallFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
