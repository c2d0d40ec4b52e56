#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: make_bundle
short_description: Collects what an installation needs where there is no way out
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Fills a folder with the charts, the Helm program, the Python packages, the collection, the list of all images, a
    bill of materials (CycloneDX 1.6), one file of variables that points each role there, and checksums of all of it.
  - Images are listed, for every tool that copies images between registries, and with O(copy_images) also fetched into
    C(images), an OCI layout.
  - C(SHA256SUMS) is written last, so a bundle without it was interrupted. Run it again.
options:
  folder:
    description: Folder of the bundle. What lies in its folders charts, collections and helm is replaced.
    type: path
    required: true
  collection_folder:
    description: Where the collection lies, as a checkout or installed.
    type: path
    required: true
  helm_binary_path:
    description: Path of the helm program; it goes into the bundle.
    type: path
    required: true
  python:
    description: >-
      Python whose pip fetches the packages of the collection's requirements.lock; none are fetched where left out.
    type: path
  charts:
    description: Charts to take along.
    type: list
    elements: dict
    required: true
    suboptions:
      role:
        description: Role that installs it.
        type: str
        required: true
      chart_ref:
        description: Chart; a name in a repository, a URL, an OCI reference, a folder or a tgz file.
        type: str
        required: true
      chart_version:
        description: Version of the chart.
        type: str
      chart_repo_url:
        description: URL of the repository where the chart is a bare name.
        type: str
      chart_digest:
        description: >-
          SHA-256 of the chart's archive, or V(index), as M(speechops.riva.fetch_chart) takes it; a folder or a file
          needs none.
        type: str
        default: ""
      values:
        description: Values that it will be installed with, as far as they are known; they may name other images.
        type: dict
        default: {}
      role_values:
        description: >-
          What the role sets beside them from variables of its own. The chart is rendered with it for its images, and
          none of it is written into the file of variables.
        type: dict
        default: {}
  images:
    description: Further images for the list.
    type: list
    elements: str
    default: []
  registry:
    description: >-
      Registry that will have the images, such as C(registry.example.com/mirror). The file of variables then names it
      in each chart's own keys; where left out the images keep their names, for a mirror in the nodes' containerd.
    type: str
  image_variables:
    description: >-
      Variables of roles that name a registry's folder or image, with what they are. With O(registry) the file of
      variables has them below that.
    type: dict
    default: {}
  driver_settings:
    description: >-
      Variables of the role nvidia_driver without their prefix, where it installs drivers on the nodes. C(packages.txt)
      then has the packages of each distribution, for a mirror of them.
    type: dict
  copy_images:
    description: >-
      Whether skopeo fetches the images into the folder C(images), one OCI layout in which layers are kept once. What
      lies there is not fetched again, and what no image of the list needs is removed.
    type: bool
    default: false
  all_platforms:
    description: With O(copy_images), whether the images of all architectures are taken, or this machine's.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is fetched or written; it is told whether there is a bundle.
  diff_mode:
    support: none
    description: A bundle is too much to be read as a difference.
"""

EXAMPLES = r"""
- name: A bundle has what the site needs
  speechops.riva.make_bundle:
    folder: /media/bundle
    collection_folder: /usr/share/ansible/collections/ansible_collections/speechops/riva
    helm_binary_path: /usr/local/bin/helm
    charts:
      - role: traefik
        chart_ref: traefik
        chart_version: 41.3.0
        chart_repo_url: https://traefik.github.io/charts
        chart_digest: index
"""

RETURN = r"""
files:
  description: Files of the bundle with their SHA-256.
  type: dict
  returned: success
images:
  description: Images that the charts name, sorted.
  type: list
  elements: str
  returned: success
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

try:
    import yaml
except ImportError:  # Ansible itself needs it, and this runs on the controller
    yaml = None  # type: ignore[assignment]

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.text.converters import to_text
from ansible_collections.speechops.riva.plugins.module_utils import bundles, chart_archives
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, source_of
from ansible_collections.speechops.riva.plugins.module_utils.riva_values import merged

