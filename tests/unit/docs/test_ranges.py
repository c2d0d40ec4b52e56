# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The version ranges that the collection promises are those at whose ends tox runs the tests."""

import configparser
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import ansible
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TOX = configparser.ConfigParser()
TOX.read(ROOT / "tox.ini")
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["dependencies"]
PINS = dict(re.findall(r"^([a-z-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE))
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
# tox names the environment that a test runs in.
RUNS_IN = os.environ.get("TOX_ENV_NAME")


def of_tox(end):
    """{package: version, or None where tox takes the newest} of one end."""
    texts = f"{TOX['testenv']['deps']}\n{TOX['testenv']['commands_pre']}"
    lines = re.findall(rf"^{end}: *(?:python -m pip install .* )?([a-z-]+)(?:==(\S+))?$", texts, re.MULTILINE)
    return {package: pinned or None for package, pinned in lines}


def numbers(text):
    return [int(part) for part in re.findall(r"\d+", text)]


def collection(name):
    """Version of an installed collection that came with the package `ansible`."""
    folder = Path(ansible.__file__).resolve().parents[1] / "ansible_collections" / name.replace(".", "/")
    return json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"]["version"]


def test_the_highest_is_the_newest_there_is():
    assert set(of_tox("highest").values()) == {None}
    assert set(of_tox("highest")) == set(of_tox("lowest")) - {"ansible-core"}
    # No range ends above.
    assert [text for text in GALAXY.values() if not re.fullmatch(r">=[\d.]+", text)] == []


def test_the_lowest_kubernetes_is_the_one_that_modules_ask_for():
    asked = set()
    for path in (ROOT / "plugins").rglob("*.py"):
        asked |= set(re.findall(r"^  - kubernetes >= (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert asked == {of_tox("lowest")["kubernetes"]}


@pytest.mark.parametrize("package", ["kubernetes", "openshift"])
def test_the_page_has_the_lowest_of_a_python_package(package):
    assert f"| Python package {package} | {of_tox('lowest')[package]} or newer" in COMPATIBILITY


@pytest.mark.parametrize("package", ["ansible", "kubernetes", "openshift"])
def test_what_is_pinned_lies_within_the_range(package):
    assert numbers(of_tox("lowest")[package]) <= numbers(PINS[package])


def test_the_lowest_ansible_core_is_that_of_the_collection():
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert runtime["requires_ansible"] == f">={of_tox('lowest')['ansible-core']}"


@pytest.mark.parametrize("name", GALAXY)
def test_the_page_has_the_lowest_of_a_collection(name):
    assert f"| collection {name} | {GALAXY[name].removeprefix('>=')} or newer" in COMPATIBILITY


@pytest.mark.parametrize("name", GALAXY)
def test_an_installed_collection_lies_within_the_range(name):
    lowest, here = numbers(GALAXY[name]), numbers(collection(name))
    assert here == lowest if RUNS_IN == "lowest" else here >= lowest


@pytest.mark.parametrize("package", sorted(of_tox("lowest")))
def test_an_installed_package_lies_within_the_range(package):
    lowest, here = numbers(of_tox("lowest")[package]), numbers(version(package))
    assert here == lowest if RUNS_IN == "lowest" else here >= lowest


def test_the_lowest_python_runs_the_lowest():
    assert "| Python, on the controller | 3.11 or newer" in COMPATIBILITY
    assert re.search(r"^lowest: python3\.11$", TOX["testenv"]["base_python"], re.MULTILINE)
    assert RUNS_IN != "lowest" or sys.version_info[:2] == (3, 11)
