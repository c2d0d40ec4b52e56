# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Charts from a repository on loopback, fetched by Helm itself: the right one passes, a changed byte does not."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import chart_archives
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, Source

HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
NAME, VERSION = "traefik", "41.3.0"
VARIABLE = "traefik_chart_digest"

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")


def run(words):
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


class Repository:
    """A Helm repository in a folder, and what was asked of it."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []
        folder.mkdir()
        self.archive = folder / f"{NAME}-{VERSION}.tgz"
        text = f"apiVersion: v2\nname: {NAME}\nversion: {VERSION}\n".encode()
        with tarfile.open(self.archive, "w:gz") as packed:
            member = tarfile.TarInfo(f"{NAME}/Chart.yaml")
            member.size = len(text)
            packed.addfile(member, io.BytesIO(text))
        self.digest = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        entry = {
            "apiVersion": "v2",
            "name": NAME,
            "version": VERSION,
            "digest": self.digest,
            "urls": [self.archive.name],
        }
        (folder / "index.yaml").write_text(yaml.safe_dump({"apiVersion": "v1", "entries": {NAME: [entry]}}))
        repository = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_words):
                repository.asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def source(self, digest, version=VERSION):
        return Source(NAME, version, self.url, digest, VARIABLE)

    def change_a_byte(self):
        """In gzip's header, the operating system: nothing looks at it, so the archive is as good as before to Helm."""
        packed = bytearray(self.archive.read_bytes())
        packed[9] ^= 1
        self.archive.write_bytes(packed)
        return hashlib.sha256(packed).hexdigest()

    def index(self, change):
        file = self.folder / "index.yaml"
        content = yaml.safe_load(file.read_text())
        change(content["entries"][NAME][0])
        file.write_text(yaml.safe_dump(content))


@pytest.fixture
def repository(tmp_path):
    made = Repository(tmp_path / "repository")
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def fetch(tmp_path):
    cache = tmp_path / "cache"
    return lambda source, command=run: chart_archives.archive(command, HELM, source, str(cache))


@pytest.mark.parametrize("form", ["{}", "sha256:{}", "index"])
def test_the_chart_that_was_pinned_comes_and_stays(repository, fetch, form):
    source = repository.source(form.format(repository.digest))
    path = fetch(source)
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == repository.digest
    rc, out, _err = run([HELM, "show", "chart", path])
    assert rc == 0
    assert f"version: {VERSION}" in out
    # The second time nobody is asked, so a repository that is away is no harm.
    repository.server.shutdown()
    asked = len(repository.asked)
    assert fetch(source, command=None) == path
    assert len(repository.asked) == asked


def test_a_changed_byte_of_the_archive_is_refused(repository, fetch, tmp_path):
    got = repository.change_a_byte()
    # Helm itself takes it.
    rc, _out, _err = run([HELM, "show", "chart", NAME, "--repo", repository.url, "--version", VERSION])
    assert rc == 0
    with pytest.raises(ChartError) as refused:
        fetch(repository.source(repository.digest))
    said = str(refused.value)
    assert VARIABLE in said
    assert f"wanted: sha256:{repository.digest}" in said
    assert f"got:    sha256:{got}" in said
    assert "The repository's index names the one that was wanted" in said
    assert not list((tmp_path / "cache").iterdir())


def test_a_changed_byte_is_refused_by_the_index_alone(repository, fetch, tmp_path):
    repository.change_a_byte()
    with pytest.raises(ChartError, match="not the one that the repository's index names"):
        fetch(repository.source("index"))
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_that_was_replaced_together_with_the_index_is_refused(repository, fetch):
    got = repository.change_a_byte()
    repository.index(lambda entry: entry.update(digest=got))
    with pytest.raises(ChartError, match="The repository's index names the archive that came"):
        fetch(repository.source(repository.digest))


def test_a_changed_digest_in_the_index_is_refused_where_it_counts(repository, fetch):
    repository.index(lambda entry: entry.update(digest="0" * 64))
    with pytest.raises(ChartError, match=f"wanted: sha256:{'0' * 64}"):
        fetch(repository.source("index"))
    # Who knows the digest needs no index.
    assert fetch(repository.source(repository.digest))


def test_an_index_without_digests_says_what_came(repository, fetch):
    repository.index(lambda entry: entry.pop("digest"))
    with pytest.raises(ChartError, match=f"Set {VARIABLE} to .*sha256:{repository.digest}"):
        fetch(repository.source("index"))


def test_the_digest_of_another_version(repository, fetch):
    with pytest.raises(ChartError, match=f"{VARIABLE} belongs to another version than {VERSION}"):
        fetch(repository.source("0" * 64))


def test_a_chart_that_is_not_pinned_is_not_even_asked_for(repository, fetch):
    with pytest.raises(ChartError, match=f"{VARIABLE} is empty"):
        fetch(repository.source(""), command=None)
    assert repository.asked == []


def test_a_cache_that_was_changed_is_fetched_anew(repository, fetch):
    path = Path(fetch(repository.source(repository.digest)))
    path.write_bytes(b"something else")
    assert fetch(repository.source(repository.digest)) == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == repository.digest


def test_a_version_that_is_not_there_is_told_in_helms_words(repository, fetch):
    with pytest.raises(ChartError, match=r"traefik 99\.0\.0 can't be fetched: .*99\.0\.0"):
        fetch(repository.source(repository.digest, version="99.0.0"))


def test_an_address_needs_no_repository(repository, fetch):
    address = f"{repository.url}/{repository.archive.name}"
    assert fetch(Source(address, VERSION, "", repository.digest, VARIABLE))
    repository.change_a_byte()
    with pytest.raises(ChartError, match="not the one that traefik_chart_digest names"):
        fetch(Source(address, VERSION, "", "0" * 64, VARIABLE))


def test_a_chart_on_the_disk_is_taken_as_it_is(repository, fetch):
    assert fetch(Source(str(repository.archive), "", "", "", VARIABLE), command=None) == str(repository.archive)


def test_a_cache_that_cannot_be_written_is_told(repository, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ChartError, match="Set XDG_CACHE_HOME"):
        chart_archives.archive(run, HELM, repository.source(repository.digest), str(tmp_path / "file" / "cache"))


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/var/cache/me"}, "/var/cache/me/speechops.riva/charts"),
        ({}, str(Path.home() / ".cache/speechops.riva/charts")),
    ],
)
def test_where_the_cache_lies(environment, folder):
    assert chart_archives.cache_folder(environment) == folder
