"""checkov on our chart as it is rendered: every finding is either mended or has its reason in the table below.

checkov gets a virtual environment of its own, for it brings a hundred packages; CHECKOV names one that is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.running_lab import HELM, REPOSITORY, run

VERSION = "3.3.30"
CHART = REPOSITORY / "roles" / "riva" / "files" / "chart"
DENIED = {"enabled": True, "defaultDeny": True}
LIMIT = {"streams": {"limit": 20}, "networkPolicy": DENIED, "modelStore": {"type": "pvc"}}
SHAPES = {
    "sdk": {**LIMIT, "modelInit": {"enabled": True, "models": ["a"]}},
    "nim": {**LIMIT, "engine": "nim", "image": {"tag": "1.0.0"}},
}
# Why a finding stays. Those of one shape only are named with it.
REASONS = {
    "CKV_K8S_11": "A limit of processor time throttles a pod in the middle of its streams.",
    "CKV_K8S_13": "What a model takes in memory is known to the site: `resources` of a service.",
    "CKV_K8S_43": "Tags are NVIDIA's releases; a digest goes into image.tag as TAG@sha256:….",
    "CKV_K8S_15": "A tag of a release does not change; Always would make the registry part of every start of a pod.",
    "CKV_K8S_22": "NVIDIA's servers write below their own root; what is ours is read-only.",
    "CKV_K8S_40": "The user of the image's own files: 99 in HAProxy's image, 1000 in a NIM's, 0 in the SDK's.",
    "sdk CKV_K8S_25": "Root of the SDK's image keeps five capabilities to write to folders of other users.",
    "sdk CKV_K8S_23": "NVIDIA's SDK image runs as root.",
    "sdk CKV_K8S_35": "NVIDIA's downloader reads its keys from the environment only.",
    "nim CKV_K8S_35": "A NIM reads its key from the environment only.",
}


@pytest.fixture(scope="module")
def checkov(tmp_path_factory):
    if named := os.environ.get("CHECKOV"):
        return Path(named)
    folder = tmp_path_factory.mktemp("checkov")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin" / "pip", "install", "--quiet", f"checkov=={VERSION}", timeout=1200)
    return folder / "bin" / "checkov"


def findings(checkov: Path, folder: Path, values: dict) -> dict[str, str]:
    """Ids of the checks that fail, with their names."""
    words = [HELM, "template", "riva-asr", CHART, "--namespace=riva", "-f", "-"]
    rendered = subprocess.run(words, input=json.dumps(values), capture_output=True, text=True, check=True).stdout
    (folder / "rendered.yaml").write_text(rendered)
    look = [checkov, "--file", folder / "rendered.yaml", "--framework", "kubernetes", "--output", "json"]
    done = subprocess.run([*look, "--skip-download", "--soft-fail"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["summary"]["passed"] > 50
    return {item["check_id"]: item["check_name"] for item in told["results"]["failed_checks"]}


@pytest.mark.parametrize("shape", SHAPES)
def test_no_finding_without_a_reason(checkov, tmp_path, shape):
    found = findings(checkov, tmp_path, SHAPES[shape])
    reasons = {name.split()[-1] for name in REASONS if " " not in name or name.startswith(f"{shape} ")}
    assert {check: name for check, name in found.items() if check not in reasons} == {}
    # A reason that nothing needs any more goes.
    assert {check for check in reasons if check not in found} == set()


def test_it_finds_what_is_wrong(checkov, tmp_path):
    found = findings(checkov, tmp_path, {**SHAPES["nim"], "securityContext": {"privileged": True}})
    assert "CKV_K8S_16" in found
