# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates of a CA of one's own: what they are for, when they are made anew, and that no key is shown."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import certificates
from ansible_collections.speechops.riva.plugins.module_utils.certificates import CA, CLIENT, SERVER, Pair
from ansible_collections.speechops.riva.plugins.modules import self_made_certificates
from cryptography import x509

NAMES = ["asr.example.com", "192.0.2.10", "2001:db8::1"]
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def ca():
    return certificates.issue(CA, "a CA", days=3650)


@pytest.fixture(scope="module")
def server(ca):
    return certificates.issue(SERVER, "riva", ca, NAMES, 90)


def test_python_itself_trusts_what_was_issued(ca, server, tmp_path):
    """The chain holds in OpenSSL's eyes, for names and addresses: a handshake in memory."""
    for name, text in (("ca", ca.certificate), ("crt", server.certificate), ("key", server.key)):
        (tmp_path / name).write_text(text)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    calling = ssl.create_default_context(cafile=tmp_path / "ca")
    for name, trusted in [(name, True) for name in NAMES] + [("other.example.com", False), ("192.0.2.11", False)]:
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = calling.wrap_bio(there, back, server_hostname=name)
        answer = serving.wrap_bio(back, there, server_side=True)
        if trusted:
            shake(client, answer)
            assert client.version() == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                shake(client, answer)


def shake(*sides):
    for side in [*sides] * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


def broken(pair, **change):
    return Pair(**({"certificate": pair.certificate, "key": pair.key} | change))


def test_why_a_certificate_is_made_anew(ca, server):
    other = certificates.issue(CA, "a CA")
    old = certificates.issue(SERVER, "riva", ca, NAMES, 29)
    ended = certificates.issue(SERVER, "riva", ca, NAMES, 1, now=NOW - timedelta(days=9))
    cases = [
        (None, ca, NAMES, "there is none"),
        (Pair("", ""), ca, NAMES, "there is none"),
        (broken(server, certificate="nonsense"), ca, NAMES, "can't be read"),
        (broken(server, key=ca.key), ca, NAMES, "do not belong together"),
        (server, ca, NAMES, ""),
        (server, ca, NAMES[:1], ""),
        (server, ca, [*NAMES, "tts.example.com"], "it is not for tts.example.com"),
        (server, other, NAMES, "another CA's"),
        (old, ca, NAMES, "it ends in"),
        (ended, ca, NAMES, "it has ended"),
        (ca, None, [], ""),
    ]
    for pair, issuer, names, words in cases:
        why = certificates.why_renew(pair, issuer, names, 30)
        assert words in why
        assert bool(why) == bool(words), why


def test_what_each_is_for(ca, server):
    client = x509.load_pem_x509_certificate(certificates.issue(CLIENT, "c", ca).certificate.encode())
    usage = [entry.dotted_string for entry in client.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]
    assert usage == ["1.3.6.1.5.5.7.3.2"]
    root = x509.load_pem_x509_certificate(ca.certificate.encode())
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificates.described(server)["names"] == sorted(NAMES)


def test_no_key_is_shown(server):
    assert "PRIVATE" not in f"{server!r} {server} {certificates.described(server)}"


class Cluster:
    """Secrets in memory."""

    def __init__(self):
        self.secrets = {}

    def find(self, path):
        return self.secrets.get(path)

    def apply(self, path, item, manager):
        self.secrets[path] = item


def keep(cluster, folder, check_mode=False, **more):
    params = {
        "namespace": "traefik",
        "ca_secret": "riva-ca",
        "server_secret": "riva-tls",
        "client_ca_secret": "riva-client-ca",
        "names": NAMES,
        "client": True,
        "client_folder": str(folder),
        "days": 90,
        "renew_days": 30,
        **more,
    }
    keeper = self_made_certificates.Keeper(cluster, params, check_mode)
    keeper.run()
    return keeper


def test_they_are_made_once_and_kept(tmp_path):
    cluster, folder = Cluster(), tmp_path / "new" / "clients"
    assert set(keep(cluster, folder, check_mode=True).renewed) == {
        "ca",
        "server",
        "client_ca_secret",
        "ca.crt",
        "client",
    }
    assert cluster.secrets == {}
    assert not folder.exists()
    first = keep(cluster, folder)
    assert set(first.renewed) == {"ca", "server", "client_ca_secret", "ca.crt", "client"}
    assert keep(cluster, folder).renewed == {}
    kinds = {path.rsplit("/", 1)[1]: item["type"] for path, item in cluster.secrets.items()}
    assert kinds == {"riva-ca": "kubernetes.io/tls", "riva-tls": "kubernetes.io/tls", "riva-client-ca": "Opaque"}
    assert set(cluster.secrets["/api/v1/namespaces/traefik/secrets/riva-client-ca"]["data"]) == {"ca.crt"}
    shown = self_made_certificates.shown(first.after)
    assert "PRIVATE" not in shown
    assert "server names: 192.0.2.10, 2001:db8::1, asr.example.com" in shown


def test_only_the_owner_reads_what_clients_need(tmp_path):
    folder = tmp_path / "clients"
    keep(Cluster(), folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("ca.crt", "client.crt", "client.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "client.crt", "client.key"}


def test_a_new_name_renews_the_server_alone(tmp_path):
    cluster = Cluster()
    keep(cluster, tmp_path)
    assert set(keep(cluster, tmp_path, names=[*NAMES, "tts.example.com"]).renewed) == {"server"}


def test_a_lost_ca_renews_all(tmp_path):
    cluster = Cluster()
    keep(cluster, tmp_path)
    del cluster.secrets["/api/v1/namespaces/traefik/secrets/riva-ca"]
    assert set(keep(cluster, tmp_path).renewed) == {"ca", "server", "client_ca_secret", "ca.crt", "client"}