SUMS = "SHA256SUMS"
CHART = {
    "role": {"type": "str", "required": True},
    "chart_ref": {"type": "str", "required": True},
    "chart_version": {"type": "str"},
    "chart_repo_url": {"type": "str"},
    "chart_digest": {"type": "str", "default": ""},
    "values": {"type": "dict", "default": {}},
    "role_values": {"type": "dict", "default": {}},
}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(target, files):
    """An archive that has the same bytes whenever the files have; files is a list of (name in it, path)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in sorted(files):
            member = archive.gettarinfo(str(path), name)
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            if member.isdir():
                archive.addfile(member)
                continue
            with open(path, "rb") as file:
                archive.addfile(member, file)
    with open(target, "wb") as archived, gzip.GzipFile(filename="", mode="wb", fileobj=archived, mtime=0) as stream:
        stream.write(packed.getvalue())


def values_of(chart):
    """Default values of a chart with those of its sub-charts, which the chart's own file need not have."""
    found: dict = {}
    with tarfile.open(chart) as archive:
        for name in sorted(archive.getnames(), key=len, reverse=True):
            parts = name.split("/")
            if parts[-1] == "values.yaml" and set(parts[1:-1:2]) <= {"charts"}:
                values = yaml.safe_load(archive.extractfile(name) or "") or {}
                for sub in reversed(parts[2:-1:2]):
                    values = {sub: values}
                found = merged(found, values)
    return found


def files_below(folder):
    return [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]


