# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The one door to a cluster's API: authentication, paging, retries, one deadline,
errors that say what to do.

Only reading goes through here. kubernetes.core builds the configuration (its options, its environment
variables); the requests are sent on the client's own connection pool and read as plain JSON, or as protobuf where a
list of a built-in kind may be large:

- kubernetes.core's get_api_client asks for /version and /apis first, without a time limit and without
  retries, so a silent server would hold the module for ever. Only its configuration is used.
- ApiClient.call_api changed its signature in kubernetes 36, and hides a TLS error behind an AttributeError.
- urllib3 would sleep through Retry-After by itself, past every deadline: its retries are off.
"""

import copy
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.speechops.riva.plugins.module_utils import light_kubernetes, protobuf
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import (
    BadAnswer,
    Busy,
    CertificateError,
    ClusterError,
    DeadlineExceeded,
    Expired,
    Forbidden,
    KubeconfigError,
    NotFound,
    Silent,
    Unauthorized,
    Unavailable,
    Unreachable,
    certificate_end,
    is_page,
    one_line,
    page_text,
    permission_of,
    seconds_of,
    status_message,
    tls_reason,
    usual,
)
from ansible_collections.speechops.riva.plugins.module_utils.kubeconfig import (
    check_files,
    check_kubeconfig,
    reveal_kubeconfig_path,
)

try:
    from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
except ImportError:  # pragma: no cover - said by connect()
    AUTH_ARG_SPEC = {}

try:
    light_kubernetes.prepare()
    import urllib3
    from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import (
        _create_auth_spec,
        _create_configuration,
        _create_headers,
    )
    from kubernetes.client import ApiClient
    from kubernetes.config import ConfigException

    MISSING_LIBRARY = None
except ImportError as error:  # pragma: no cover - said by connect()
    MISSING_LIBRARY = error

CONNECT_SECONDS = 10
# Longer than the apiserver waits for a backend behind it; a body that stands still this long is given up.
READ_SECONDS: float = 35
ATTEMPTS = 6
MOST_SILENCES = 2
LIST_STARTS = 5
FIRST_PAUSE = 0.1
PAGE = 250
# With the fields of a built-in kind, memory does not grow with the page.
LONG_PAGE = 500
CHUNK = 1 << 18
# https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
ONLY_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
RETRIED = (429, 500, 502, 503, 504)


class Deadline:
    """One moment after which nothing is waited for any more."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self.end = clock() + seconds

    def left(self) -> float:
        return max(self.end - self.clock(), 0.0)

    def passed(self) -> bool:
        return self.left() <= 0


def auth_argument_spec() -> dict:
    """kubernetes.core's authentication options."""
    return copy.deepcopy(AUTH_ARG_SPEC)


def connect(module, deadline: Deadline) -> Cluster:
    """The door to the cluster that the module's authentication options name."""
    if MISSING_LIBRARY is not None:
        name = getattr(MISSING_LIBRARY, "name", None) or "kubernetes"
        raise KubeconfigError(missing_required_lib(name.split(".")[0]), "install the collection's requirements")
    reveal_kubeconfig_path(module)
    check_kubeconfig(module.params)
    try:
        configuration = _create_configuration(_create_auth_spec(module))
        configuration.retries = False  # On the pool as well, for a module that sends a request of its own.
        client = ApiClient(configuration)
        headers = {**client.default_headers, **_create_headers(module)}
    except ConfigException as error:
        raise KubeconfigError(
            f"the kubeconfig can't be used: {one_line(error)}",
            "check cluster_kubeconfig and cluster_context; kubectl config get-contexts lists what is there",
        ) from error
    except Exception as error:  # A malformed file fails in as many ways as there are parsers below.
        raise KubeconfigError(
            f"the kubeconfig can't be read ({type(error).__name__}: {one_line(error)})",
            "check that the file is a whole kubeconfig: kubectl --kubeconfig FILE config view",
        ) from error
    check_files(configuration)
    return Cluster(client, deadline, headers)


class NextPage:
    """The request for the page after this one, sent as soon as its token is known: the API server makes that page while
    this one is still being read. What was not fetched yet waits in the connection, not in memory."""

    def __init__(self, send: Callable[[Mapping], urllib3.HTTPResponse]) -> None:
        self.send = send
        self.pool = ThreadPoolExecutor(1)
        self.query: dict = {}
        self.sent: Future | None = None

    def ask(self, query: Mapping) -> Future:
        if self.sent is None or self.query != query:
            self.drop()
            self.query, self.sent = dict(query), self.pool.submit(self.send, dict(query))
        return self.sent

    def answer(self, query: Mapping) -> urllib3.HTTPResponse:
        """The answer to this query, or the error of its request; asked for now if it was not before."""
        sent, self.sent = self.ask(query), None
        return sent.result()

    def drop(self) -> None:
        sent, self.sent = self.sent, None
        if sent is not None and not sent.cancel():
            sent.add_done_callback(lambda done: done.exception() or done.result().close())

    def close(self) -> None:
        self.drop()
        self.pool.shutdown(wait=False)


