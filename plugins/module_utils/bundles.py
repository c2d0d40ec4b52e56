# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle for a network without a way out has to hold, and how it is told of. Pure rules."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping

# Arguments of prometheus-operator that name images of pods it makes.
_ARGUMENT = re.compile(r"^--(?:prometheus-config-reloader|thanos-default-base-image|[a-z-]*-default-base-image)=(\S+)$")
_IMAGE = re.compile(r"^[a-z0-9][\w./-]*(:\d+/[\w./-]+)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$")


def images_of(item) -> Iterator[str]:
    """Images that a rendered object names: of containers, of what operators read, in arguments and environment."""
    if isinstance(item, Mapping):
        if item.get("enabled") is False:
            return
        image = item.get("image")
        if isinstance(image, str) and image:
            # ClusterPolicy of the GPU Operator: a folder of a registry, a name, and a version or digest.
            repository, version = item.get("repository"), item.get("version")
            if isinstance(repository, str) and repository and isinstance(version, str) and version:
                yield f"{repository}/{image}{'@' if version.startswith('sha256:') else ':'}{version}"
            elif repository != "" and _IMAGE.match(image):
                yield image
        if str(item.get("name", "")).endswith("_IMAGE") and _IMAGE.match(str(item.get("value") or "")):
            yield item["value"]
        for value in item.values():
            yield from images_of(value)
    elif isinstance(item, (list, tuple)):
        for value in item:
            if isinstance(value, str) and (found := _ARGUMENT.match(value)):
                yield found.group(1)
            yield from images_of(value)


def _has_host(path: str) -> bool:
    first, slash, _rest = path.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def mirrored(values, registry: str):
    """What of a chart's values has to be set for its images to come from a registry; nothing else of them.

    The folders below the registry stay what they are: C(nvcr.io/nvidia/riva) becomes C(REGISTRY/nvidia/riva).
    """
    if not isinstance(values, Mapping):
        return {}
    found: dict = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            if inner := mirrored(value, registry):
                found[key] = inner
        elif key == "imageRegistry" or (key == "registry" and value != "" and isinstance(value, (str, type(None)))):
            found[key] = registry
        elif key in ("repository", "image") and isinstance(value, str) and _has_host(value):
            found[key] = f"{registry}/{value.partition('/')[2]}"
    return found


def image_component(image: str) -> dict:
    """A component of CycloneDX for an image."""
    name, _at, digest = image.partition("@")
    path, _colon, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    path = path or name
    version = digest or tag or "latest"
    purl = f"pkg:oci/{path.rpartition('/')[2]}@{version}?repository_url={path}"
    return {"type": "container", "name": path, "version": version, "purl": purl}


def file_component(kind: str, name: str, version: str, sha256: str, path: str) -> dict:
    """A component of CycloneDX for a file of the bundle; C(kind) is its kind of package, as in a package URL."""
    return {
        "type": "application" if kind in ("helm", "generic") else "library",
        "name": name,
        "version": version,
        "purl": f"pkg:{kind}/{name}@{version}",
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "properties": [{"name": "speechops:file", "value": path}],
    }


def wheel_name(file: str) -> tuple[str, str] | None:
    """Name and version of a wheel or a source package, from its file's name."""
    if file.endswith(".whl"):
        name, version = file.split("-")[:2]
        return name.lower().replace("_", "-"), version
    found = re.fullmatch(r"(.+)-([0-9][^-]*)\.(?:tar\.gz|zip)", file)
    return (found.group(1).lower().replace("_", "-"), found.group(2)) if found else None


def sbom(version: str, components: list[dict]) -> dict:
    """A bill of materials, CycloneDX 1.6; the same content has the same serial number."""
    ordered = sorted(components, key=lambda item: (item["type"], item["name"], item["version"]))
    told = "\n".join(f"{item['purl']} {item.get('hashes')}" for item in ordered)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, told)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "speechops.riva", "version": version}},
        "components": ordered,
    }
