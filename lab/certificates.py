"""The certificates and kubeconfigs of a lab, made once and kept until ``down``."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.settings import API_SERVICE_ADDRESS, Lab


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    partial.rename(path)


def _name(common_name: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """A certificate authority in a folder: ``<name>.crt`` and ``<name>.key``."""

    # A certificate is valid from so long ago, for so long from now.
    BEGUN = datetime.timedelta(hours=1)
    LIFETIME = datetime.timedelta(days=365)

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.certificate_path = folder / f"{name}.crt"
        key_path = folder / f"{name}.key"
        if not self.certificate_path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            subject = _name(name)
            certificate = (
                self._builder(subject, subject, key.public_key())
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .sign(key, hashes.SHA256())
            )
            write_private(key_path, _pem(key))
            write_private(self.certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
        own = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(own, ec.EllipticCurvePrivateKey)
        self._key = own
        self._certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())

    def _builder(self, subject: x509.Name, issuer: x509.Name, public_key) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - self.BEGUN)
            .not_valid_after(now + self.LIFETIME)
        )

    def issue(self, file: str, common_name: str, organization: str | None = None, names: tuple = ()) -> None:
        """Make ``<file>.crt`` and ``<file>.key`` unless both are there; ``names`` are DNS names or addresses."""
        certificate_path, key_path = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if certificate_path.exists() and key_path.exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(common_name, organization), self._certificate.subject, key.public_key())
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
                ),
                False,
            )
        write_private(key_path, _pem(key))
        signed = builder.sign(self._key, hashes.SHA256())
        write_private(certificate_path, signed.public_bytes(serialization.Encoding.PEM))


def kubeconfig(lab: Lab, user: str) -> bytes:
    """A kubeconfig with everything inside for a user whose certificate was issued as ``<user>.crt``."""

    def encoded(file: str) -> str:
        return base64.b64encode((lab.certificates / file).read_bytes()).decode()

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": lab.name,
                    "cluster": {"server": lab.api_url, "certificate-authority-data": encoded("cluster-ca.crt")},
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": encoded(f"{user}.crt"),
                        "client-key-data": encoded(f"{user}.key"),
                    },
                }
            ],
            "contexts": [{"name": lab.name, "context": {"cluster": lab.name, "user": user}}],
            "current-context": lab.name,
        }
    ).encode()


def make_all(lab: Lab) -> None:
    """Make every certificate, key and kubeconfig that the lab needs; keep those that are there."""
    folder = lab.certificates
    cluster = Authority(folder, "cluster-ca")
    front_proxy = Authority(folder, "front-proxy-ca")
    service_account_key = folder / "service-account.key"
    if not service_account_key.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        write_private(service_account_key, _pem(key))
    loopback = ipaddress.ip_address("127.0.0.1")
    cluster.issue(
        "kube-apiserver",
        "kube-apiserver",
        names=(
            *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"),
            "kubernetes.default.svc.cluster.local",
            *(API_SERVICE_ADDRESS, lab.address(lab.control_plane), loopback),
        ),
    )
    cluster.issue("kube-apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters")
    front_proxy.issue("front-proxy-client", "front-proxy-client")
    users = {
        "admin": ("lab-admin", "system:masters"),
        "controller-manager": ("system:kube-controller-manager", None),
        "scheduler": ("system:kube-scheduler", None),
        "kube-proxy": ("system:kube-proxy", None),
    }
    for node in lab.nodes:
        users[f"kubelet-{node.name}"] = (f"system:node:{node.name}", "system:nodes")
        cluster.issue(
            f"kubelet-server-{node.name}", f"system:node:{node.name}", "system:nodes", (node.name, lab.address(node))
        )
    for file, (user, group) in users.items():
        cluster.issue(file, user, group)
        path = lab.kubeconfig if file == "admin" else folder / f"{file}.kubeconfig"
        if not path.exists():
            write_private(path, kubeconfig(lab, file))
