# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one value may be beyond its type: names, ranges, addresses, versions, secrets. Pure rules.

A rule takes a value of the right type and answers None, or (what is wrong with it, what would be right).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from ansible_collections.speechops.riva.plugins.module_utils import chart_sources

Problem = tuple[str, str] | None
Rule = Callable[[object], Problem]
# Sources: RFC 1123 and Kubernetes' «Object Names and IDs»; Helm's release names (at most 53 characters).
LABEL_LENGTH, SUBDOMAIN_LENGTH, RELEASE_LENGTH = 63, 253, 53
NODE_PORTS = (30000, 32767)


def _strange(text: str, allowed: str) -> str:
    """The first character of a text that is not allowed, in words; empty where all are."""
    for character in text:
        if not re.fullmatch(allowed, character):
            code = "" if 32 < ord(character) < 127 else f" (U+{ord(character):04X})"
            return f"has {character!r}{code} in it"
    return ""


def _kubernetes_name(length: int, allowed: str, shape: str, right: str) -> Rule:
    def rule(value):
        text = str(value)
        if not text:
            return "is empty", right
        if len(text) > length:
            return f"is {len(text)} characters long", f"At most {length} are allowed. {right}"
        strange = _strange(text, allowed)
        if strange:
            return strange, right
        if not re.fullmatch(shape, text):
            return "does not begin and end as a name has to", right
        return None

    return rule


_LETTERS = "lowercase letters, digits and -, beginning and ending with a letter or digit"
label = _kubernetes_name(
    LABEL_LENGTH, r"[a-z0-9-]", r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", f"Use a name such as 'riva': {_LETTERS}."
)
release = _kubernetes_name(
    RELEASE_LENGTH, r"[a-z0-9-]", r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", f"Use a name such as 'riva-asr': {_LETTERS}."
)
# A Service is named after it, so the first character has to be a letter.
service_name = _kubernetes_name(
    RELEASE_LENGTH,
    r"[a-z0-9-]",
    r"[a-z]([a-z0-9-]*[a-z0-9])?",
    "Use a name such as 'riva-asr': lowercase letters, digits and -, beginning with a letter, not ending with -.",
)
_PARTS = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
subdomain = _kubernetes_name(
    SUBDOMAIN_LENGTH, r"[a-z0-9.-]", _PARTS, "Use a name such as 'riva-tls': lowercase letters, digits, - and dots."
)


def host(value) -> Problem:
    """A DNS name as it stands in a route; the first part may be *."""
    text, right = str(value), "Write a host name such as asr.example.com, without scheme, port and path."
    if "://" in text:
        return "has a scheme", right
    strange = _strange(text.removeprefix("*."), r"[A-Za-z0-9.-]")
    if strange:
        return strange, right
    if len(text) > SUBDOMAIN_LENGTH or any(len(part) > LABEL_LENGTH for part in text.split(".")):
        return "is too long for a host name", f"A part has at most 63 characters, the whole 253. {right}"
    if not re.fullmatch(_PARTS, text.removeprefix("*.").lower()):
        return "is no host name", right
    return None


def host_or_address(value) -> Problem:
    return None if address(value) is None else host(value)


def address(value) -> Problem:
    try:
        ipaddress.ip_address(str(value))
    except ValueError:
        return "is no IP address", "Write an address such as 192.0.2.7."
    return None


def address_range(value) -> Problem:
    """A range a-b or a network, as MetalLB takes them."""
    text, right = str(value), "Write a range such as 192.0.2.10-192.0.2.20, or a network such as 192.0.2.0/28."
    first, dash, last = (part.strip() for part in text.partition("-"))
    try:
        if not dash:
            if "/" not in text:
                return "is neither a range nor a network", right
            ipaddress.ip_network(text)
            return None
        low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    except ValueError as error:
        return f"is no range of addresses: {error}", right
    if low.version != high.version:
        return "mixes IPv4 and IPv6", right
    return ("ends before it begins", right) if int(low) > int(high) else None


def between(low: float, high: float | None = None, unit: str = "") -> Rule:
    def rule(value):
        number = float(value)
        words = f"from {low} to {high}" if high is not None else f"of {low} or more"
        if number < low or (high is not None and number > high):
            kind = "below" if number < low else "above"
            limit = low if number < low else high
            return f"is {kind} {limit}", f"Set it to a number {words}{' ' + unit if unit else ''}."
        return None

    return rule


port = between(1, 65535)


def node_port(value) -> Problem:
    return None if int(value) == 0 else port(value)


