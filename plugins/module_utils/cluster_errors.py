# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What goes wrong on the way to a cluster's API, and in which words it is told. Asks nothing itself."""

import base64
import json
import re
from datetime import UTC, datetime

from ansible_collections.speechops.riva.plugins.module_utils import protobuf

METRICS_GROUP = "custom.metrics.k8s.io"


class ClusterError(Exception):
    """Something between us and the answer. `transient`: it may be better a moment later."""

    transient = False
    status: int | None = None
    retry_after: float | None = None

    def __init__(self, message: str, remedy: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
        self.reason = reason


class DoorShut(ClusterError):
    """The API server itself can't be asked, so no part of the answer is worth going on for."""


class KubeconfigError(DoorShut):
    """No usable kubeconfig, context or key."""


class CertificateError(DoorShut):
    """TLS failed: another CA, an expired certificate, a wrong name."""


class Unreachable(DoorShut):
    """Nobody answers at the address."""

    transient = True


class Busy(DoorShut):
    """429: the API server has too much to do, or is just starting."""

    transient = True
    status = 429


class Silent(ClusterError):
    """A connection, but no answer for a long while; it may be the server behind the API server that is silent."""

    transient = True


class DeadlineExceeded(DoorShut):
    """The time given to the whole module is over."""

    transient = True


class BadAnswer(ClusterError):
    """An answer that is no JSON, was cut off, or has a status that nothing here expects."""

    transient = True

    def __init__(self, message: str, remedy: str = "", reason: str = "", status: int | None = None) -> None:
        super().__init__(message, remedy, reason)
        self.status = status


class Unauthorized(ClusterError):
    status = 401


class Forbidden(ClusterError):
    status = 403


class NotFound(ClusterError):
    status = 404


class Expired(ClusterError):
    """The continue token is too old (410): the list has to start again."""

    transient = True
    status = 410


class Unavailable(ClusterError):
    """503: the server, or the one behind it, can't answer now."""

    transient = True
    status = 503


def permission_of(path: str, listing: bool = False) -> str:
    """The permission that a GET of this path needs, in the words of a Role."""
    parts = [part for part in path.split("?")[0].split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, rest = "", parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, rest = parts[1], parts[3:]
    else:
        return f"get on the non-resource URL {path.split('?')[0]}"
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    resource, name = rest[0], rest[1] if len(rest) > 1 else ""
    if len(rest) > 2:
        resource = f"{resource}/{rest[2]}"
    verb = "list" if listing or not name else "get"
    # The custom metrics API answers a GET; its pods/<metric> is a resource with a subresource to RBAC.
    if group == METRICS_GROUP:
        verb = "get"
    where = f" in namespace {namespace}" if namespace else ""
    return f"{verb} {resource} (apiGroup {group!r}){where}"


def one_line(text: object, most: int = 300) -> str:
    """A message of someone else's, short and on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


# X.509's Validity: a sequence of two times, the second of which is the end.
VALIDITY = re.compile(rb"\x30[\x1e\x20\x22](?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)(\x17\x0d\d{12}|\x18\x0f\d{14})Z")
PEM = re.compile(r"-----BEGIN CERTIFICATE-----([\sA-Za-z0-9+/=]+)-----END")


def certificate_end(path: str | None) -> datetime | None:
    """When the first certificate in a PEM file ends; None where it can't be told."""
    try:
        with open(path or "", encoding="ascii") as file:
            block = PEM.search(file.read())
        validity = VALIDITY.search(base64.b64decode(block.group(1))) if block else None
        digits = validity.group(1)[2:].decode() if validity else ""
        # Two digits of the year mean 1950 to 2049.
        century = ("20" if digits[:2] < "50" else "19") if len(digits) == 12 else ""
        return datetime.strptime(f"{century}{digits}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None


def usual(errors: list[ClusterError]) -> ClusterError:
    """The error that came most often, rather an answer than none, of those the last: a fault on the way does not hide
    what the server says."""
    kinds = [(type(error), error.status) for error in errors]
    return max(reversed(errors), key=lambda error: (kinds.count((type(error), error.status)), error.status is not None))


def is_page(body: bytes) -> bool:
    """Whether an answer is HTML."""
    return body.lstrip()[:1] == b"<"


def page_text(html: str) -> str:
    return one_line(re.sub(r"<[^<>]*>", " ", html))


def seconds_of(value: str | None) -> float | None:
    """A Retry-After in seconds; a date is not used by Kubernetes."""
    return float(value) if value and re.fullmatch(r"\s*\d{1,6}\s*", value) else None


def status_message(body: bytes) -> tuple[str, str]:
    """(message, reason) of a Kubernetes Status, or the start of the text."""
    try:
        status = protobuf.read_status(body) if body.startswith(protobuf.MAGIC) else json.loads(body)
    except (ValueError, RecursionError):
        return one_line(body[:200].decode("utf-8", "replace")), ""
    if isinstance(status, dict):
        return one_line(status.get("message") or status.get("error") or ""), str(status.get("reason") or "")
    return one_line(status), ""


def tls_reason(text: str) -> str:
    for sign, words in (
        ("certificate has expired", "the server's certificate has expired"),
        ("alert certificate expired", "the client certificate in the kubeconfig has expired"),
        ("CERTIFICATE_EXPIRED", "the client certificate in the kubeconfig has expired"),
        ("unknown ca", "the server does not know the CA of the client certificate"),
        ("UNKNOWN_CA", "the server does not know the CA of the client certificate"),
        ("KEY_VALUES_MISMATCH", "the client certificate in the kubeconfig and its key do not belong together"),
        ("NO_CERTIFICATE_OR_CRL_FOUND", "the CA in the kubeconfig holds no certificate"),
        ("[SSL] PEM lib", "the client certificate in the kubeconfig, or its key, can't be read"),
        ("certificate signature failure", "the server's certificate is not signed by the CA in the kubeconfig"),
        ("self-signed certificate", "the server's certificate is not signed by the CA in the kubeconfig"),
        ("unable to get local issuer", "the server's certificate is not signed by the CA in the kubeconfig"),
        ("doesn't match", "the server's certificate is for another name"),
        ("mismatch", "the server's certificate is for another name"),
        ("WRONG_VERSION_NUMBER", "the server speaks no TLS (http instead of https?)"),
    ):
        if sign.lower() in text.lower():
            return f"{words} ({one_line(text, 160)})"
    return text
