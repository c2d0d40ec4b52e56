"""Every example of every module's documentation, run on the lab in check mode, as `ansible-doc` shows it.

What an example names that is another one on each machine (paths, charts, sound) is replaced; the rest stays.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.integration.running_lab import AUDIO, CHARTS, HELM, REPOSITORY

MODULES = sorted((REPOSITORY / "plugins" / "modules").glob("*.py"))
# What an example meets on the lab that is no fault of it: part of the message that says so.
REFUSED = {
    "The certificate's Secret is there": "there is no such Secret in namespace traefik",
    "Thirty callers who are read to": "riva/riva-tts",
    "Three replicas of two GPUs each fit, those that run already counted in": "3 needed (min_fitting_pods)",
    "The labels are those of the hardware that the nodes really have": "the cluster has no node of this name",
    "The registry has the images of the bundle": "has no images that can be read",
    "Four GPUs of compute capability 8.0 can be claimed": "has no device of class gpu.nvidia.com",
}
# What the module gpu_hardware_info returned on a host with an H100.
HARDWARE = REPOSITORY / "tests" / "fixtures" / "gpu" / "h100-hardware-info.json"


def examples(path: Path) -> list[dict]:
    (text,) = re.findall(r'^EXAMPLES = r"""\n(.*?)^"""', path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return yaml.safe_load(text)


EXAMPLES = [(path.stem, task) for path in MODULES for task in examples(path)]


def on_the_lab(task: dict, charts: Path, folder: Path) -> dict:
    """A task with this machine's paths in place of the example's."""
    text = json.dumps(task)
    for there, here in {
        "/etc/riva/admin.kubeconfig": "{{ cluster_kubeconfig }}",
        "/etc/kubernetes/admin.conf": "{{ cluster_kubeconfig }}",
        "/usr/local/bin/helm": str(HELM),
        "calls.csv": str(folder / "calls.csv"),
        "/srv/speech/calls": AUDIO[0] if AUDIO else "/srv/speech/calls",
    }.items():
        text = text.replace(there, here)

    def local(charted: dict) -> dict:
        # The lab has no way to the charts' repositories.
        if "chart_ref" in charted:
            charted["chart_ref"] = str(charts / charted["chart_ref"])
            charted.pop("chart_repo_url", None)
            charted.pop("chart_version", None)
        return charted

    return json.loads(text, object_hook=local)


@pytest.fixture(scope="module")
def results(installed, tmp_path_factory):
    """Name of an example to what its task returned, all of them run in one play."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "calls.csv").write_text("start,length\n0,5\n1,5\n", encoding="utf-8")
    tasks = []
    for number, (_module, task) in enumerate(EXAMPLES):
        tasks.append({**on_the_lab(task, CHARTS, folder), "ignore_errors": True})
        tasks[-1].setdefault("register", f"__example_{number}")
    seen = {task["register"]: task["name"] for task in tasks}
    collect = {
        "name": "What they returned is kept",
        "ansible.builtin.copy": {
            "content": "{{ {" + ", ".join(f"'{name}': {name}" for name in seen) + "} | to_json }}",
            "dest": str(folder / "results.json"),
        },
        "check_mode": False,
        "no_log": True,
    }
    play = {"name": "Examples", "hosts": "riva_clusters", "gather_facts": False, "tasks": [*tasks, collect]}
    (folder / "examples.yml").write_text(json.dumps([play]), encoding="utf-8")
    others = {"all": {"hosts": {"gpu-1": {"hardware": json.loads(HARDWARE.read_text(encoding="utf-8"))}}}}
    (folder / "hosts.json").write_text(json.dumps(others), encoding="utf-8")
    installed.play("--check", "-i", "inventories/lab", "-i", str(folder / "hosts.json"), str(folder / "examples.yml"))
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {seen[name]: result for name, result in found.items()}


@pytest.mark.parametrize(("module", "name"), [(module, task["name"]) for module, task in EXAMPLES])
def test_an_example_does_what_it_says(results, module, name):
    result = results[name]
    assert not result.get("skipped")
    if name in REFUSED:
        assert result["failed"]
        assert REFUSED[name] in result["msg"]
    else:
        assert not result.get("failed"), result["msg"]
