"""upgrade.yml on a real cluster: a plan, streams kept, a release that fails goes back, a downgrade is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.integration.running_lab import CHARTS, HELM, run
from tests.integration.test_site import changes, extra, recap
from tests.long.loads import under_load


def charts(folder: Path, version: str) -> Path:
    """The lab's charts, with another version of Traefik's."""
    shutil.copytree(CHARTS, folder)
    file = folder / "traefik" / "Chart.yaml"
    file.write_text(re.sub(r"^version: .*$", f"version: {version}", file.read_text(), flags=re.MULTILINE))
    return folder


def deployed(lab) -> str:
    """Chart of Traefik's release."""
    listed = run(HELM, "list", "-n", "traefik", "-o", "json", f"--kubeconfig={lab.kubeconfig}").stdout
    return json.loads(listed)[0]["chart"]


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return charts(tmp_path_factory.mktemp("charts") / "newer", "41.9.0")


def test_check_mode_shows_the_plan_and_changes_nothing(installed, newer):
    output = installed.play("playbooks/upgrade.yml", "--check", *extra(lab_charts_folder=str(newer))).stdout
    assert "41.3.0 -> 41.9.0" in output
    assert deployed(installed) == "traefik-41.3.0"


def test_a_release_that_fails_goes_back_and_says_why(installed, newer):
    wrong = extra(lab_charts_folder=str(newer), traefik_timeout=40, traefik_values={"image": {"tag": "v9.9.9"}})
    done = installed.play("playbooks/upgrade.yml", *wrong, check=False)
    assert done.returncode != 0
    assert "The upgrade stopped at role traefik" in done.stdout
    assert "v9.9.9" in done.stdout
    assert deployed(installed) == "traefik-41.3.0"
    assert installed.play("playbooks/verify.yml").returncode == 0


def test_an_upgrade_under_load_loses_no_stream(installed, newer, tmp_path):
    """Traefik and the speech service both change while streams run and new ones open."""
    with under_load(installed, tmp_path, streams=12, seconds=240, ramp=10) as counted:
        new = extra(lab_charts_folder=str(newer), riva_values={"sharedMemory": "65Mi"})
        output = installed.play("playbooks/upgrade.yml", *new).stdout
    assert counted["opened"] > 50
    assert len(changes(output)) == 2
    assert deployed(installed) == "traefik-41.9.0"


def test_a_downgrade_is_refused_before_anything_is_changed(installed):
    done = installed.play("playbooks/upgrade.yml", check=False)
    assert done.returncode != 0
    assert "41.9.0 -> 41.3.0 would be a downgrade" in done.stdout
    assert recap(done.stdout)["changed"] == 0