class Bundle:
    """One bundle while it is made."""

    def __init__(self, module):
        self.module, self.asked = module, module.params
        self.folder = Path(self.asked["folder"])
        self.images = set(self.asked["images"])
        self.components = []
        self.variables = {}

    def run(self, words, why, encoding="utf-8"):
        """What a command prints, as text; as bytes with the encoding None."""
        rc, out, err = self.module.run_command([str(word) for word in words], encoding=encoding)
        if rc != 0:
            self.module.fail_json(msg=f"{why}: {to_text(err).strip() or to_text(out).strip()}")
        return out

    def fresh(self, name):
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def add(self, kind, name, version, path):
        where = path.relative_to(self.folder).as_posix()
        self.components.append(bundles.file_component(kind, name, version, digest(path), where))

    def chart(self, folder, chart):
        helm, ref = self.asked["helm_binary_path"], chart["chart_ref"]
        why = f"The chart {ref} of role {chart['role']} can't be fetched"
        try:
            source = source_of(chart, f"{chart['role']}_chart_digest")
            path = chart_archives.archive(self.module.run_command, helm, source)
        except ChartError as error:
            self.module.fail_json(msg=str(error))
        shown = yaml.safe_load(self.run([helm, "show", "chart", path], why))
        target = folder / f"{shown['name']}-{shown['version']}.tgz"
        if os.path.isdir(path):
            pack(target, [(f"{shown['name']}/{file.relative_to(path)}", file) for file in files_below(path)])
        else:
            shutil.copyfile(path, target)
        self.add("helm", shown["name"], shown["version"], target)
        values, of_role = chart["values"], chart["role_values"]
        self.images.update(self.rendered(chart, target, merged(of_role, values)))
        self.variables[f"{chart['role']}_chart_ref"] = f"{{{{ bundle_folder }}}}/charts/{target.name}"
        if registry := self.asked["registry"]:
            moved = bundles.mirrored(merged(merged(values_of(target), of_role), values), registry)
            images = self.rendered(chart, target, merged(merged(of_role, values), moved))
            if left := sorted(image for image in images if not image.startswith(f"{registry}/")):
                self.module.warn(f"{ref}: no value of the chart moves {', '.join(left)} to {registry}")
            # What the role's variables say is said there.
            values = merged(values, bundles.without(moved, bundles.without(of_role, values)))
            if values:
                self.variables[f"{chart['role']}_values"] = values

    def rendered(self, chart, file, values):
        """Images that the chart names with these values."""
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as written:
            json.dump(values, written)
            written.flush()
            helm = [
                self.asked["helm_binary_path"],
                "template",
                "bundle",
                file,
                "--namespace=bundle",
                "--include-crds=false",
            ]
            why = f"The chart {chart['chart_ref']} of role {chart['role']} can't be rendered"
            text = self.run([*helm, f"--values={written.name}"], why)
        return {image for item in yaml.safe_load_all(text) for image in bundles.images_of(item)}

    def copied(self, folder):
        """Fetch into an OCI layout what of the images is not there, and return their digests, which stay theirs.

        By way of a plain folder: an OCI layout of skopeo's own making has other digests than images in Docker's format.
        """
        skopeo = self.module.get_bin_path("skopeo")
        if skopeo is None:
            self.module.fail_json(msg=f"skopeo is not on this machine: {bundles.SKOPEO}")
        blobs, file = folder / "blobs" / "sha256", folder / "index.json"
        blobs.mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = json.loads(file.read_text()) if file.exists() else {"schemaVersion": 2, "manifests": []}
        for image in sorted(self.images):
            name, why = f"docker://{bundles.without_tag(image)}", f"The image {image} can't be copied"
            # A digest may be that of a list, which names the images of all platforms.
            every = "@" in image or self.asked["all_platforms"]
            source = f"sha256:{hashlib.sha256(self.run([skopeo, 'inspect', '--raw', name], why, None)).hexdigest()}"
            if bundles.layout_has(index, image, source, every):
                continue
            with tempfile.TemporaryDirectory(dir=folder) as work:
                words = [skopeo, "copy", "--quiet", "--preserve-digests", *(["--all"] if every else [])]
                self.run([*words, name, f"dir:{work}"], why)
                manifest = Path(work, "manifest.json").read_bytes()
                added = bundles.descriptor(manifest, image, source)
                Path(work, "manifest.json").rename(blobs / added["digest"].partition(":")[2])
                for part in Path(work).iterdir():
                    if re.fullmatch(r"[0-9a-f]{64}(\.manifest\.json)?", part.name):
                        part.rename(blobs / part.name.partition(".")[0])
            index = bundles.layout_of(index, self.images, added)
            file.write_text(json.dumps(index))
        index = bundles.layout_of(index, self.images)
        file.write_text(json.dumps(index))
        needed, manifests = set(), bundles.parts_of(index)[0]
        while manifests:
            name = manifests.pop()
            further, others = bundles.parts_of(json.loads((folder / "blobs" / name.replace(":", "/")).read_text()))
            needed |= {name, *others}
            manifests += further
        for blob in blobs.iterdir():
            if f"sha256:{blob.name}" not in needed:
                blob.unlink()
        return bundles.layout_images(index)

    def helm(self, folder):
        program = self.asked["helm_binary_path"]
        version = self.run([program, "version", "--template={{ .Version }}"], "Helm does not run").strip().lstrip("v")
        machine = f"linux-{ARCHITECTURES.get(platform.machine(), platform.machine())}"
        target = folder / f"helm-v{version}-{machine}.tar.gz"
        pack(target, [(f"{machine}/helm", Path(program).resolve())])
        Path(f"{target}.sha256sum").write_text(f"{digest(target)}  {target.name}\n")
        self.add("generic", "helm", version, target)
        self.variables["helm_version"] = version
        # Packed here, so not the archive that get.helm.sh has.
        self.variables["helm_checksum"] = digest(target)
        self.variables["helm_mirror"] = "file://{{ bundle_folder }}/helm"

    def collection(self, folder):
        source = Path(self.asked["collection_folder"])
        with tempfile.TemporaryDirectory() as work:
            if (source / "galaxy.yml").exists():
                galaxy = Path(sys.executable).with_name("ansible-galaxy")
                words = ["collection", "build", source, "--output-path", work]
                self.run([galaxy if galaxy.exists() else "ansible-galaxy", *words], "The collection can't be built")
                (built,) = Path(work).glob("*.tar.gz")
                source = Path(work) / "opened"
                with tarfile.open(built) as archive:
                    archive.extractall(source)
            manifest = json.loads((source / "MANIFEST.json").read_text())
            listed = json.loads((source / "FILES.json").read_text())["files"]
            # ansible-galaxy wants the folders too.
            names = [item["name"] for item in listed if item["name"] != "."] + ["MANIFEST.json", "FILES.json"]
            version = manifest["collection_info"]["version"]
            target = folder / f"speechops-riva-{version}.tar.gz"
            pack(target, [(name, source / name) for name in names])
        self.add("generic", "speechops.riva", version, target)
        return version

    def wheels(self, folder):
        """Each by its version and checksum from the lock file; what an earlier run fetched is used."""
        file = Path(self.asked["collection_folder"]) / "requirements.lock"
        words = [
            self.asked["python"],
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--prefer-binary",
        ]
        self.run(
            [*words, f"--dest={folder}", f"--find-links={folder}", f"--requirement={file}"],
            "pip can't fetch the wheels",
        )
        for wheel in files_below(folder):
            if named := bundles.wheel_name(wheel.name):
                self.add("pypi", *named, wheel)

    def write(self):
        (self.folder / SUMS).unlink(missing_ok=True)
        charts = self.fresh("charts")
        for chart in self.asked["charts"]:
            self.chart(charts, chart)
        self.helm(self.fresh("helm"))
        version = self.collection(self.fresh("collections"))
        if self.asked["python"]:
            wheels = self.folder / "wheels"
            wheels.mkdir(exist_ok=True)
            self.wheels(wheels)
        if registry := self.asked["registry"]:
            named = bundles.mirrored(
                {name: {"image": value} for name, value in self.asked["image_variables"].items()}, registry
            )
            self.variables |= {name: value["image"] for name, value in named.items()} | {"bundle_registry": registry}
        digests = self.copied(self.folder / "images") if self.asked["copy_images"] else {}
        (self.folder / "images.txt").write_text("".join(f"{image}\n" for image in sorted(self.images)))
        (self.folder / "packages.txt").unlink(missing_ok=True)
        if settings := self.asked["driver_settings"]:
            told = "# distribution, repository, repository of the toolkit, packages; KERNEL is each node's uname -r"
            (self.folder / "packages.txt").write_text("\n".join([told, *bundles.node_packages(settings), ""]))
        head = "# Points each role at this bundle: -e @variables.yml -e bundle_folder=/where/it/lies\n---\n"
        (self.folder / "variables.yml").write_text(head + yaml.safe_dump(self.variables))
        components = self.components + [
            bundles.image_component(image, digests.get(image, "")) for image in sorted(self.images)
        ]
        bill = json.dumps(bundles.sbom(version, components), indent=1)
        (self.folder / "sbom.cdx.json").write_text(f"{bill}\n")
        # The layout's blobs have their checksums as names, and its index, which is listed, names the first of them.
        listed = [
            path for path in files_below(self.folder) if path.relative_to(self.folder).parts[:2] != ("images", "blobs")
        ]
        sums = {path.relative_to(self.folder).as_posix(): digest(path) for path in listed}
        text = "".join(f"{sum_}  {name}\n" for name, sum_ in sums.items())
        (self.folder / SUMS).write_text(text)
        return sums, text


def main():
    spec = {
        "folder": {"type": "path", "required": True},
        "collection_folder": {"type": "path", "required": True},
        "helm_binary_path": {"type": "path", "required": True},
        "python": {"type": "path"},
        "charts": {"type": "list", "elements": "dict", "required": True, "options": CHART},
        "images": {"type": "list", "elements": "str", "default": []},
        "registry": {"type": "str"},
        "image_variables": {"type": "dict", "default": {}},
        "driver_settings": {"type": "dict"},
        "copy_images": {"type": "bool", "default": False},
        "all_platforms": {"type": "bool", "default": False},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    sums = Path(module.params["folder"]) / SUMS
    before = sums.read_text() if sums.is_file() else None
    if module.check_mode:
        module.exit_json(changed=before is None, files={}, images=[])
    try:
        sums.parent.mkdir(parents=True, exist_ok=True)
        bundle = Bundle(module)
        files, text = bundle.write()
    except (OSError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"The bundle in {sums.parent} can't be written: {error}")
    module.exit_json(changed=text != before, files=files, images=sorted(bundle.images))


if __name__ == "__main__":
    main()
