# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A small real HTTP server that speaks the API paths which the validators read."""

import contextlib
import importlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from ansible.module_utils import basic
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

try:
    from ansible.module_utils.testing import patch_module_args
except ImportError:  # ansible-core before 2.19

    @contextlib.contextmanager
    def patch_module_args(arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
            yield


set_hypothesis_home_dir(Path(__file__).resolve().parents[3] / "build" / "hypothesis")
# The same examples at each run; HYPOTHESIS_PROFILE=search looks for new ones, many more.
settings.register_profile("repeatable", max_examples=200, derandomize=True, database=None, deadline=None)
settings.register_profile("search", max_examples=5000, database=None, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

MODULES = "ansible_collections.speechops.riva.plugins.modules"


class FakeApi:
    """Routes by path. A route is an object (answered as JSON), (status, object), or a function of (query, count)."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16

            def do_GET(self):
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                api.requests.append((parts.path, query, dict(self.headers)))
                count = [path for path, _query, _headers in api.requests].count(parts.path)
                route = api.routes.get(parts.path, (404, status_object(404, f"{parts.path} not found")))
                answer = route(query, count) if callable(route) else route
                code, body, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
                if code == "hang":
                    time.sleep(body)
                    return
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(code)
                length = headers.pop("Content-Length", len(data))
                for name, value in {"Content-Length": length, **headers}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)
                if int(length) > len(data):
                    self.close_connection = True

            def log_message(self, *_args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def asked(self, path):
        return [query for found, query, _headers in self.requests if found == path]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def status_object(code, message, reason=""):
    return {"kind": "Status", "code": code, "message": message, "reason": reason}


@pytest.fixture
def api():
    server = FakeApi()
    yield server
    server.close()


@pytest.fixture
def run_module(monkeypatch, capsys):
    """Runs a module in this process; returns its result."""
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "K8S_AUTH_HOST", "K8S_AUTH_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(name, api=None, **arguments):
        module = importlib.import_module(f"{MODULES}.{name}")
        if api is not None:
            arguments = {"host": api if isinstance(api, str) else api.url, "api_key": "a-token", **arguments}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        return json.loads(capsys.readouterr().out)

    return run
