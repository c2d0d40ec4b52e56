# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import datetime
import ssl
import time
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import cluster_errors
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NODES = "/api/v1/nodes"


def connect(url, seconds=20.0, **options):
    module = SimpleNamespace(params={"host": url, "api_key": "a-token", **options}, no_log_values=set())
    cluster = door.connect(module, door.Deadline(seconds))
    cluster.sleep = Mock()
    return cluster


def page(query, _count, total=7):
    """Pages of the size asked for, with a token that says where the next one starts."""
    start, size = int(query.get("continue", 0)), int(query["limit"])
    items = [{"metadata": {"name": f"n{i}"}} for i in range(start, min(start + size, total))]
    rest = str(start + size) if start + size < total else ""
    return {"items": items, "metadata": {"continue": rest}}


def test_a_list_is_read_page_by_page(api):
    api.routes[NODES] = page
    names = connect(api.url).list_all(NODES, lambda item: item["metadata"]["name"], {"labelSelector": "a=b"}, page=3)
    assert names == [f"n{i}" for i in range(7)]
    assert [query.get("continue") for query in api.asked(NODES)] == [None, "3", "6"]
    assert {query["labelSelector"] for query in api.asked(NODES)} == {"a=b"}


def test_the_next_page_is_asked_for_while_one_is_read(api):
    api.routes[NODES] = page
    asked = []

    def project(item):
        until = time.monotonic() + 5
        while len(api.asked(NODES)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        asked.append(len(api.asked(NODES)))
        return item["metadata"]["name"]

    names = connect(api.url).list_all(NODES, project, page=4)
    assert names == [f"n{i}" for i in range(7)]
    assert asked == [2] * 7


def test_a_page_that_was_asked_for_too_early_is_asked_for_again(api):
    api.routes[NODES] = lambda query, count: (503, {"message": "later"}) if count == 2 else page(query, count)
    cluster = connect(api.url)
    assert len(cluster.list_all(NODES, page=3)) == 7
    assert [query.get("continue") for query in api.asked(NODES)] == [None, "3", "3", "6"]
    assert cluster.sleep.mock_calls == [call(door.FIRST_PAUSE)]


def test_an_answer_that_nobody_wants_any_more_is_closed():
    answers = {}

    def send(query):
        return answers.setdefault(query["continue"], SimpleNamespace(close=lambda: closed.append(query)))

    closed = []
    pages = door.NextPage(send)
    pages.ask({"continue": "a"})
    pages.ask({"continue": "a"})
    assert pages.answer({"continue": "b"}) is answers["b"]
    pages.ask({"continue": "c"})
    pages.close()
    pages.pool.shutdown(wait=True)
    wanted = [entry for entry in closed if entry["continue"] != "b"]
    assert wanted == closed
    assert {entry["continue"] for entry in closed} == set(answers) - {"b"}


def test_the_token_is_sent_and_impersonation_too(api):
    api.routes[NODES] = {"items": []}
    connect(api.url, impersonate_user="jane", impersonate_groups=["a", "b"]).list_all(NODES)
    headers = api.requests[0][2]
    assert headers["authorization"] == "Bearer a-token"
    assert headers["Impersonate-User"] == "jane"


def test_an_expired_token_starts_the_list_again(api):
    def expires_once(query, count):
        return (410, {"message": "too old"}) if count == 2 else page(query, count)

    api.routes[NODES] = expires_once
    assert len(connect(api.url).list_all(NODES, page=3)) == 7
    assert [query.get("continue") for query in api.asked(NODES)] == [None, "3", None, "3", "6"]


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(api, code):
    api.routes["/x"] = lambda _query, count: (code, {"message": "later"}) if count < 3 else {"fine": True}
    assert connect(api.url).get("/x") == {"fine": True}
    assert len(api.requests) == 3


def test_retry_after_is_obeyed(api):
    api.routes["/x"] = lambda _query, count: (503, {}, {"Retry-After": "3"}) if count == 1 else {"fine": True}
    cluster = connect(api.url)
    assert cluster.get("/x") == {"fine": True}
    assert cluster.sleep.mock_calls == [call(3.0)]


def test_retry_after_beyond_the_deadline_is_not_waited_for(api):
    api.routes["/x"] = (429, {"message": "slow down"}, {"Retry-After": "3600"})
    with pytest.raises(cluster_errors.DeadlineExceeded, match="slow down"):
        connect(api.url).get("/x")
    assert len(api.requests) == 1


def test_the_pool_does_not_retry_by_itself(api):
    api.routes["/x"] = lambda _query, count: (503, {}, {"Retry-After": "3"}) if count == 1 else {"fine": True}
    pool = connect(api.url).client.rest_client.pool_manager
    assert pool.request("GET", f"{api.url}/x").status == 503


def test_retries_end(api):
    api.routes["/x"] = (503, {"message": "no endpoints available"})
    with pytest.raises(cluster_errors.Unavailable, match="no endpoints available"):
        connect(api.url).get("/x")
    assert len(api.requests) == door.ATTEMPTS


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        ((401, {"message": "Unauthorized"}), cluster_errors.Unauthorized, "does not accept these credentials"),
        ((403, {"message": "nope"}), cluster_errors.Forbidden, r"list nodes \(apiGroup ''\)"),
        ((404, {"message": "gone"}), cluster_errors.NotFound, "gone"),
        ((400, {"error": "bad query"}), cluster_errors.BadAnswer, "bad query"),
        ((302, "", {"Location": "http://elsewhere.invalid/"}), cluster_errors.BadAnswer, "302"),
    ],
)
def test_what_can_not_pass_is_asked_once(api, answer, error, text):
    api.routes[NODES] = answer
    with pytest.raises(error, match=text):
        connect(api.url).list_all(NODES)
    assert len(api.requests) == 1


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_load_balancers_page_says_nothing_of_the_server_behind_a_path(api, code):
    api.routes["/apis/x/v1"] = (code, "<html><h1>Bad Gateway</h1></html>")
    with pytest.raises(cluster_errors.Unreachable, match=rf"before it answers {code} .*: Bad Gateway"):
        connect(api.url).get("/apis/x/v1")
    page = "/api/v1/namespaces/n/pods/http:p:8002/proxy/metrics"
    api.routes[page] = (code, "<html><h1>Bad Gateway</h1></html>")
    with pytest.raises((cluster_errors.BadAnswer, cluster_errors.Unavailable)):
        connect(api.url).get(page, text=True)


@pytest.mark.parametrize(
    "answer", [(200, "<html>login</html>"), (200, '{"items": [', {"Content-Length": 5000})], ids=["html", "cut off"]
)
def test_a_broken_body_is_tried_again_and_then_an_error(api, answer):
    api.routes["/x"] = lambda _query, count: answer if count == 1 else {"fine": True}
    assert connect(api.url).get("/x") == {"fine": True}
    api.routes["/y"] = answer
    with pytest.raises((cluster_errors.BadAnswer, cluster_errors.Unreachable)):
        connect(api.url).get("/y")


@pytest.mark.parametrize("body", [{"items": "many"}, "[]", "3"])
def test_no_list_is_an_error_and_no_traceback(api, body):
    api.routes[NODES] = (200, body)
    with pytest.raises(cluster_errors.BadAnswer, match="no list"):
        connect(api.url).list_all(NODES)


def test_a_silent_server_ends_at_the_deadline(api):
    api.routes["/x"] = ("hang", 5)
    before = time.monotonic()
    with pytest.raises(cluster_errors.DeadlineExceeded, match=r"within 0\.5 s"):
        connect(api.url, seconds=0.5).get("/x")
    assert time.monotonic() - before < 2


def test_a_trickling_body_ends_at_the_deadline(api):
    class Slow:
        def read1(self, _amount):
            time.sleep(0.05)
            return b"x"

    cluster = connect(api.url, seconds=0.3)
    with pytest.raises(cluster_errors.DeadlineExceeded, match="still coming in"):
        list(cluster.chunks_of(Slow(), "/x"))


def test_nobody_listens(api):
    url = api.url
    api.close()
    with pytest.raises(cluster_errors.Unreachable, match="not reachable"):
        connect(url).get("/x")


