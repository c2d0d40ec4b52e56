"""How the machine's own GPUs are shared out among the lab's nodes, and what a node lays for its pods."""

from __future__ import annotations

import sys

import pytest

from lab import cluster, real_gpus
from lab.bundle_format import BundleError
from lab.components import same_but_for_commands
from lab.settings import Lab, SettingError

GPUS = [{"product": "NVIDIA-H100-80GB-HBM3", "memory_mib": 81559, "minor": minor} for minor in range(4)]


@pytest.mark.parametrize(("nodes", "minors"), [(1, [[0, 1, 2, 3]]), (2, [[0, 1], [2, 3]]), (4, [[0], [1], [2], [3]])])
def test_all_on_one_node_or_the_same_number_on_each(nodes, minors):
    assert [[gpu["minor"] for gpu in node] for node in real_gpus.shared_out(GPUS, nodes)] == minors


def test_what_cannot_be_shared_out_is_told():
    with pytest.raises(real_gpus.GpuError, match="4 GPUs cannot be shared out evenly"):
        real_gpus.shared_out(GPUS, 3)
    with pytest.raises(real_gpus.GpuError, match="finds no GPU"):
        real_gpus.shared_out([], 1)


def test_without_a_driver_there_are_none(monkeypatch):
    monkeypatch.setattr(real_gpus, "NVML", "libnvidia-ml-that-is-not-there.so.1")
    assert real_gpus.found() == []


LISTING = """\t1042 libs found in cache `/etc/ld.so.cache'
\tlibnvidia-ml.so.1 (libc6,x86-64) => /usr/local/nvidia/lib64/libnvidia-ml.so.1
\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/libnvidia-ml.so.1
"""


def test_the_drivers_libraries_are_those_the_loader_takes():
    assert str(real_gpus.driver_folder(LISTING)) == "/usr/local/nvidia/lib64"
    with pytest.raises(real_gpus.GpuError, match="ldconfig -p"):
        real_gpus.driver_folder("")


def test_a_python_without_pytorch_is_told(tmp_path):
    with pytest.raises(real_gpus.GpuError, match="no package torch"):
        real_gpus.pytorch(sys.executable)
    with pytest.raises(real_gpus.GpuError, match="cannot be run"):
        real_gpus.pytorch(str(tmp_path / "python"))


def test_settings():
    with pytest.raises(SettingError, match="--torch"):
        Lab(gpus="real")
    with pytest.raises(SettingError, match="--gpus 'many'"):
        Lab(gpus="many")
    real = Lab(gpus="real", torch=sys.executable, gpu_nodes=1)
    # What a stand-in would read from a description, NVIDIA's programs ask the card.
    assert [node.gpu for node in real.nodes] == [None, None]


def test_a_node_that_gets_other_gpus_is_started_again():
    assert not same_but_for_commands('{"components": [], "real_gpu": null}', '{"components": [], "real_gpu": {}}')


def test_without_gpus_nothing_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster.preconditions, "check", lambda lab: None)
    monkeypatch.setattr(cluster, "prepare", lambda *_: pytest.fail("something was made"))
    monkeypatch.setattr(real_gpus, "found", list)
    lab = Lab(gpus="real", torch=sys.executable, gpu_nodes=1, state_folder=tmp_path / "state")
    with pytest.raises(real_gpus.GpuError, match="finds no GPU"):
        cluster.up(lab)
    assert not (tmp_path / "state").exists()


def test_a_bundle_without_the_plugin_is_refused(tmp_path):
    (tmp_path / "bundle.json").write_text('{"archives": ["base-1.tar"]}')
    lab = Lab(cache_folder=tmp_path)
    assert cluster.prepare(lab) == [tmp_path / "images/base-1.tar"]
    with pytest.raises(BundleError, match="--gpus real"):
        cluster.prepare(lab, with_gpus=True)
