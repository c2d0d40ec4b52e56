"""A small client of the Kubernetes API for programs in a pod.

The stand-ins run many small processes on few nodes. The usual client takes 60 MB and a second of CPU for each; this one
has what they need, from the standard library.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
METADATA_ONLY = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"


class ApiError(Exception):
    """The API answered with an error."""

    def __init__(self, method: str, path: str, code: int, message: str) -> None:
        super().__init__(f"{method} {path}: {code} {message}")
        self.code = code


class Kube:
    """Requests to the API server, as the pod's service account."""

    def __init__(self, timeout: float = 30) -> None:
        self.host = os.environ["KUBERNETES_SERVICE_HOST"]
        self.port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        self.timeout = timeout
        self._tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str], timeout: float
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self._tls)
        try:
            # The kubelet renews the token's file: read it each time.
            token = (ACCOUNT / "token").read_text().strip()
            payload = None if body is None else json.dumps(body)
            connection.request(
                method, path, payload, {"Accept": "application/json", **headers, "Authorization": f"Bearer {token}"}
            )
            response = connection.getresponse()
            if response.status >= 400:
                text = response.read().decode(errors="replace")
                try:
                    text = json.loads(text)["message"]
                except (ValueError, KeyError, TypeError):
                    text = text[:300]
                raise ApiError(method, path, response.status, text)
        except BaseException:
            connection.close()
            raise
        return connection, response

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        connection, response = self._send(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}, self.timeout
        )
        try:
            return json.loads(response.read())
        finally:
            connection.close()

    def get(self, path: str) -> dict[str, Any] | None:
        """Return an object, or None if there is none."""
        try:
            return self.request("GET", path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def merge(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        return self.request("PATCH", path, change, Content_Type="application/merge-patch+json")

    def apply(self, path: str, wanted: dict[str, Any], manager: str) -> dict[str, Any]:
        """Create the object or make it as wanted; an object that is so already is not written."""
        return self.request(
            "PATCH", f"{path}?fieldManager={manager}&force=true", wanted, Content_Type="application/apply-patch+yaml"
        )

    def delete(self, path: str) -> None:
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.code != 404:
                raise

    def list(self, path: str, metadata_only: bool = False) -> dict[str, Any]:
        """List objects. A list of metadata says `null`, not `[]`, where there is none: that is put right here."""
        accept = {"Accept": METADATA_ONLY.format("List")} if metadata_only else {}
        listed = self.request("GET", path, **accept)
        return {**listed, "items": listed.get("items") or []}

    def watch(
        self, path: str, version: str, seconds: int = 300, metadata_only: bool = False
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (kind of event, object) until the server ends the watch, which it does after ``seconds``."""
        query = urlencode({"watch": 1, "resourceVersion": version, "timeoutSeconds": seconds})
        accept = {"Accept": METADATA_ONLY.format("")} if metadata_only else {}
        separator = "&" if "?" in path else "?"
        connection, response = self._send("GET", f"{path}{separator}{query}", None, accept, seconds + 30)
        try:
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise ApiError("WATCH", path, status.get("code", 500), status.get("message", ""))
                yield event["type"], event["object"]
        finally:
            connection.close()
