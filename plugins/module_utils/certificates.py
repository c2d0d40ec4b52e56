# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of a CA of our own, for a start without one: made, held against what is wanted, described.

Pure rules: keys and certificates are PEM texts; nothing is read or written here.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.speechops.riva.plugins.module_utils.exposure import is_address

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    MISSING_LIBRARY = None
except ImportError as error:
    MISSING_LIBRARY = error

CA, SERVER, CLIENT = "ca", "server", "client"
CA_DAYS = 3650
# A clock that is a little behind does not refuse a certificate of today.
SKEW = timedelta(hours=1)


@dataclass(frozen=True, repr=False)
class Pair:
    """A certificate and its private key, as PEM. It has no repr, so that no log shows the key."""

    certificate: str
    key: str


def _alternative_name(name):
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)


def issue(kind, common_name, issuer=None, names=(), days=90, now=None):
    """A new key (P-256) and its certificate, signed by `issuer` (a Pair), or by itself where it is None."""
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    above = x509.load_pem_x509_certificate(issuer.certificate.encode()) if issuer else None
    # Of all keys that a file may hold, a CA has one that can sign.
    signer: Any = serialization.load_pem_private_key(issuer.key.encode(), None) if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.subject if above else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=kind == CA, path_length=0 if kind == CA else None), critical=True)
        .add_extension(_usage(kind), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if kind != CA:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if kind == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if names:
        alternative = [_alternative_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _usage(kind):
    ca = kind == CA
    flags = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    return x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, decipher_only=False, **flags)


def names_of(certificate):
    """The DNS names and addresses that a certificate is for, as text, sorted."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return sorted(str(entry.value) for entry in found)


def days_left(end, now=None):
    """Whole days until a moment; negative once it has passed."""
    return math.floor((end - (now or datetime.now(UTC))).total_seconds() / 86400)


def why_renew(pair, issuer, names, renew_days, now=None):
    """Why a pair has to be made anew, in words; empty where it is as wanted.

    pair: the one that is there, or None; issuer: the CA's Pair, or None for the CA itself; names: those that it has
    to be for; renew_days: it has to last longer than that.
    """
    if pair is None or not pair.certificate or not pair.key:
        return "there is none"
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), None)
    except (ValueError, TypeError):
        return "it can't be read"
    if key.public_key() != certificate.public_key():
        return "key and certificate do not belong together"
    left = days_left(certificate.not_valid_after_utc, now)
    if left < renew_days:
        return f"it ends in {left} days" if left >= 0 else "it has ended"
    if issuer:
        try:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(issuer.certificate.encode()))
        except Exception:  # Whatever does not fit, it is not this CA's.
            return "it is another CA's"
    missing = sorted(set(names) - set(names_of(certificate)))
    return f"it is not for {', '.join(missing)}" if missing else ""


def described(pair):
    """What may be shown of a certificate: who, for which names, until when, its fingerprint. Never the key."""
    if pair is None or not pair.certificate:
        return {}
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
    except ValueError:
        return {"certificate": "can't be read"}
    return {
        "subject": certificate.subject.rfc4514_string(),
        "names": names_of(certificate),
        "ends": certificate.not_valid_after_utc.strftime("%Y-%m-%d"),
        "sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }
