# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""A client from a plain kubeconfig: one file, a server with its CA, a client certificate or a token.

That is what kubeadm, k3s, RKE2 and kind write. The kubernetes library takes a third of a second and 35 MB to load, as
much as reading a thousand nodes, so it is left to what needs it: anything else, and anything that is wrong, which it
then says. The private key is on disk only while it is loaded.
"""

import base64
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import urllib3
import yaml

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
CLUSTER_KEYS = {"server", "certificate-authority", "certificate-authority-data", "extensions"}
USER_KEYS = {"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token"}
CONTEXT_KEYS = {"cluster", "user", "namespace", "extensions"}


class NotPlain(Exception):
    """Something that is left to the kubernetes library."""


class PlainClient:
    """As much of the kubernetes library's ApiClient as the door and its users need."""

    def __init__(self, host: str, context: ssl.SSLContext, token: str, certificate: str) -> None:
        self.configuration = SimpleNamespace(host=host)
        self.default_headers = {"User-Agent": "speechops.riva"}
        pool = urllib3.PoolManager(ssl_context=context, cert_reqs="CERT_REQUIRED", retries=False)
        self.rest_client = SimpleNamespace(pool_manager=pool)
        self.token = token
        self.certificate = certificate

    def update_params_for_auth(self, headers, _fields, _settings) -> None:
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"


def plain_client(params: Mapping, options: Sequence[str], environment: Mapping = os.environ) -> PlainClient | None:
    """The client, or None where anything at all is not plain. `options` are all options of authentication."""
    try:
        path, context = asked_for(params, options, environment)
        return client_of(path, context)
    except (NotPlain, OSError, LookupError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return None


def asked_for(params: Mapping, options: Sequence[str], environment: Mapping) -> tuple[Path, str | None]:
    """(path, context) if nothing but these two is set."""
    path, context = params.get("kubeconfig"), params.get("context")
    if any(params.get(option) is not None for option in options if option not in ("kubeconfig", "context")):
        raise NotPlain
    if any(environment.get(name) for name in PROXIES) or any(name.startswith("K8S_AUTH_") for name in environment):
        raise NotPlain
    if not path or not isinstance(path, str) or os.pathsep in path:
        raise NotPlain
    return Path(path).expanduser(), context


def client_of(path: Path, wanted: str | None) -> PlainClient:
    config = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    context = only(entry(config, "contexts", "context", wanted or config["current-context"]), CONTEXT_KEYS)
    cluster = only(entry(config, "clusters", "cluster", context["cluster"]), CLUSTER_KEYS)
    user = only(entry(config, "users", "user", context["user"]), USER_KEYS)
    token = user.get("token") or ""
    if not str(cluster["server"]).startswith("https://") or not isinstance(token, str):
        raise NotPlain
    authority = content(cluster, "certificate-authority", path.parent)
    certificate = content(user, "client-certificate", path.parent)
    key = content(user, "client-key", path.parent)
    if not authority or bool(certificate) != bool(key) or not (certificate or token):
        raise NotPlain
    return PlainClient(cluster["server"].rstrip("/"), tls(authority, certificate, key), token, certificate)


def entry(config: Mapping, kind: str, part: str, name: str) -> Mapping:
    """The one entry of this name."""
    (found,) = [item[part] for item in config.get(kind) or () if item["name"] == name]
    return found


def only(part: Mapping, keys: set[str]) -> Mapping:
    if not isinstance(part, Mapping) or not set(part) <= keys:
        raise NotPlain
    return part


def content(part: Mapping, name: str, folder: Path) -> str:
    """The PEM text, in the kubeconfig itself or in a file beside it; empty if there is neither."""
    if part.get(f"{name}-data"):
        return base64.b64decode(part[f"{name}-data"]).decode("ascii")
    return (folder / part[name]).read_text(encoding="ascii") if part.get(name) else ""


def tls(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    context = urllib3.util.ssl_.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.load_verify_locations(cadata=authority)
    if certificate:
        # OpenSSL reads these from files only; the folder is ours alone.
        with tempfile.TemporaryDirectory(prefix="speechops-riva-") as name:
            both = Path(name) / "client.pem"
            both.write_text(f"{certificate}\n{key}\n")
            context.load_cert_chain(both)
    return context
