# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sharing and MIG of groups as NVIDIA's device plugin v0.19.0 reads them: by its own code, built from its Go module."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import device_plugin

from lab.binaries import find_go
from lab.settings import CACHE
from tests.integration.running_lab import REPOSITORY

GPU, SLICE = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"
# What NVIDIA's code makes of a group: its MIG strategy, how it shares, and (resource, new name, replicas) of each.
GROUPS = {
    "whole": ({}, ("none", "timeSlicing", [])),
    "single": ({"mig_strategy": "single"}, ("single", "timeSlicing", [])),
    "mixed": ({"mig_strategy": "mixed"}, ("mixed", "timeSlicing", [])),
    "shared": ({"sharing": "time-slicing", "replicas": 4}, ("none", "timeSlicing", [(GPU, None, 4)])),
    "renamed": (
        {"sharing": "time-slicing", "replicas": 2, "rename": True},
        ("none", "timeSlicing", [(GPU, f"{GPU}.shared", 2)]),
    ),
    "mps": ({"sharing": "mps", "replicas": 10}, ("none", "mps", [(GPU, None, 10)])),
    "slices": (
        {"mig_strategy": "mixed", "sharing": "time-slicing", "replicas": 2, "resources": [SLICE]},
        ("mixed", "timeSlicing", [(SLICE, None, 2)]),
    ),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What NVIDIA's code reads out of configurations."""
    program = tmp_path_factory.mktemp("configs") / "configs"
    source = REPOSITORY / "tests" / "gpu_configs"
    subprocess.run([find_go(CACHE / "tools"), "build", "-o", str(program), "."], cwd=source, check=True, timeout=580)

    def ask(texts):
        return subprocess.run([str(program)], input=json.dumps(texts), capture_output=True, text=True)

    return ask


def test_nvidias_code_reads_each_group_as_it_is_meant(read):
    groups = [{"name": name, **group} for name, (group, _made) in GROUPS.items()]
    done = read(device_plugin.configurations({}, groups))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert set(made) == {"default", *GROUPS}
    assert {name: told(made[name]) for name in GROUPS} == {name: meant for name, (_group, meant) in GROUPS.items()}


def told(config):
    (kind, sharing) = max(config["sharing"].items(), key=lambda pair: "resources" in pair[1])
    resources = [(item["name"], item.get("rename"), item["replicas"]) for item in sharing.get("resources", [])]
    return config["flags"]["migStrategy"], kind, resources


WRONG = {
    "another version": {"version": "v2"},
    "a word that it does not know": {"version": "v1", "share": {}},
    "one replica": {"version": "v1", "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": 1}]}}},
}


@pytest.mark.parametrize("config", WRONG.values(), ids=WRONG.keys())
def test_it_refuses_what_is_wrong(read, config):
    assert read({"wrong": json.dumps(config)}).returncode == 1
