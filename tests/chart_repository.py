# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Helm repository on loopback, made of charts in folders, whose archives and index can be changed."""

from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import yaml


class ChartRepository:
    """Serves until it is closed.

    Args:
        folder: an empty folder for archives and index.
        charts: folders of charts.
    """

    def __init__(self, folder: Path, charts: list[Path]):
        self.folder, self.asked = folder, []
        entries = {}
        for chart in charts:
            known = yaml.safe_load((chart / "Chart.yaml").read_text())
            name, version = known["name"], str(known["version"])
            archive = folder / f"{name}-{version}.tgz"
            with tarfile.open(archive, "w:gz") as packed:
                packed.add(chart, arcname=name)
            # As `helm repo index` has it.
            entries[name] = [{**known, "version": version, "digest": digest(archive), "urls": [archive.name]}]
        self._write({"apiVersion": "v1", "entries": entries})
        self.digests = {name: entry[0]["digest"] for name, entry in entries.items()}
        repository = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_words):
                repository.asked.append(self.path)

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def archive(self, name: str) -> Path:
        (found,) = self.folder.glob(f"{name}-[0-9v]*.tgz")
        return found

    def change_a_byte(self, name: str) -> str:
        """The digest of an archive after that: in gzip's header, where nothing but a digest tells, so Helm takes it."""
        archive = self.archive(name)
        packed = bytearray(archive.read_bytes())
        packed[9] ^= 1
        archive.write_bytes(packed)
        return digest(archive)

    def index(self, name: str, change: Callable[[dict], object]) -> None:
        """Change the entry of a chart in the index."""
        content = yaml.safe_load((self.folder / "index.yaml").read_text())
        change(content["entries"][name][0])
        self._write(content)

    def _write(self, content: dict) -> None:
        (self.folder / "index.yaml").write_text(yaml.safe_dump(content))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
