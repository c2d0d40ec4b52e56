"""A real kube-apiserver with its etcd, as plain processes on loopback ports, in a temporary folder.

Nothing else runs beside them: no controller changes the objects, so a cluster of 20,000 nodes stays as it was made.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.certificates import Authority, _pem, write_private
from lab.settings import CACHE

PROGRAMS = CACHE / "bin"
START_SECONDS = 60
STOP_SECONDS = 15
CREATORS = 8


def missing() -> str:
    """What is not there to run it with; empty if all is."""
    absent = [str(PROGRAMS / name) for name in ("kube-apiserver", "etcd") if not (PROGRAMS / name).exists()]
    return f"not there (make lab brings it): {', '.join(absent)}" if absent else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class BareApiserver:
    """Use as a context; `kubeconfig` is a file, `url` the address."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bare-apiserver-"))
        self.etcd_port, self.peer_port, self.port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self.processes: dict[str, subprocess.Popen] = {}
        self.make_certificates()

    def make_certificates(self) -> None:
        authority = Authority(self.folder, "ca")
        authority.issue("apiserver", "kube-apiserver", names=("localhost", ipaddress.ip_address("127.0.0.1")))
        authority.issue("admin", "admin", "system:masters")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(self.folder / "service-account.key", _pem(key))
        write_private(self.kubeconfig, yaml.safe_dump(self.kubeconfig_for(self.url)).encode())

    def kubeconfig_for(self, url: str) -> dict:
        """The administrator's kubeconfig for this server at another address."""

        def encoded(name: str) -> str:
            return b64encode((self.folder / name).read_bytes()).decode()

        user = {"client-certificate-data": encoded("admin.crt"), "client-key-data": encoded("admin.key")}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bare", "cluster": {"server": url, "certificate-authority-data": encoded("ca.crt")}}],
            "users": [{"name": "admin", "user": user}],
            "contexts": [{"name": "bare", "context": {"cluster": "bare", "user": "admin"}}],
            "current-context": "bare",
        }

    def __enter__(self) -> BareApiserver:
        try:
            self.start_etcd()
            self.start_apiserver()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def start(self, name: str, command: list[str]) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        command = [f"{PROGRAMS}/etcd", "--name=bare", f"--data-dir={self.folder}/etcd", "--log-level=error"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += [f"--initial-cluster=bare={peer}", "--quota-backend-bytes=8589934592", "--snapshot-count=100000"]
        self.start("etcd", command)

    def start_apiserver(self) -> None:
        """Starts the API server, again after stop_apiserver(), and waits until it is ready."""
        folder = self.folder
        command = [f"{PROGRAMS}/kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}"]
        command += ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"]
        command += ["--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.96.0.0/16"]
        command += ["--authorization-mode=RBAC", "--profiling=false", f"--cert-dir={folder}"]
        # Node objects stay as they are made, pods need no service account.
        command += ["--disable-admission-plugins=TaintNodesByCondition,ServiceAccount"]
        command += [f"--client-ca-file={folder}/ca.crt", "--service-account-issuer=https://kubernetes.default.svc"]
        command += [f"--tls-cert-file={folder}/apiserver.crt", f"--tls-private-key-file={folder}/apiserver.key"]
        command += [f"--service-account-key-file={folder}/service-account.key"]
        command += [f"--service-account-signing-key-file={folder}/service-account.key"]
        self.start("apiserver", command)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if self.processes["apiserver"].poll() is not None:
                break
            time.sleep(0.2)
        raise RuntimeError(f"kube-apiserver did not get ready:\n{self.log_tail('apiserver')}")

    def stop_apiserver(self) -> None:
        self.stop("apiserver")

    def stop(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_tail(self, name: str) -> str:
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def close(self) -> None:
        # The API server first: it hangs at its end once etcd is gone.
        for name in ("apiserver", "etcd"):
            self.stop(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        return context

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls(), timeout=60)

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = self.connection()
        try:
            return send(connection, method, path, body)
        finally:
            connection.close()

    def create(self, path: str, objects) -> None:
        """Makes all these objects, on several connections at once."""
        objects = iter(objects)

        def create_some(batch: list) -> None:
            connection = self.connection()
            for item in batch:
                status, answer = send(connection, "POST", path, item)
                if status != 201:
                    raise RuntimeError(f"POST {path}: {status} {answer[:300]!r}")
            connection.close()

        with ThreadPoolExecutor(CREATORS) as pool:
            while True:
                batches = [batch for _ in range(CREATORS) if (batch := list(islice(objects, 50)))]
                if not batches:
                    return
                list(pool.map(create_some, batches))


def send(connection: http.client.HTTPSConnection, method: str, path: str, body: object) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    return response.status, response.read()