def url(*schemes: str, path: bool = True, port: bool = True) -> Rule:
    words = " or ".join(f"{scheme}://" for scheme in schemes)
    right = f"Write the whole address, beginning with {words}."

    def rule(value):
        text = str(value)
        if any(character.isspace() for character in text):
            return "has a blank in it", right
        if not text.isascii():
            return _strange(text, r"[\x21-\x7e]"), right
        try:
            parts = urlsplit(text)
            given = parts.port
        except ValueError as error:
            return f"is no address: {error}", right
        if "://" not in text:
            return "has no scheme", right
        if parts.scheme not in schemes:
            return f"has the scheme {parts.scheme}", right
        if parts.scheme != "file" and not parts.hostname:
            return "names no host", right
        if parts.username or parts.password:
            return "carries a user or password", "Leave them out: addresses are shown in logs and kept in releases."
        if given is not None and not port:
            return f"has the port {given}", "Leave the port out here: it has a variable of its own."
        if not path and parts.path.strip("/"):
            return f"has the path {parts.path}", "Leave the path out."
        return None

    return rule


_SEMVER = r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?"


def chart_version(value) -> Problem:
    """One exact version: a range would bring another chart some day."""
    if re.fullmatch(_SEMVER, str(value)):
        return None
    return "is no exact version", "Write all three numbers, such as 41.3.0: ranges, words and parts are not pinned."


def chart_digest(value) -> Problem:
    """What a chart's archive is held against."""
    if str(value).strip() == chart_sources.INDEX or chart_sources.is_digest(str(value)):
        return None
    return (
        "is no SHA-256",
        f"Write the 64 hexadecimal digits that sha256sum prints for the chart's tgz file, or {chart_sources.INDEX}.",
    )


def helm_version(value) -> Problem:
    if not re.fullmatch(_SEMVER, str(value)) or str(value).startswith("v"):
        return "is no exact version", "Write all three numbers, without v, such as 3.17.3."
    if not str(value).startswith("3."):
        return "is a Helm that the roles don't work with", "Take a version of Helm 3, such as 3.17.3."
    return None


def driver_version(value) -> Problem:
    if re.fullmatch(r"\d{3,4}(\.\d{1,3}){1,2}", str(value)):
        return None
    return "is no version of NVIDIA's driver", "Write it whole, such as 580.159.04."


def package_version(value) -> Problem:
    if re.fullmatch(r"[0-9][A-Za-z0-9.+~:-]*", str(value)):
        return None
    return "is no version of a package", "Write it as the package has it, such as 1.20.0-1."


def sha256(value) -> Problem:
    if re.fullmatch(r"[0-9a-fA-F]{64}", str(value)):
        return None
    return "is no SHA-256", "Write the 64 hexadecimal digits that sha256sum prints, nothing else."


def fingerprint(value) -> Problem:
    """Of an OpenPGP key of version 4, whole: short ones can be forged."""
    if re.fullmatch(r"[0-9a-fA-F]{40}", str(value)):
        return None
    return "is no fingerprint of a key", "Write the 40 hexadecimal digits that gpg --show-keys prints, without blanks."


def image(value) -> Problem:
    """Image without tag: registry, path; lowercase."""
    text, right = str(value), "Write registry and path alone, such as nvcr.io/nvidia/riva/riva-speech."
    if "://" in text:
        return "has a scheme", right
    last = text.rsplit("/", 1)[-1]
    if ":" in last or "@" in last:
        return "has a tag or digest", f"{right} The tag has a variable of its own."
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", text):
        return _strange(text, r"[a-z0-9./:_-]") or "is no image", right
    return None


def image_tag(value) -> Problem:
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", str(value)):
        return None
    return "is no tag of an image", "A tag has up to 128 letters, digits, dots, - and _, such as 2.19.0."


def model(value) -> Problem:
    if re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){1,2}:[A-Za-z0-9][A-Za-z0-9._-]*", str(value)):
        return None
    return (
        "is no NGC reference of a model",
        "Write organisation, model and version, such as nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0.",
    )


_QUANTITY = r"\d+(\.\d+)?([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?"


def bucket_path(value) -> Problem:
    if "://" in value:
        return "has a scheme", "bucket and folder alone, such as speech/a100; the server is its endpoint"
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]+(/[^/]+)*", value):
        return "names no bucket and folder", "something like speech/a100, without / at its ends"
    return None


def quantity(value) -> Problem:
    text = str(value)
    if re.fullmatch(_QUANTITY, text) and any(digit in text for digit in "123456789"):
        return None
    return "is no quantity of Kubernetes", "Write a number with a unit, such as 50Gi or 500m."


