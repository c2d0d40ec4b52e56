# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Charts as Helm makes them. Without Helm their tests fail: one that is skipped shows nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RIVA = ROOT / "roles" / "riva" / "files" / "chart"
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")

FASTEST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*arguments: str | Path, values: dict | None = None) -> subprocess.CompletedProcess[str]:
    """What Helm answers; values: handed to it in the place of a file, where there are some."""
    assert HELM, "no helm: install requirements-dev.txt"
    return subprocess.run(
        [HELM, *arguments, *(["-f", "-"] if values is not None else [])],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def rendered(chart: Path, values: dict | None = None, release: str = "riva-asr", namespace: str = "riva") -> list[dict]:
    """The objects that a chart makes of these values. Whoever asks for the same gets the same: to be read only."""
    return _objects(chart, json.dumps(values or {}), release, namespace)


@cache
def _objects(chart: Path, values: str, release: str, namespace: str) -> list[dict]:
    answer = helm("template", release, chart, "--namespace", namespace, "--include-crds", values=json.loads(values))
    assert answer.returncode == 0, answer.stderr
    return [item for item in yaml.load_all(answer.stdout, FASTEST) if item]


def refusal(chart: Path, values: dict) -> str:
    """What a chart says against these values."""
    answer = helm("template", "riva-asr", chart, "--namespace", "riva", values=values)
    assert answer.returncode != 0, "it should have been refused"
    return answer.stderr