class Cluster:
    """GETs of one cluster within one deadline."""

    def __init__(
        self,
        client: ApiClient,
        deadline: Deadline,
        headers: Mapping | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self.deadline = deadline
        self.headers = dict(headers or {})
        self.sleep = sleep
        self.host = client.configuration.host.rstrip("/")
        self.date: str | None = None

    def get(
        self,
        path: str,
        query: Mapping | None = None,
        listing: bool = False,
        text: bool = False,
        accept: str = "application/json",
    ):
        """The JSON (or text) behind a path. What may pass is tried again; the rest is an error of this file."""

        def take(_response, chunks: Iterator[bytes]):
            body = b"".join(chunks)
            return body.decode("utf-8", "replace") if text else self.parsed(path, body)

        return self.retried(lambda: self.received(path, self.send(path, query, accept), take, listing))

    def find(self, path: str, metadata_only: bool = False) -> dict | None:
        """The object behind a path, or its metadata; None where there is none."""
        try:
            return self.get(path, accept=ONLY_METADATA) if metadata_only else self.get(path)
        except NotFound:
            return None

    def find_all(self, path: str, *arguments, **options) -> list | None:
        """All items of a collection, as `list_all` has them; None where the cluster does not know the kind."""
        try:
            return self.list_all(path, *arguments, **options)
        except NotFound:
            return None

    def keys_of_secret(self, namespace: str, name: str) -> set[str] | None:
        """The keys of a Secret that have a value; None where there is no such Secret."""
        secret = self.find(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return None if secret is None else {key for key, value in (secret.get("data") or {}).items() if value}

    def retried(self, ask: Callable):
        errors: list[ClusterError] = []
        while True:
            try:
                return ask()
            except ClusterError as error:
                errors.append(error)
                if not error.transient or isinstance(error, Expired | DeadlineExceeded):
                    raise
                # A silence of half a minute is not asked for six times.
                silences = sum(isinstance(entry, Silent) for entry in errors)
                if len(errors) == ATTEMPTS or silences == MOST_SILENCES:
                    raise usual(errors) from error
                self.pause(error.retry_after, len(errors), error)

    def pause(self, retry_after: float | None, attempt: int, error: ClusterError) -> None:
        seconds = retry_after if retry_after is not None else FIRST_PAUSE * 2 ** (attempt - 1)
        if seconds >= self.deadline.left():
            raise self.too_late(f"last answer: {error}", error.remedy) from error
        self.sleep(seconds)

    def too_late(self, last: str, remedy: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no answer from {self.host} within {self.deadline.seconds:g} s ({last})",
            remedy or "check the API server, or give more time (wait_timeout)",
        )

    def now(self) -> datetime:
        """The API server's clock, to the second; ours may be wrong. Before the first answer it is ours."""
        try:
            return parsedate_to_datetime(self.date or "")
        except ValueError:
            return datetime.now(UTC)

    def list_all(
        self,
        path: str,
        project: Callable[[Mapping], object] = lambda item: item,
        query: Mapping | None = None,
        page: int | None = None,
        fields: protobuf.Fields | None = None,
    ) -> list:
        """All items of a collection as they were at one moment, projected as they come in.

        Memory holds one page and what is kept; with the `fields` of a built-in kind, one item and what is kept.
        `project` has no side effects: after a fault it sees the same items again.
        """
        size = page or (LONG_PAGE if fields else PAGE)
        for start in range(LIST_STARTS):
            try:
                return self.read_pages(path, project, dict(query or {}), size, fields)
            except Expired as error:
                if start == LIST_STARTS - 1:
                    raise
                self.pause(None, start + 1, error)
        raise AssertionError("unreachable")

    def read_pages(self, path: str, project: Callable, query: dict, page: int, fields: protobuf.Fields | None) -> list:
        query["limit"] = page
        accept = "application/json" if fields is None else f"{protobuf.CONTENT_TYPE},application/json"
        found: list = []
        version = None
        pages = NextPage(partial(self.send, path, accept=accept))
        read = partial(self.read_page, path, query, project, fields, pages)
        try:
            while True:
                kept, metadata = self.retried(read)
                # Another API server behind this address may not know the moment, and must not answer with its own.
                if version not in (None, metadata.get("resourceVersion")):
                    raise Expired(f"{path}: the pages of the list are of different moments", "try again")
                version = metadata.get("resourceVersion")
                found += kept
                if not metadata.get("continue"):
                    return found
                query["continue"] = metadata["continue"]
        finally:
            pages.close()

    def read_page(
        self, path: str, query: Mapping, project: Callable, fields: protobuf.Fields | None, pages: NextPage
    ) -> tuple[list, Mapping]:
        """(what is kept of the items, metadata of the list) of one page, whole or not at all."""

        def take(response, chunks: Iterator[bytes]) -> tuple[list, Mapping]:
            metadata: dict = {}
            if fields is not None and protobuf.CONTENT_TYPE in response.headers.get("Content-Type", ""):
                items = protobuf.read_list(chunks, fields, metadata)
            else:
                items = self.json_items(path, b"".join(chunks), metadata)
            kept: list = []
            try:
                for item in items:
                    # A list's metadata comes before its items.
                    if not kept and metadata.get("continue"):
                        pages.ask({**query, "continue": metadata["continue"]})
                    kept.append(project(item))
            except protobuf.Malformed as error:
                raise BadAnswer(
                    f"{self.host}{path} answered with a broken list ({error})",
                    "check what answers at that address (a proxy?)",
                    "NotWhole",
                    200,
                ) from error
            return [entry for entry in kept if entry is not None], metadata

        return self.received(path, pages.answer(query), take, True)

    def json_items(self, path: str, body: bytes, metadata: dict) -> Iterator[dict]:
        answer = self.parsed(path, body)
        items = answer.get("items", ()) if isinstance(answer, dict) else False
        items = () if items is None else items
        if not isinstance(items, list | tuple):
            raise BadAnswer(f"{path} answered with no list", "check what answers at the API server's address")
        if isinstance(answer.get("metadata"), dict):
            metadata.update(answer["metadata"])
        return (item for item in items if isinstance(item, dict))

    def parsed(self, path: str, body: bytes):
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(
                f"{self.host}{path} answered with something that is no JSON ({one_line(body[:80])})",
                "check what answers at that address (a proxy, a login page?)",
                "NotJson",
                200,
            ) from error

    def once(self, path: str, query: Mapping | None, take: Callable, listing: bool = False):
        """One request, no retry. `take` makes the result of the answer and the pieces of its body."""
        return self.received(path, self.send(path, query), take, listing)

    def authenticate(self, headers: MutableMapping, fields: list, path: str, method: str) -> None:
        """Put the token in, as the kubernetes library does; from its version 37 on it wants to know the request too."""
        put_in = self.client.update_params_for_auth
        more = (path, method, None) if "resource_path" in inspect.signature(put_in).parameters else ()
        put_in(headers, fields, ["BearerToken"], *more)

    def send(self, path: str, query: Mapping | None, accept: str = "application/json") -> urllib3.HTTPResponse:
        """The answer to one request, of which nothing but the headers is read."""
        left = self.deadline.left()
        if left <= 0:
            raise self.too_late("nothing was asked any more")
        headers, fields = self.request_headers(), list((query or {}).items())
        if "Accept" not in headers:
            headers["Accept"] = accept
        self.authenticate(headers, fields, path, "GET")
        url = self.host + quote(path, safe="/:*~")
        if fields:
            url += "?" + urlencode(fields)
        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, left), read=min(READ_SECONDS, left))
        try:
            return self.client.rest_client.pool_manager.request(
                "GET",
                url,
                headers=headers,
                timeout=timeout,
                retries=False,
                preload_content=False,
                redirect=False,
            )
        except Exception as error:
            raise self.connection_error(error, path) from error

    def received(self, path: str, response: urllib3.HTTPResponse, take: Callable, listing: bool):
        """What `take` makes of the answer; an error of this file where it is none of success."""
        try:
            chunks = self.chunks_of(response, path)
            if response.status != 200:
                raise self.http_error(response, b"".join(chunks), path, listing)
            result = take(response, chunks)
            # To its very end, or the connection can't serve the next request.
            for _rest in chunks:
                pass
        except BaseException:
            # What is left of the answer would be read as the next one's beginning.
            response.close()
            raise
        response.release_conn()
        self.date = response.headers.get("Date") or self.date
        return result

    def apply(self, path: str, item: Mapping | str, manager: str, dry_run: bool = False) -> dict:
        """Server-side apply of one object (or its YAML); what the apiserver made of it. Nothing is tried again."""
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self.patched(path, item, "application/apply-patch+yaml", query)

    def annotate(self, path: str, annotations: Mapping[str, str], manager: str) -> dict:
        """One object with these annotations beside its own; what the apiserver made of it. Nothing is tried again."""
        patch = {"metadata": {"annotations": dict(annotations)}}
        return self.patched(path, patch, "application/merge-patch+json", {"fieldManager": manager})

    def patched(self, path: str, patch: Mapping | str, kind: str, query: Mapping) -> dict:
        headers = self.request_headers()
        headers["Content-Type"] = kind
        headers["Accept"] = "application/json"
        self.authenticate(headers, [], path, "PATCH")
        try:
            response = self.client.rest_client.pool_manager.request(
                "PATCH",
                f"{self.host}{path}?{urlencode(query)}",
                headers=headers,
                body=(patch if isinstance(patch, str) else json.dumps(patch)).encode(),
                timeout=max(self.deadline.left(), 1),
                retries=False,
            )
        except Exception as error:
            raise self.connection_error(error, path) from error
        if response.status not in (200, 201):
            raise self.http_error(response, response.data, path, False)
        return json.loads(response.data)

    def request_headers(self) -> urllib3.HTTPHeaderDict:
        """The headers of one request; a list (Impersonate-Group) becomes one header for each value."""
        headers = urllib3.HTTPHeaderDict()
        for name, value in self.headers.items():
            for single in value if isinstance(value, list) else [value]:
                headers.add(name, single)
        return headers

    def chunks_of(self, response, path: str) -> Iterator[bytes]:
        """The body piece by piece; a trickle can't outlive the deadline, as a time limit per read would let it."""
        # read1 returns what is there; read waits until its amount is full. urllib3 before 2.1 has read only.
        read = getattr(response, "read1", None) or response.read
        while True:
            try:
                part = read(CHUNK)
            except Exception as error:
                raise self.connection_error(error, path) from error
            if not part:
                return
            if self.deadline.passed():
                raise self.too_late("the answer was still coming in")
            yield part

    def connection_error(self, error: Exception, path: str) -> ClusterError:
        text = one_line(f"{type(error).__name__}: {error}")
        if isinstance(error, urllib3.exceptions.SSLError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return CertificateError(
                f"the TLS connection to {self.host} failed: {tls_reason(text)}",
                "compare the certificates in the kubeconfig (and their dates) with the cluster's CA",
            )
        if isinstance(error, OSError) and not isinstance(error, urllib3.exceptions.HTTPError | ConnectionError):
            return KubeconfigError(
                f"a file named in the kubeconfig or the options can't be used: {text}",
                "check ca_cert, client_cert and client_key",
            )
        timeout = isinstance(error, urllib3.exceptions.ReadTimeoutError)
        if self.deadline.passed():
            return self.too_late(f"{path}: {text}")
        if timeout:
            return Silent(
                f"no answer from {self.host} ({path}: {text})",
                "look at the API server, and at what serves this path behind it",
            )
        return Unreachable(
            f"the API server {self.host} is not reachable ({path}: {text})",
            "check that the API server runs, the address in the kubeconfig, and the network or proxy between",
        )

    def http_error(self, response, body: bytes, path: str, listing: bool) -> ClusterError:
        message, reason = status_message(body)
        where = f"{path}: {message}" if message else path
        if response.status == 401:
            # A certificate that has expired passes the handshake and is refused here, without a word about why.
            end = certificate_end(getattr(self.client.configuration, "cert_file", None))
            if end and end < self.now():
                return Unauthorized(
                    f"the client certificate in the kubeconfig has expired ({end:%Y-%m-%d %H:%M} UTC;"
                    f" {self.host} answers 401)",
                    "renew it (kubeadm certs renew, or whoever gave out the kubeconfig)",
                    reason,
                )
            return Unauthorized(
                f"{self.host} does not accept these credentials (401, {where})",
                "renew the token or client certificate in the kubeconfig",
                reason,
            )
        if response.status == 403:
            permission = permission_of(path, listing)
            return Forbidden(
                f"the caller lacks the permission: {permission} (403, {one_line(message)})",
                f"grant it with a Role or ClusterRole: {permission}",
                reason,
            )
        if response.status == 404:
            return NotFound(f"{where} (404)", "", reason)
        if response.status == 410:
            return Expired(f"{where} (410)", "try again", reason)
        if response.status in (502, 503, 504) and is_page(body) and "/proxy/" not in path:
            # Nothing in the cluster writes such a page: it says nothing of the server behind the path.
            error: ClusterError = Unreachable(
                f"the API server {self.host} is not reachable, what stands before it answers {response.status}"
                f" ({path}: {page_text(message)})",
                "check that the API server runs, and the load balancer or proxy before it",
            )
        elif response.status == 429 and "/proxy/" not in path:
            error = Busy(f"the API server is too busy: {where} (429)", "try again, or look at its load", reason)
        elif response.status == 503:
            error = Unavailable(
                f"{where} (503)",
                "look at what serves this path: its pods, its Service, its endpoints",
                reason,
            )
        else:
            error = BadAnswer(
                f"{where} (HTTP {response.status})", "look at the API server's log", reason, response.status
            )
            error.transient = response.status in RETRIED
        error.retry_after = seconds_of(response.headers.get("Retry-After"))
        return error
