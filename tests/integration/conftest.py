"""A fresh lab named `test`, beside whatever other lab runs here, for all integration tests."""

from __future__ import annotations

import os

import pytest

from tests.integration.running_lab import RunningLab, traces


@pytest.fixture(scope="session")
def lab():
    """A lab that was brought up from nothing for this run, and ends with it (unless KEEP_LAB is set)."""
    fresh = RunningLab("test", "10.89.0.0/22")
    fresh.command("down")
    fresh.up()
    yield fresh
    if not os.environ.get("KEEP_LAB"):
        fresh.command("down")
        assert traces("test") == []
