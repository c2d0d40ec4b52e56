# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a client sees of TLS, against Python's own TLS server: the certificate's end, and whether strangers get in."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import certificates, outside_calls
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import Way


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of a CA, of a server for localhost and 127.0.0.1, of one that has ended, and of a client."""
    folder = tmp_path_factory.mktemp("tls")
    ca = certificates.issue(certificates.CA, "ca")
    past = datetime.now(UTC) - timedelta(days=9)
    pairs = {
        "ca": ca,
        "server": certificates.issue(certificates.SERVER, "s", ca, ["localhost", "127.0.0.1"], 90),
        "ended": certificates.issue(certificates.SERVER, "s", ca, ["localhost", "127.0.0.1"], 1, now=past),
        "client": certificates.issue(certificates.CLIENT, "c", ca),
    }
    for name, pair in pairs.items():
        (folder / f"{name}.crt").write_text(pair.certificate)
        (folder / f"{name}.key").write_text(pair.key)
    return folder


@contextlib.contextmanager
def serving(files, name="server", client_certificates=False, most=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / f"{name}.crt", files / f"{name}.key")
    context.maximum_version = most
    if client_certificates:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files / "ca.crt")
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                secured.sendall(b"\0" * 9)
                secured.recv(100)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def way(files, port, **more):
    return Way(host="127.0.0.1", port=port, tls=True, ca_file=str(files / "ca.crt"), **more)


@pytest.mark.parametrize("server_name", ["", "localhost"])
def test_how_long_the_certificate_lasts(files, server_name):
    with serving(files) as port:
        seen = outside_calls.certificate(way(files, port, server_name=server_name))
    assert seen["version"] == "TLSv1.3"
    assert certificates.days_left(seen["end"]) == 89


@pytest.mark.parametrize(
    ("name", "server_name", "words"), [("ended", "", "expired"), ("server", "other.example.com", "Hostname mismatch")]
)
def test_a_certificate_that_is_not_to_be_trusted(files, name, server_name, words):
    with serving(files, name) as port, pytest.raises(ssl.SSLCertVerificationError) as raised:
        outside_calls.certificate(way(files, port, server_name=server_name))
    assert words in raised.value.verify_message


def test_plain_text_in_place_of_tls(files):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400 no\r\n\r\n"), daemon=True)
        thread.start()
        with pytest.raises(ssl.SSLError):
            outside_calls.certificate(way(files, listener.getsockname()[1]))


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("server_name", ["", "localhost"])
def test_a_client_without_a_certificate(files, most, server_name):
    with serving(files, client_certificates=True, most=most) as port:
        assert outside_calls.refusal(way(files, port), server_name) != ""
    with serving(files, most=most) as port:
        assert outside_calls.refusal(way(files, port), server_name) == ""


def test_a_client_with_a_certificate_sees_the_servers(files):
    pair = {"certificate_file": str(files / "client.crt"), "key_file": str(files / "client.key")}
    with serving(files, client_certificates=True) as port:
        assert outside_calls.certificate(way(files, port, **pair))["version"] == "TLSv1.3"


def test_half_of_the_audio_is_a_tone():
    assert len(outside_calls.tone(0.1)) == 2 * 1600
    assert set(outside_calls.tone(0.1, silent=True)) == {0}
    assert set(outside_calls.tone(0.1)) != {0}
