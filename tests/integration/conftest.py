"""A fresh lab named `test`, beside whatever other lab runs here, for all integration tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.unbundle import use_tools
from tests.integration.frail import frail_service
from tests.integration.running_lab import RunningLab

HERE = Path(__file__).parent
# What wants a lab as it comes, then what is installed on it, and at last what takes it away again.
IN_ORDER = ("test_lab.py", "test_lab_life.py", "test_lab_tools.py", "test_site.py")
# A drained service has more pods than it needs for minutes; nothing is left of an uninstalled one.
LAST = ("test_draining.py", "test_uninstall.py")
# Side by side (pytest -n 2) the files of a group run one after the other on a lab of their own; the rest is `site`.
GROUPS = {
    "test_lab_life.py": "life",
    "test_lab_tools.py": "life",
    "test_validators_on_a_bad_day.py": "faults",
    "test_verify.py": "chain",
    "test_verify_broken_chain.py": "chain",
    "test_verify_broken_nodes.py": "chain",
}


def pytest_collection_modifyitems(items):
    """The long ones first; among them the order in which the files build on each other."""

    def place(item) -> int:
        name = item.path.name
        if item.path.parent != HERE:
            return len(IN_ORDER) + len(LAST) + 1
        if name in LAST:
            return len(IN_ORDER) + 1 + LAST.index(name)
        return IN_ORDER.index(name) if name in IN_ORDER else len(IN_ORDER)

    items.sort(key=place)


# A machine that has pytest alone runs them one after the other.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class SideBySide(LoadScopeScheduling):
        """Hands out whole groups of integration tests, and whole files of the others, in their order."""

        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::")[0])
            return GROUPS.get(file.name, "site") if file.parent.name == HERE.name else str(file)

    config.option.loadscopereorder = False
    return SideBySide(config, log)


@pytest.fixture(scope="session")
def lab():
    """A lab that was brought up from nothing for this run, and ends with it (unless KEEP_LAB is set).

    USE_LAB names one that is up already, and stays as it is; not all tests are meant for such a one.
    """
    # Tests call ip and iptables too, which a machine with a bundle may have from there alone.
    use_tools()
    if name := os.environ.get("USE_LAB"):
        yield RunningLab.that_is_up(name)
        return
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    name = f"beside{worker}" if worker else "test"
    with RunningLab.of_its_own(name, f"10.{89 - 4 * worker}.0.0/22") as fresh:
        yield fresh


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