@pytest.mark.parametrize(
    ("path", "listing", "expected"),
    [
        ("/api/v1/nodes", True, "list nodes (apiGroup '')"),
        ("/api/v1/nodes/n", False, "get nodes (apiGroup '')"),
        ("/api/v1/namespaces/riva", False, "get namespaces (apiGroup '')"),
        ("/api/v1/namespaces/riva/pods", True, "list pods (apiGroup '') in namespace riva"),
        (
            "/api/v1/namespaces/m/services/http:p:9090/proxy/api/v1/query",
            False,
            "get services/proxy (apiGroup '') in namespace m",
        ),
        (
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/riva/pods/*/avg_time_queue_ms",
            False,
            "get pods/avg_time_queue_ms (apiGroup 'custom.metrics.k8s.io') in namespace riva",
        ),
        (
            "/apis/autoscaling/v2/namespaces/riva/horizontalpodautoscalers/asr",
            False,
            "get horizontalpodautoscalers (apiGroup 'autoscaling') in namespace riva",
        ),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices",
            True,
            "list apiservices (apiGroup 'apiregistration.k8s.io')",
        ),
        (
            "/apis/custom.metrics.k8s.io/v1beta1",
            False,
            "get on the non-resource URL /apis/custom.metrics.k8s.io/v1beta1",
        ),
    ],
)
def test_permission_of(path, listing, expected):
    assert cluster_errors.permission_of(path, listing) == expected


# Kubeconfigs


@pytest.fixture
def no_environment(monkeypatch):
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "K8S_AUTH_HOST", "K8S_AUTH_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def kubeconfig(server, **cluster):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "me", "user": {"token": "a-token"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}],
    }


def open_door(**params):
    module = SimpleNamespace(params=params, no_log_values={params.get("kubeconfig", "")} if params else set())
    return door.connect(module, door.Deadline(5))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "does not exist.*option kubeconfig"),
        ("{", {}, "kubeconfig can't be read"),
        ("just a line", {}, "kubeconfig can't be"),
        ("", {}, "kubeconfig can't be"),
        ("good", {"context": "other"}, "kubeconfig can't be used.*other"),
    ],
)
def test_an_unusable_kubeconfig_says_what_is_wrong(tmp_path, no_environment, text, options, message):
    file = tmp_path / "admin.kubeconfig"
    if text is not None:
        file.write_text(yaml.safe_dump(kubeconfig("https://127.0.0.1:1")) if text == "good" else text)
    with pytest.raises(cluster_errors.KubeconfigError, match=message) as caught:
        open_door(kubeconfig=str(file), **options)
    assert caught.value.remedy


def test_a_kubeconfig_works_and_its_path_may_be_named(tmp_path, no_environment, api):
    file = tmp_path / "admin.kubeconfig"
    file.write_text(yaml.safe_dump(kubeconfig(api.url)))
    api.routes["/x"] = {"fine": True}
    module = SimpleNamespace(params={"kubeconfig": str(file)}, no_log_values={str(file), "a-token"})
    assert door.connect(module, door.Deadline(5)).get("/x") == {"fine": True}
    assert module.no_log_values == {"a-token"}


def test_the_environment_is_named_where_it_set_the_kubeconfig(no_environment, monkeypatch):
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", "/nowhere/config")
    with pytest.raises(cluster_errors.KubeconfigError, match=r"/nowhere/config does not exist .*K8S_AUTH_KUBECONFIG"):
        open_door()


def certificate(name, days, begin=10):
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=begin))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private


@pytest.mark.parametrize(
    ("days", "trusted", "host", "message"),
    [
        (1, False, "localhost", "not signed by the CA"),
        (-1, True, "localhost", "certificate has expired"),
        (1, True, "127.0.0.1", "another name"),
    ],
)
def test_tls_that_fails_says_why(tmp_path, api, days, trusted, host, message):
    own, key = certificate("server", days)
    (tmp_path / "server.pem").write_bytes(own + key)
    (tmp_path / "ca.pem").write_bytes(own if trusted else certificate("other", 1)[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    api.server.socket = context.wrap_socket(api.server.socket, server_side=True)
    url = f"https://{host}:{api.server.server_address[1]}"
    with pytest.raises(cluster_errors.CertificateError, match=message):
        connect(url, ca_cert=str(tmp_path / "ca.pem")).get("/x")


@pytest.mark.parametrize(("days", "message"), [(-1, "client certificate in the kubeconfig has expired"), (1, "accept")])
def test_an_expired_client_certificate_is_told_from_a_refused_one(tmp_path, api, days, message):
    own, key = certificate("me", days)
    (tmp_path / "me.crt").write_bytes(own)
    (tmp_path / "me.key").write_bytes(key)
    api.routes["/x"] = (401, {"message": "Unauthorized"})
    with pytest.raises(cluster_errors.Unauthorized, match=message):
        connect(api.url, client_cert=str(tmp_path / "me.crt"), client_key=str(tmp_path / "me.key")).get("/x")


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2101])
def test_the_end_of_a_certificate_is_read(tmp_path, year):
    end = datetime.datetime(year, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    days = (end - datetime.datetime.now(datetime.UTC)).total_seconds() / 86400
    file = tmp_path / "any.crt"
    file.write_bytes(b"text before\n" + certificate("any", days, begin=20000)[0])
    assert abs((cluster_errors.certificate_end(str(file)) - end).total_seconds()) < 2


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "\u00e9"])
def test_the_end_of_no_certificate_is_not_known(tmp_path, text):
    (tmp_path / "any.crt").write_text(text)
    assert cluster_errors.certificate_end(str(tmp_path / "any.crt")) is None
    assert cluster_errors.certificate_end(str(tmp_path / "nowhere.crt")) is None
    assert cluster_errors.certificate_end(None) is None


def test_a_ca_file_that_is_not_there():
    with pytest.raises(cluster_errors.KubeconfigError, match=r"/nowhere/ca\.pem can't be read \(option ca_cert"):
        connect("https://127.0.0.1:1", ca_cert="/nowhere/ca.pem").get("/x")
