"""Programs of the lab: from the cache, from a release with its checksum, or built from a Go module."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading

import pytest

from lab import binaries
from lab.binaries import BinaryError, Module

DIGEST = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        (DIGEST, DIGEST),
        (f"{DIGEST}\n", DIGEST),
        (f"{DIGEST.upper()}  tool.tgz\n", DIGEST),
        (f"{'0' * 64}  other.tgz\n{DIGEST}  tool.tgz\n", DIGEST),
        (f"{DIGEST} *build/release/tool.tgz\n", DIGEST),
    ],
)
def test_expected_checksum(listing, expected):
    assert binaries.expected_checksum(listing, "tool.tgz") == expected


@pytest.mark.parametrize("listing", ["", f"{DIGEST}  other.tgz", "not-a-digest  tool.tgz"])
def test_a_listing_without_the_file_is_an_error(listing):
    with pytest.raises(BinaryError, match=r"no SHA-256 for tool\.tgz"):
        binaries.expected_checksum(listing, "tool.tgz")


def packed(member: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        information = tarfile.TarInfo(member)
        information.size = len(content)
        archive.addfile(information, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module with one program, whose source is a Go module of two files."""
    folder = tmp_path / "go" / "greeter"
    (folder / "cmd" / "greeter").mkdir(parents=True)
    (folder / "go.mod").write_text("module example.test/greeter\n\ngo 1.24\n\ntool example.test/greeter/cmd/greeter\n")
    (folder / "go.sum").write_text("")
    source = 'package main\n\nvar version = "none"\n\nfunc main() { println("built", version) }\n'
    (folder / "cmd" / "greeter" / "main.go").write_text(source)
    monkeypatch.setattr(binaries, "GO_MODULES", tmp_path / "go")
    monkeypatch.setattr(binaries, "architecture", lambda: "amd64")
    return Module(
        name="greeter",
        version="1.2",
        programs=("greeter",),
        ldflags="-X main.version=1.2",
        release="releases.test/v{version}/greeter-{arch}.tgz",
        checksums="releases.test/v{version}/sums.txt",
        member="greeter-{version}/greeter",
    )


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A real web server in place of the official hosts; returns its folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_):
            """Keep the test's output clean."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(binaries.MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()


def publish(mirror, content: bytes, digest: str | None = None) -> None:
    release = mirror / "releases.test" / "v1.2"
    release.mkdir(parents=True)
    (release / "greeter-amd64.tgz").write_bytes(content)
    (release / "sums.txt").write_text(f"{digest or hashlib.sha256(content).hexdigest()}  greeter-amd64.tgz\n")


def test_a_release_is_downloaded_and_then_cached(module, mirror, tmp_path):
    publish(mirror, packed("greeter-1.2/greeter", b"#!/bin/sh\necho released\n"))
    destination = tmp_path / "bin"
    assert binaries.provide(module, destination) == "release"
    assert subprocess.run([destination / "greeter"], capture_output=True, text=True).stdout == "released\n"
    assert binaries.provide(module, destination) == "cache"


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(module, mirror, tmp_path):
    publish(mirror, packed("greeter-1.2/greeter", b"something else"), digest="0" * 64)
    with pytest.raises(BinaryError, match="was not used") as caught:
        binaries.provide(module, tmp_path / "bin")
    assert binaries.MIRROR_VARIABLE in str(caught.value)
    assert not (tmp_path / "bin" / "greeter").exists()


def test_without_a_release_the_module_is_built(module, mirror, tmp_path):
    destination = tmp_path / "bin"
    assert binaries.provide(module, destination) == "build"
    done = subprocess.run([destination / "greeter"], capture_output=True, text=True)
    assert done.stderr == "built 1.2\n"
    assert json.loads((destination / ".greeter.json").read_text())["source"] == "build"
    assert [path.name for path in destination.iterdir() if "partial" in path.name] == []


def test_without_a_network_the_module_is_built(module, tmp_path, monkeypatch):
    monkeypatch.setenv(binaries.MIRROR_VARIABLE, "http://127.0.0.1:1/")
    assert binaries.provide(module, tmp_path / "bin") == "build"


def test_another_version_or_a_lost_program_is_not_the_cache(module, mirror, tmp_path):
    destination = tmp_path / "bin"
    binaries.provide(module, destination)
    other = dataclasses.replace(module, ldflags="-X main.version=1.3")
    assert binaries.provide(other, destination) == "build"
    os.unlink(destination / "greeter")
    assert binaries.provide(other, destination) == "build"


def test_a_failed_build_names_the_module_and_the_compilers_words(module, mirror, tmp_path):
    (module.folder / "cmd" / "greeter" / "main.go").write_text("package main\n\nfunc main() { missing() }\n")
    with pytest.raises(BinaryError, match=r"greeter: the build failed(.|\n)*undefined: missing"):
        binaries.provide(module, tmp_path / "bin")


def test_every_module_has_its_pinned_files():
    for module in binaries.MODULES:
        text = (module.folder / "go.mod").read_text()
        assert "tool" in text, module.name
        assert (module.folder / "go.sum").stat().st_size > 0, module.name
        assert bool(module.release) == bool(module.checksums), module.name
