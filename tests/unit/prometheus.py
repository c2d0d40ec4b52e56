# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' own engine, by promtool; from PATH, or from the lab's cache (`python -m lab prepare`)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from lab.settings import CACHE


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What promtool answers."""
    found = shutil.which("promtool", path=CACHE / "bin") or shutil.which("promtool")
    if not found:
        pytest.skip("promtool is neither in PATH nor in the lab's cache: python -m lab prepare")
    return subprocess.run([found, *words], capture_output=True, text=True, check=False)


def judged(folder: Path, *cases: dict) -> subprocess.CompletedProcess[str]:
    """What the engine makes of unit tests of rules; a scrape is 15 s where a case says nothing else."""
    file = folder / "tests.yml"
    tests = [{"interval": "15s", **case} for case in cases]
    file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}), encoding="utf-8")
    return promtool("test", "rules", file)


def holds(folder: Path, *cases: dict) -> None:
    """Fails where one of the cases is not as the engine has it."""
    done = judged(folder, *cases)
    assert done.returncode == 0, done.stdout + done.stderr
