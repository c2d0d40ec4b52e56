# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""requirements.lock has what requirements.txt asks for, each package in one version and with its checksums."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PINS = dict(
    re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
)
ENTRIES = [
    entry
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    if not entry.startswith("#")
]


def name_of(entry: str) -> str:
    return re.split(r"[=<> ;\[]", entry)[0].lower().replace("_", "-")


@pytest.mark.parametrize("entry", ENTRIES, ids=name_of)
def test_each_package_has_one_version_and_checksums(entry):
    assert re.match(r"[a-z0-9._-]+==[0-9][\w.]*( ; .*)? \\\n", entry)
    sums = re.findall(r"--hash=(\S+)", entry)
    assert sums
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in sums)


def test_what_is_asked_for_is_locked_in_that_version():
    locked = {name_of(entry): re.match(r"[^=]+==([\w.]+)", entry).group(1) for entry in ENTRIES}
    assert PINS
    assert {name.lower(): version for name, version in PINS.items()}.items() <= locked.items()
    every = re.findall(r"^([A-Za-z0-9_.-]+)[=<>]", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert {name.lower() for name in every} <= set(locked)
