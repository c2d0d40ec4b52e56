"""A fresh lab named `test`, beside whatever other lab runs here, for all integration tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.frail import frail_service
from tests.integration.running_lab import RunningLab, traces


def pytest_collection_modifyitems(items):
    """What removes everything from the lab comes after all that needs it."""
    items.sort(key=lambda item: item.path.name == "test_uninstall.py")


@pytest.fixture(scope="session")
def lab():
    """A lab that was brought up from nothing for this run, and ends with it (unless KEEP_LAB is set).

    USE_LAB names one that is up already, and stays as it is; not all tests are meant for such a one.
    """
    if name := os.environ.get("USE_LAB"):
        yield RunningLab(name, json.loads(Path(f"/var/lib/speechops-lab/{name}/lab.json").read_text())["network"])
        return
    fresh = RunningLab("test", "10.89.0.0/22")
    fresh.command("down")
    fresh.up()
    yield fresh
    if not os.environ.get("KEEP_LAB"):
        fresh.command("down")
        assert traces("test") == []


@pytest.fixture(scope="session")
def installed(lab):
    """The lab with all that site.yml installs. Tests that want it come after test_site.py, which installs it."""
    if "riva-asr" not in lab.kubectl("get", "hpa", "-n", "riva", "-o", "name", check=False):
        lab.play("site.yml")
    return lab


@pytest.fixture(scope="module")
def frail(installed, tmp_path_factory):
    """A speech service to break, beside the installed one."""
    with frail_service(installed, tmp_path_factory.mktemp("frail")) as service:
        yield service
