"""Several clusters in one run, two of them real ones side by side: what fails in one does not stop the others.

``USE_LAB`` and ``USE_SECOND_LAB`` name labs that are up.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from tests.integration.running_lab import PLAYBOOK, REPOSITORY, RunningLab, run
from tests.integration.test_site import extra

AWAY = """
apiVersion: v1
kind: Config
clusters: [{name: away, cluster: {server: "https://127.0.0.1:9"}}]
contexts: [{name: away, context: {cluster: away, user: me}}]
current-context: away
users: [{name: me, user: {token: none}}]
"""


@pytest.fixture(scope="module")
def second():
    """A second lab beside the first one."""
    if name := os.environ.get("USE_SECOND_LAB"):
        yield RunningLab.that_is_up(name)
        return
    with RunningLab.of_its_own("second", "10.81.0.0/22") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def folder(lab, second, tmp_path_factory):
    """An inventory of three clusters: one that is away first, and both labs."""
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "away.kubeconfig").write_text(AWAY)
    hosts = yaml.safe_load((REPOSITORY / "inventories/lab/hosts.yml").read_text())
    group = hosts["all"]["children"]["riva_clusters"]
    one = group["hosts"].pop("lab")
    group["hosts"] = {
        "away": {**one, "lab_name": "away", "cluster_kubeconfig": str(folder / "away.kubeconfig")},
        "one": {**one, "lab_name": lab.name},
        "two": {**one, "lab_name": second.name},
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    # Variables of a group, so that those of a host win over them.
    (folder / "group_vars").symlink_to(REPOSITORY / "inventories/lab/group_vars")
    return folder


def play(folder: Path, *words: str, playbook: str = "site.yml"):
    return run(PLAYBOOK, "-i", folder, playbook, *words, check=False, timeout=1500)


def recaps(output: str) -> dict[str, dict[str, int]]:
    lines = re.findall(r"^(\S+) +: (ok=.*)$", output, re.MULTILINE)
    return {host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)} for host, line in lines}


def summary(output: str) -> dict[str, str]:
    told = output[output.index("TASK [It is told what became of each cluster]") :]
    return dict(re.findall(r"^ +(away|one|two): (.*)$", told, re.MULTILINE))


def test_a_cluster_that_is_away_does_not_stop_the_others(folder, lab, second):
    done = play(folder)
    assert done.returncode != 0
    told = recaps(done.stdout)
    assert (told["away"]["failed"], told["away"]["changed"]) == (1, 0), done.stdout
    for host in ("one", "two"):
        assert told[host]["failed"] == 0, done.stdout
        assert told[host]["ok"] > 40
    assert "127.0.0.1:9" in done.stdout
    last = summary(done.stdout)
    assert last["away"].startswith("FAILED")
    # Each its own address, out of its own network.
    assert f"riva-asr at {lab.network[: lab.network.index('.', 3)]}" in last["one"]
    assert f"riva-asr at {second.network[: second.network.index('.', 3)]}" in last["two"]
    assert last["one"] != last["two"]


def test_again_it_changes_nothing_in_any_of_them(folder):
    done = play(folder, "--limit", "one,two", "--forks", "1")
    assert done.returncode == 0, done.stdout
    assert [recap["changed"] for recap in recaps(done.stdout).values()] == [0, 0]


def test_what_fails_half_way_in_one_cluster_stays_there(folder, second):
    """Traefik of the second cluster gets an image that is not there; the first one is upgraded and proven."""
    wrong = folder / "host_vars" / "two.yml"
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_text(yaml.safe_dump({"traefik_values": {"image": {"tag": "v9.9.9"}}, "traefik_timeout": 25}))
    try:
        done = play(
            folder, "--limit", "one,two", "--tags", "traefik,riva,verify", *extra(traefik_max_header_bytes=32768)
        )
    finally:
        wrong.unlink()
    told = recaps(done.stdout)
    assert done.returncode != 0
    assert (told["one"]["failed"], told["two"]["failed"]) == (0, 1), done.stdout
    assert "v9.9.9" in done.stdout
    last = summary(done.stdout)
    assert last["one"].startswith("proven")
    assert last["two"].startswith("FAILED")
    again = play(folder, "--limit", "two", "--tags", "traefik,riva,verify", *extra(traefik_max_header_bytes=32768))
    assert again.returncode == 0, again.stdout


@pytest.mark.parametrize("serial", ["1", "100%"])
def test_the_users_limit_stops_the_others(folder, serial):
    """None may fail: the cluster that is away ends the run before anything is changed anywhere."""
    words = ["-e", f"site_serial={serial}", "-e", "site_max_fail_percentage=0"]
    done = play(folder, *words, *extra(traefik_max_header_bytes=65536))
    assert done.returncode != 0
    told = recaps(done.stdout)
    assert told["away"]["failed"] == 1
    assert sum(recap["changed"] for recap in told.values()) == 0, done.stdout
    assert "TASK [speechops.riva.helm" not in done.stdout


def test_one_at_a_time_goes_through_each_step(folder):
    done = play(folder, "--limit", "one,two", "--tags", "always,helm", "-e", "site_serial=1", "--check")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PLAY [Helm is in place]") == 2
