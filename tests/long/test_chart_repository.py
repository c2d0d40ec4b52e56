"""site.yml, upgrade.yml and bundle.yml with every chart from a repository, as where there is a way to the sources."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager

import pytest
import yaml

from lab import extras
from lab.settings import Lab
from tests.chart_repository import ChartRepository
from tests.integration.running_lab import CHARTS, HELM, run
from tests.integration.test_site import extra, recap
from tests.long.test_air_gap import serving

ROLES = {
    "kube-prometheus-stack": "kube_prometheus_stack",
    "gpu-operator": "gpu_operator",
    "prometheus-adapter": "prometheus_adapter",
    "traefik": "traefik",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "speechops.riva" / "charts"


@pytest.fixture(scope="module")
def repository(tmp_path_factory, cache):
    made = ChartRepository(tmp_path_factory.mktemp("repository"), [CHARTS / name for name in ROLES])
    yield made
    made.close()


@pytest.fixture(scope="module")
def wished(repository):
    """Variables that take each chart from there; the versions of the lab's charts are those of the roles."""
    found = {}
    for name, role in ROLES.items():
        chart = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())
        found[f"{role}_chart_ref"] = name
        found[f"{role}_chart_repo_url"] = repository.url
        found[f"{role}_chart_version"] = str(chart["version"])
        found[f"{role}_chart_digest"] = f"sha256:{repository.digests[name]}"
    return found


@contextmanager
def changed(repository, name):
    """While it lasts one byte of an archive is another."""
    archive = repository.archive(name)
    whole = archive.read_bytes()
    repository.change_a_byte(name)
    try:
        yield
    finally:
        archive.write_bytes(whole)


def releases(lab) -> dict[str, str]:
    listed = json.loads(run(HELM, f"--kubeconfig={lab.kubeconfig}", "list", "-A", "-o", "json").stdout)
    return {item["name"]: f"{item['chart']} {item['revision']}" for item in listed}


def test_site_installs_all_of_it_from_there(lab, repository, wished, cache):
    lab.play("site.yml", *extra(**wished))
    assert {name: repository.asked.count(f"/{repository.archive(name).name}") for name in ROLES} == dict.fromkeys(
        ROLES, 1
    )
    assert {path.name for path in cache.iterdir()} == {f"{digest}.tgz" for digest in repository.digests.values()}


def test_a_second_run_changes_nothing_and_asks_nobody(lab, repository, wished):
    asked, there = len(repository.asked), releases(lab)
    output = lab.play("site.yml", *extra(**wished)).stdout
    assert recap(output)["changed"] == 0
    assert len(repository.asked) == asked
    assert releases(lab) == there


@pytest.mark.parametrize("name", ["kube-prometheus-stack", "traefik"])
def test_an_upgrade_with_a_changed_archive_ends_before_the_first_change(
    lab, repository, wished, name, tmp_path, monkeypatch
):
    """The plan holds all of them against their digests: also the last one ends it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    there = releases(lab)
    with changed(repository, name):
        done = lab.play("playbooks/upgrade.yml", *extra(**wished), check=False)
    assert done.returncode != 0
    assert recap(done.stdout)["changed"] == 0
    assert f"is not the one that {ROLES[name]}_chart_digest names" in done.stdout
    assert releases(lab) == there


def test_a_bundle_takes_no_changed_archive_along(lab, repository, wished, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = {**wished, "bundle_folder": str(tmp_path / "bundle"), "bundle_wheels": False}
    with changed(repository, "traefik"):
        done = lab.play("playbooks/bundle.yml", *extra(**words), check=False)
    assert done.returncode != 0
    assert "is not the one that traefik_chart_digest names" in done.stdout
    assert not (tmp_path / "bundle" / "SHA256SUMS").exists()
    lab.play("playbooks/bundle.yml", *extra(**words))
    archive = repository.archive("traefik")
    assert (tmp_path / "bundle" / "charts" / archive.name).read_bytes() == archive.read_bytes()


def test_a_chart_from_a_registry_has_the_same_digest(lab, repository, tmp_path, monkeypatch):
    """The digest is that of the archive, which a registry keeps as it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with serving(extras.registry(Lab(lab.name)), tmp_path / "registry", address, []) as log:
        run(HELM, "push", repository.archive("traefik"), f"oci://{address}/charts")
        there = releases(lab)
        words = {"traefik_chart_ref": f"oci://{address}/charts/traefik", "traefik_chart_version": "41.3.0"}
        right = {**words, "traefik_chart_digest": repository.digests["traefik"]}
        assert recap(lab.play("site.yml", "--tags", "traefik", *extra(**right)).stdout)["changed"] == 0
        pulled = log.read_text().count("GET /v2/charts/traefik/blobs/")
        assert pulled > 0
        assert recap(lab.play("site.yml", "--tags", "traefik", *extra(**right)).stdout)["changed"] == 0
        assert log.read_text().count("GET /v2/charts/traefik/blobs/") == pulled
        wrong = {**words, "traefik_chart_digest": "0" * 64, "traefik_replicas": 2}
        done = lab.play("site.yml", "--tags", "traefik", *extra(**wrong), check=False)
    assert done.returncode != 0
    assert recap(done.stdout)["changed"] == 0
    assert f"got:    sha256:{repository.digests['traefik']}" in done.stdout
    assert releases(lab) == there
