# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lock files have what the lists ask for, each package in one version and with its checksums."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LISTS = {
    "requirements.lock": ["requirements.txt"],
    "requirements-dev.lock": ["requirements.txt", "requirements-dev.txt"],
}


def entries(lock: str) -> list[str]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    return [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]


def asked(lock: str, pattern: str) -> list:
    return [
        found
        for name in LISTS[lock]
        for found in re.findall(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    ]


def name_of(entry: str) -> str:
    return re.split(r"[=<> ;\[]", entry)[0].lower().replace("_", "-")


def version_of(entry: str) -> str:
    return re.match(r"[^=]+==([\w.]+)", entry).group(1)


@pytest.mark.parametrize("lock", LISTS)
def test_each_package_has_one_version_and_checksums(lock):
    assert len(entries(lock)) > 30
    for entry in entries(lock):
        assert re.match(r"[a-z0-9._-]+==[0-9][\w.]*( ; .*)? \\\n", entry), entry
        sums = re.findall(r"--hash=(\S+)", entry)
        assert sums, entry
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in sums), entry


@pytest.mark.parametrize("lock", LISTS)
def test_what_is_asked_for_is_locked_in_that_version(lock):
    # Some have a version for each range of Pythons.
    locked = {(name_of(entry), version_of(entry)) for entry in entries(lock)}
    pins = asked(lock, r"^([A-Za-z0-9_.-]+)==(\S+)$")
    assert pins
    assert {(name.lower().replace("_", "-"), version) for name, version in pins} <= locked
    every = asked(lock, r"^([A-Za-z0-9_.-]+)[=<>]")
    assert {name.lower().replace("_", "-") for name in every} <= {name for name, _version in locked}


def test_the_tests_have_what_users_get():
    users, tests = ({(name_of(entry), version_of(entry)) for entry in entries(lock)} for lock in LISTS)
    assert users <= tests


def test_the_setup_takes_nothing_that_is_not_locked():
    setup = (ROOT / "lab" / "setup.sh").read_text(encoding="utf-8")
    assert re.findall(r"pip install (.*)$", setup, re.MULTILINE) == [
        "--quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock"
    ]