def resources(value) -> Problem:
    for kind, entries in value.items():
        if kind not in ("requests", "limits", "claims"):
            return f"has the key {kind}", "It has requests and limits, such as {requests: {cpu: 100m}}."
        for name, amount in (entries or {}).items() if isinstance(entries, dict) else ():
            wrong = quantity(amount)
            if wrong:
                return f"has {kind}.{name} {amount!r}, which {wrong[0]}", wrong[1]
    return None


def absolute_path(value) -> Problem:
    text = str(value)
    if "\0" in text or not text.startswith("/"):
        return "is no absolute path", "Write the whole path, beginning with /."
    if text.rstrip("/") in ("", "/etc", "/usr", "/bin", "/var", "/root", "/proc", "/sys", "/dev", "/boot"):
        return "is a folder of the system", "Take a folder of its own, such as /var/lib/riva."
    if "/../" in text + "/":
        return "goes up with ..", "Write the path without .. in it."
    return None


def resource_name(value) -> Problem:
    if re.fullmatch(r"[a-z0-9.-]+/[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", str(value)):
        return None
    return "is no resource of a node", "Write it with its domain, such as nvidia.com/gpu."


def labels(value) -> Problem:
    for key, text in value.items():
        if not isinstance(text, str):
            return f"has {key} set to {text!r}", "Put it in quotes: values of labels are text."
        name = str(key).rsplit("/", 1)[-1]
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", name):
            return f"has the key {key!r}", "A label's name has up to 63 letters, digits, -, _ and dots."
        if text and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
            return f"has {key} set to {text!r}", "A label's value has up to 63 letters, digits, -, _ and dots."
    return None


def header_name(value) -> Problem:
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", str(value)):
        return None
    return "is no name of a header", "Use letters, digits and -, such as x-language."


# Names under which secrets are usually handed on, at the end of a key.
_SECRET_NAME = re.compile(
    r"(password|passwd|secret|token|api_?key|deploy_?key|secret_?key|private_?key)$", re.IGNORECASE
)


def names_a_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(str(name)))


def environment(value) -> Problem:
    """Variables of a container: plain values, and no secrets, since a release keeps them readable."""
    for name, content in value.items():
        if not re.fullmatch(r"[A-Za-z_.-][A-Za-z0-9_.-]*", str(name)):
            return f"has the name {name!r}", "Names have letters, digits and _, and do not begin with a digit."
        if isinstance(content, dict | list) or content is None:
            return (
                f"has {name}, which is no plain value",
                "Write a text or a number; for valueFrom use extraEnv of the chart in values.",
            )
        if names_a_secret(name) and str(content):
            return (
                f"has {name}, which looks like a secret; Helm would keep it readable",
                "Put it into a Secret, and name that in values: {extraEnv: [{name: "
                + str(name)
                + ", valueFrom: {secretKeyRef: {name: my-secret, key: key}}}]}.",
            )
    return None


_EXAMPLES = re.compile(
    r"change[-_ ]?me.*|secret|password|passw0rd|example.*|your[-_ ].*|.*[-_ ](your|example|here)\b.*"
    r"|(my[-_ ]?)?(api[-_ ]?)?key|<.*>|\$\{?\w+\}?|(nvapi-?)?[x*.?]{3,}|nvapi-?|todo|tbd|fixme|placeholder"
    r"|none|null|true|false|test|dummy|n/?a",
    re.IGNORECASE,
)


def secret(value) -> Problem:
    """A key as a vault, the environment or a lookup hands it on. What it is, is never said."""
    text = str(value)
    if not text:
        return None
    if text.startswith("$ANSIBLE_VAULT"):
        return (
            "is still encrypted",
            "Keep it in a vaulted file, or write !vault | before it.",
        )
    if text != text.strip() or any(character.isspace() for character in text):
        return (
            "has blanks or line ends in it",
            "Copy the key again, as one line without blanks.",
        )
    if not text.isascii():
        return (
            "has characters beyond ASCII in it",
            "Copy the key again: quotes or dashes may be typographic.",
        )
    if _EXAMPLES.fullmatch(text):
        return (
            "is an example's or a placeholder's text",
            "Set it to the real key, from a vault, or leave it out.",
        )
    return None


def license_text(value) -> Problem:
    """The client configuration token of a licence server: a signed token of three parts."""
    text = str(value).strip()
    if not text:
        return None
    if text.startswith("$ANSIBLE_VAULT"):
        return secret(text)
    if len(text) < 20 or _EXAMPLES.fullmatch(text):
        return "is an example's or a placeholder's text", "Set it to the text of the .tok file, from a vault."
    return None
