"""site.yml with a chart from a repository: the right archive is taken once, a changed one is refused untouched."""

from __future__ import annotations

import json

import pytest

from tests.chart_repository import ChartRepository
from tests.integration.running_lab import CHARTS, HELM, run
from tests.integration.test_site import extra, recap

DIGEST = "traefik_chart_digest"


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    made = ChartRepository(folder, [CHARTS / "traefik"])
    yield made
    made.close()


@pytest.fixture
def site(installed, repository, tmp_path, monkeypatch):
    """site.yml's part for Traefik, with the chart from the repository and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wished = {"traefik_chart_ref": "traefik", "traefik_chart_repo_url": repository.url}
    return lambda **more: installed.play("site.yml", "--tags", "traefik", *extra(**wished, **more), check=False)


def revision(lab) -> str:
    words = (HELM, f"--kubeconfig={lab.kubeconfig}", "history", "traefik", "--namespace=traefik", "--output=json")
    return json.loads(run(*words).stdout)[-1]["revision"]


def test_a_chart_from_a_repository_is_asked_for_once(installed, site, repository):
    before = revision(installed)
    wished = {DIGEST: f"sha256:{repository.digests['traefik']}"}
    first = site(**wished)
    assert (first.returncode, recap(first.stdout)["changed"]) == (0, 0), first.stdout
    assert sorted(repository.asked) == sorted(["/index.yaml", f"/{repository.archive('traefik').name}"])
    # Its CRDs are looked at again, and nobody is asked for them.
    second = site(**wished)
    assert (second.returncode, recap(second.stdout)["changed"]) == (0, 0), second.stdout
    assert len(repository.asked) == 2
    assert revision(installed) == before


@pytest.mark.parametrize("pinned", ["digest", "index"])
def test_a_changed_byte_is_refused_before_any_change(installed, site, repository, pinned):
    before = revision(installed)
    wanted = repository.digests["traefik"]
    got = repository.change_a_byte("traefik")
    done = site(**{DIGEST: f"sha256:{wanted}" if pinned == "digest" else "index", "traefik_replicas": 2})
    assert done.returncode != 0
    assert recap(done.stdout)["changed"] == 0
    by = DIGEST if pinned == "digest" else "the repository's index"
    assert f"is not the one that {by} names: nothing was changed with it" in done.stdout
    assert f"wanted: sha256:{wanted}" in done.stdout
    assert f"got:    sha256:{got}" in done.stdout
    assert revision(installed) == before


def test_a_version_without_its_digest_is_refused_by_the_inputs(installed, site, repository):
    done = site(traefik_chart_version="41.4.0")
    assert done.returncode != 0
    assert recap(done.stdout)["changed"] == 0
    assert f"{DIGEST} is still the one of 41.3.0" in done.stdout
    assert repository.asked == []
