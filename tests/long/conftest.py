"""The long tests run on the same fresh lab as the integration tests, with the same services to break.

Those of GPU hosts have hosts of their own.
"""

import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.gpu_host.host import GpuHost
from tests.integration.conftest import frail, installed, lab

__all__ = ["frail", "installed", "lab"]


@pytest.fixture(scope="module")
def host(base, tmp_path_factory):
    """One GPU host for all tests of a file, whose fixture `base` is its distribution."""
    return GpuHost(base, tmp_path_factory.mktemp("host"))


@pytest.fixture
def fresh(base, tmp_path):
    """A GPU host for one test."""
    return GpuHost(base, tmp_path)


@pytest.fixture
def proxy(base):
    """The address of a proxy, which alone knows the way to http://mirror.test/, the repositories; and what it gave."""
    given = []

    class Proxy(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(base / "srv"))

        def translate_path(self, path):
            mirror, _, path = path.partition("://mirror.test")
            given.append(path)
            return super().translate_path(path if mirror == "http" else "/nowhere")

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", given
    server.shutdown()
