# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Charts from a repository on loopback, fetched by Helm itself: the right one passes, a changed byte does not."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import chart_archives
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, Source

from tests.chart_repository import ChartRepository

HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
NAME, VERSION = "traefik", "41.3.0"
VARIABLE = "traefik_chart_digest"

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")


def run(words):
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def repository(tmp_path):
    chart, folder = tmp_path / "chart", tmp_path / "repository"
    chart.mkdir()
    folder.mkdir()
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {NAME}\nversion: {VERSION}\n")
    made = ChartRepository(folder, [chart])
    yield made
    made.close()


def pinned(repository, digest, version=VERSION):
    return Source(NAME, version, repository.url, digest, VARIABLE)


@pytest.fixture
def fetch(tmp_path):
    cache = tmp_path / "cache"
    return lambda source, command=run: chart_archives.archive(command, HELM, source, str(cache))


@pytest.mark.parametrize("form", ["{}", "sha256:{}", "index"])
def test_the_chart_that_was_pinned_comes_and_stays(repository, fetch, form):
    source = pinned(repository, form.format(repository.digests[NAME]))
    path = fetch(source)
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == repository.digests[NAME]
    rc, out, _err = run([HELM, "show", "chart", path])
    assert rc == 0
    assert f"version: {VERSION}" in out
    # The second time nobody is asked, so a repository that is away is no harm.
    repository.server.shutdown()
    asked = len(repository.asked)
    assert fetch(source, command=None) == path
    assert len(repository.asked) == asked


def test_a_changed_byte_of_the_archive_is_refused(repository, fetch, tmp_path):
    got = repository.change_a_byte(NAME)
    # Helm itself takes it.
    rc, _out, _err = run([HELM, "show", "chart", NAME, "--repo", repository.url, "--version", VERSION])
    assert rc == 0
    with pytest.raises(ChartError) as refused:
        fetch(pinned(repository, repository.digests[NAME]))
    said = str(refused.value)
    assert VARIABLE in said
    assert f"wanted: sha256:{repository.digests[NAME]}" in said
    assert f"got:    sha256:{got}" in said
    assert "The repository's index names the one that was wanted" in said
    assert not list((tmp_path / "cache").iterdir())


def test_a_changed_byte_is_refused_by_the_index_alone(repository, fetch, tmp_path):
    repository.change_a_byte(NAME)
    with pytest.raises(ChartError, match="not the one that the repository's index names"):
        fetch(pinned(repository, "index"))
    assert not list((tmp_path / "cache").iterdir())


def test_an_archive_that_was_replaced_together_with_the_index_is_refused(repository, fetch):
    got = repository.change_a_byte(NAME)
    repository.index(NAME, lambda entry: entry.update(digest=got))
    with pytest.raises(ChartError, match="The repository's index names the archive that came"):
        fetch(pinned(repository, repository.digests[NAME]))


def test_a_changed_digest_in_the_index_is_refused_where_it_counts(repository, fetch):
    repository.index(NAME, lambda entry: entry.update(digest="0" * 64))
    with pytest.raises(ChartError, match=f"wanted: sha256:{'0' * 64}"):
        fetch(pinned(repository, "index"))
    # Who knows the digest needs no index.
    assert fetch(pinned(repository, repository.digests[NAME]))


def test_an_index_without_digests_says_what_came(repository, fetch):
    repository.index(NAME, lambda entry: entry.pop("digest"))
    with pytest.raises(ChartError, match=f"Set {VARIABLE} to .*sha256:{repository.digests[NAME]}"):
        fetch(pinned(repository, "index"))


def test_the_digest_of_another_version(repository, fetch):
    with pytest.raises(ChartError, match=f"{VARIABLE} belongs to another version than {VERSION}"):
        fetch(pinned(repository, "0" * 64))


def test_a_chart_that_is_not_pinned_is_not_even_asked_for(repository, fetch):
    with pytest.raises(ChartError, match=f"{VARIABLE} is empty"):
        fetch(pinned(repository, ""), command=None)
    assert repository.asked == []


def test_a_cache_that_was_changed_is_fetched_anew(repository, fetch):
    path = Path(fetch(pinned(repository, repository.digests[NAME])))
    path.write_bytes(b"something else")
    assert fetch(pinned(repository, repository.digests[NAME])) == str(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == repository.digests[NAME]


def test_a_version_that_is_not_there_is_told_in_helms_words(repository, fetch):
    with pytest.raises(ChartError, match=r"traefik 99\.0\.0 can't be fetched: .*99\.0\.0"):
        fetch(pinned(repository, repository.digests[NAME], version="99.0.0"))


def test_a_helm_that_is_not_there_is_told(repository, tmp_path):
    with pytest.raises(ChartError, match="/nowhere/helm can't be run"):
        chart_archives.archive(run, "/nowhere/helm", pinned(repository, "index"), str(tmp_path / "cache"))


def test_an_address_needs_no_repository(repository, fetch):
    address = f"{repository.url}/{repository.archive(NAME).name}"
    assert fetch(Source(address, VERSION, "", repository.digests[NAME], VARIABLE))
    repository.change_a_byte(NAME)
    with pytest.raises(ChartError, match="not the one that traefik_chart_digest names"):
        fetch(Source(address, VERSION, "", "0" * 64, VARIABLE))


def test_a_chart_on_the_disk_is_taken_as_it_is(repository, fetch):
    assert fetch(Source(str(repository.archive(NAME)), "", "", "", VARIABLE), command=None) == str(
        repository.archive(NAME)
    )


def test_a_cache_that_cannot_be_written_is_told(repository, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ChartError, match="Set XDG_CACHE_HOME"):
        chart_archives.archive(
            run, HELM, pinned(repository, repository.digests[NAME]), str(tmp_path / "file" / "cache")
        )


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"XDG_CACHE_HOME": "/var/cache/me"}, "/var/cache/me/speechops.riva/charts"),
        ({}, str(Path.home() / ".cache/speechops.riva/charts")),
    ],
)
def test_where_the_cache_lies(environment, folder):
    assert chart_archives.cache_folder(environment) == folder
