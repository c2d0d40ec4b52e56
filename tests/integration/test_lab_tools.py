"""Where the machine has no Go, the lab brings one from its Python package, and it builds."""

from __future__ import annotations

import subprocess

import pytest

from lab import binaries


def test_go_comes_from_its_python_package(tmp_path, monkeypatch):
    monkeypatch.setattr(binaries.shutil, "which", lambda program: None)
    go = binaries.find_go(tmp_path / "tools")
    assert go.startswith(str(tmp_path))
    source = tmp_path / "source"
    source.mkdir()
    (source / "go.mod").write_text("module example.test/hello\n\ngo 1.24\n")
    (source / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    subprocess.run([go, "build", "-o", "hello", "."], cwd=source, check=True)
    assert subprocess.run([source / "hello"], capture_output=True, text=True).stderr == "hello\n"
    # The second time it is there.
    monkeypatch.setattr(binaries.subprocess, "run", only_version(binaries.subprocess.run))
    assert binaries.find_go(tmp_path / "tools") == go


def only_version(run):
    """`subprocess.run`, but a failure for anything that is not `go version`."""

    def guarded(command, **options):
        if command[1:] != ["version"]:
            pytest.fail(f"{command} was run though Go is there")
        return run(command, **options)

    return guarded
