# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How an image of a bundle's layout is handed to skopeo: as its own folder, each manifest held against its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.modules import push_images


def add(layout: Path, content) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return f"sha256:{digest}"


@pytest.fixture
def image(tmp_path):
    """A layout, and the digest of its one image: a list of two platforms, which share a layer."""
    layout = tmp_path / "layout"
    shared = {"digest": add(layout, b"a layer")}
    manifests = [
        {"config": {"digest": add(layout, {"architecture": name})}, "layers": [shared]} for name in ("amd64", "arm64")
    ]
    return layout, add(layout, {"manifests": [{"digest": add(layout, manifest)} for manifest in manifests]})


def test_a_folder_has_all_parts_of_an_image(image, tmp_path):
    layout, digest = image
    folder = tmp_path / "folder"
    folder.mkdir()
    push_images.as_folder(layout, digest, folder)
    names = sorted(path.name for path in folder.iterdir())
    assert sum(name.endswith(".manifest.json") for name in names) == 2
    # One layer, two configurations.
    assert sum(len(name) == 64 for name in names) == 3
    assert f"sha256:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}" == digest
    assert {"manifest.json", "version"} < set(names)
    assert [path.name for path in folder.iterdir() if path.name != "version" and not path.resolve().is_file()] == []


@pytest.mark.parametrize("place", ["the list", "a platform"])
def test_a_changed_manifest_is_refused(image, tmp_path, place):
    layout, digest = image
    blobs = layout / "blobs" / "sha256"
    platform = json.loads((blobs / digest[7:]).read_text())["manifests"][1]["digest"]
    victim = platform if place == "a platform" else digest
    content = json.loads((blobs / victim[7:]).read_text())
    (blobs / victim[7:]).write_text(json.dumps({**content, "annotations": {"by": "somebody"}}))
    with pytest.raises(ValueError, match=f"{victim} has changed"):
        push_images.as_folder(layout, digest, tmp_path)


def test_an_image_that_the_bundle_lacks_is_refused(image, tmp_path, run_module):
    layout, digest = image
    entry = {"digest": digest, "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/traefik:v3.7.6"}}
    (tmp_path / "images").symlink_to(layout)
    (layout / "index.json").write_text(json.dumps({"manifests": [entry]}))
    told = run_module("push_images", folder=str(tmp_path), registry="inside:5000", only=["inside:5000/other:1"])
    assert told["failed"]
    assert "has nothing for inside:5000/other:1 (option only)" in told["msg"]
