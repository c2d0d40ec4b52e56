"""What a new user does with the built collection: install it, and run its playbooks by name, from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running_lab import REPOSITORY

BIN = Path(sys.executable).parent
SITE = "speechops.riva.site"


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A folder with nothing but the installed collection and an inventory, and no sight of the checkout."""
    home = tmp_path_factory.mktemp("user")
    galaxy = BIN / "ansible-galaxy"
    subprocess.run([galaxy, "collection", "build", "--output-path", home], cwd=REPOSITORY, check=True)
    (archive,) = home.glob("*.tar.gz")
    subprocess.run(
        # kubernetes.core and community.general come with the package `ansible` of requirements.txt.
        [
            galaxy,
            "collection",
            "install",
            archive,
            "--collections-path",
            home / "collections",
            "--no-deps",
            "--offline",
        ],
        cwd=home,
        check=True,
    )
    shutil.copytree(REPOSITORY / "inventories" / "lab", home / "inventory")
    return home


@pytest.fixture(scope="module")
def play(user, lab):
    """Run a playbook of the collection as that user."""

    def run(*words: str, check: bool = True) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", "inventory", "-e", f"lab_name={lab.name}", *words],
            cwd=user,
            env={
                **kept,
                "ANSIBLE_COLLECTIONS_PATH": str(user / "collections"),
                "ANSIBLE_HOME": str(user / ".ansible"),
                "NO_COLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1500,
        )
        if check and done.returncode:
            pytest.fail(done.stdout[-8000:] + done.stderr[-2000:])
        return done.stdout

    return run


def test_the_collection_is_the_installed_one(user):
    listed = subprocess.run(
        [BIN / "ansible-galaxy", "collection", "list", "speechops.riva", "--format", "json"],
        cwd=user,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(user / "collections")},
        capture_output=True,
        text=True,
        check=True,
    )
    (place,) = json.loads(listed.stdout)
    assert place == str(user / "collections" / "ansible_collections")


def test_the_inputs_are_checked_first(play):
    told = play(SITE, "-e", "riva_scrape_intervall=5", check=False)
    assert "riva_scrape_intervall" in told
    assert "failed=1" in told


def test_site_installs_and_proves_everything(play):
    told = play(SITE)
    assert "failed=0" in told
    assert "\x1b[" not in told, "NO_COLOR means no colour"


def test_a_second_run_changes_nothing(play):
    told = play(SITE)
    assert "changed=0 " in told[told.index("PLAY RECAP") :]


def test_verify_by_its_name(play):
    assert "failed=0" in play("speechops.riva.verify")
