#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: push_images
short_description: Brings the images of a bundle into a registry
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Takes the OCI layout C(images) of a bundle and copies with skopeo what the registry does not have. Digests stay.
  - Each layer is held against its checksum on the way; one that changed is refused.
  - Where the registry wants a login or has a certificate of its own CA, skopeo is told as it always is, by
    C(skopeo login) and a folder in C(/etc/containers/certs.d).
requirements:
  - skopeo
options:
  folder:
    description: Folder of the bundle.
    type: path
    required: true
  registry:
    description: >-
      Registry, with a port and a folder if it has some, such as C(registry.example.com/mirror). An image is below it
      with all of its name but the host.
    type: str
    required: true
  only:
    description: Names in the registry, as RV(images) has them; only these images are looked at. All where left out.
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: The registry is asked for each image, and nothing is copied.
  diff_mode:
    support: full
    description: Each image that is copied, with its digest.
"""

EXAMPLES = r"""
- name: The registry has the images of the bundle
  speechops.riva.push_images:
    folder: /media/bundle
    registry: registry.example.com/mirror
"""

RETURN = r"""
images:
  description: Digest of each image by its name in the registry.
  type: dict
  returned: success
pushed:
  description: Names of the images that the registry did not have, sorted.
  type: list
  elements: str
  returned: success
"""

import hashlib
import json
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import bundles


def digest_there(module, skopeo, target):
    """Digest of an image of the registry; empty where the registry does not have it."""
    # Not as text: the digest is that of the bytes.
    rc, out, err = module.run_command([skopeo, "inspect", "--raw", f"docker://{target}"], encoding=None)
    if rc == 0:
        return f"sha256:{hashlib.sha256(out).hexdigest()}"
    told = err.decode(errors="replace").strip()
    if not bundles.is_missing(told):
        module.fail_json(msg=f"The registry can't be asked for {target}: {told}")
    return ""


def as_folder(layout, digest, folder):
    """An image of the layout as skopeo's transport C(dir) has it: older skopeos read nothing of Docker's from a layout.

    Raises ValueError: a manifest is not what its name says.
    """
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    parts, manifests = {"manifest.json": digest}, [digest]
    while manifests:
        name = manifests.pop()
        content = (layout / "blobs" / name.replace(":", "/")).read_bytes()
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != name:
            raise ValueError(f"{name} has changed in the bundle")
        further, others = bundles.parts_of(json.loads(content))
        parts |= {f"{one.partition(':')[2]}.manifest.json": one for one in further}
        parts |= {one.partition(":")[2]: one for one in others}
        manifests += further
    for name, part in parts.items():
        (folder / name).symlink_to((layout / "blobs" / part.replace(":", "/")).resolve())


def push(module, skopeo, layout, digest, target):
    with tempfile.TemporaryDirectory() as work:
        try:
            as_folder(layout, digest, Path(work))
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"{target} can't be copied there: {error}")
        words = ["copy", "--quiet", "--all", "--preserve-digests", f"dir:{work}", f"docker://{target}"]
        rc, _out, err = module.run_command([skopeo, *words])
        if rc != 0:
            module.fail_json(msg=f"{target} can't be copied there: {err.strip()}")


def main():
    spec = {
        "folder": {"type": "path", "required": True},
        "registry": {"type": "str", "required": True},
        "only": {"type": "list", "elements": "str"},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    layout, registry = Path(module.params["folder"]) / "images", module.params["registry"].rstrip("/")
    try:
        images = bundles.layout_images(json.loads((layout / "index.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        remedy = "make it with bundle_copy_images=true"
        module.fail_json(msg=f"The bundle in {layout.parent} has no images that can be read ({error}): {remedy}")
    targets = {name: bundles.in_registry(name, registry) for name in images}
    if module.params["only"] is not None:
        if strange := sorted({*module.params["only"]} - {*targets.values()}):
            module.fail_json(msg=f"The bundle in {layout.parent} has nothing for {', '.join(strange)} (option only)")
        targets = {name: target for name, target in targets.items() if target in module.params["only"]}
        images = {name: images[name] for name in targets}
    skopeo = module.get_bin_path("skopeo")
    if skopeo is None:
        module.fail_json(msg=f"skopeo is not on this machine: {bundles.SKOPEO}")
    there = {name: digest_there(module, skopeo, target) for name, target in targets.items()}
    missing = sorted(name for name, digest in images.items() if there[name] != digest)
    if not module.check_mode:
        for name in missing:
            push(module, skopeo, layout, images[name], targets[name])
    module.exit_json(
        changed=bool(missing),
        images={targets[name]: digest for name, digest in sorted(images.items())},
        pushed=sorted(targets[name] for name in missing),
        diff={
            "before": {targets[name]: there[name] for name in missing},
            "after": {targets[name]: images[name] for name in missing},
        },
    )


if __name__ == "__main__":
    main()
