# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle for a network without a way out has to hold, and how it is told of. Pure rules."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping

from ansible_collections.speechops.riva.plugins.module_utils import driver_plan, gpu_generations

# What to do where it is missing.
SKOPEO = "install the distribution's package skopeo"
# How registries say that they do not have an image, as far as skopeo tells it.
_UNKNOWN = re.compile(r"manifest unknown|name unknown|repository name not known|not found", re.IGNORECASE)

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


def without(values: Mapping, others: Mapping) -> dict:
    """What of a chart's values the others do not set as well."""
    found: dict = {}
    for key, value in values.items():
        if key not in others:
            found[key] = value
        elif isinstance(value, Mapping) and isinstance(others[key], Mapping) and (inner := without(value, others[key])):
            found[key] = inner
    return found


def without_tag(image: str) -> str:
    """The image by its digest alone where it has one: a digest says more, and tools that copy take one of the two."""
    name, at, digest = image.partition("@")
    path, _colon, tag = name.rpartition(":")
    return f"{path if at and path and '/' not in tag else name}{at}{digest}"


def in_registry(image: str, registry: str) -> str:
    """The name that an image has below a registry; the one that a chart asks for with the values of C(mirrored)."""
    path = image.partition("/")[2] if _has_host(image) else image
    return f"{registry}/{without_tag(path)}"


_REF_NAME = "org.opencontainers.image.ref.name"
# What the registry said of the image when it was fetched: the digest of its list, where it has one.
SOURCE = "io.speechops.riva.source"


def descriptor(manifest: bytes, name: str, source: str) -> dict:
    """The entry of an OCI layout's index for an image with this manifest, or list of manifests."""
    told = json.loads(manifest)
    kind = "index" if "manifests" in told else "manifest"
    return {
        "mediaType": told.get("mediaType") or f"application/vnd.oci.image.{kind}.v1+json",
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {_REF_NAME: name, SOURCE: source},
    }


def layout_images(index: Mapping) -> dict[str, str]:
    """Images of an OCI layout by their names there, with their digests; C(index) is its index.json."""
    named = ((item.get("annotations", {}).get(_REF_NAME), item["digest"]) for item in index.get("manifests", []))
    return {name: digest for name, digest in named if name}


def layout_of(index: Mapping, images, added: Mapping | None = None) -> dict:
    """The index of an OCI layout with these images alone, in the order of their names, and with one more."""
    entries = [*index.get("manifests", []), *([added] if added else [])]
    kept = {item["annotations"][_REF_NAME]: item for item in entries if _REF_NAME in item.get("annotations", {})}
    return {**index, "manifests": [kept[name] for name in sorted(kept) if name in images]}


def layout_has(index: Mapping, name: str, source: str, every: bool) -> bool:
    """Whether the layout has the image as the registry has it, with all its platforms if they are wanted."""
    for item in index.get("manifests", []):
        if item.get("annotations", {}).get(_REF_NAME) == name:
            return source == item["annotations"].get(SOURCE) and (source == item["digest"] or not every)
    return False


def is_missing(told: str) -> bool:
    """Whether skopeo's error says that the registry answers and does not have the image."""
    return bool(_UNKNOWN.search(told))


def parts_of(manifest: Mapping) -> tuple[list[str], list[str]]:
    """Digests that a manifest or an index of an OCI layout names: of further manifests, and of everything else."""
    others = [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]
    return [item["digest"] for item in manifest.get("manifests", [])], [item["digest"] for item in others]


def image_component(image: str, digest: str = "") -> dict:
    """A component of CycloneDX for an image; C(digest) is that of its manifest, where the bundle has the image."""
    name, _at, pinned = image.partition("@")
    path, _colon, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    path = path or name
    version = pinned or tag or "latest"
    purl = f"pkg:oci/{path.rpartition('/')[2]}@{version}?repository_url={path}"
    hashes = {"hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}]} if digest else {}
    return {"type": "container", "name": path, "version": version, "purl": purl, **hashes}


def node_packages(settings: Mapping) -> list[str]:
    """What a mirror of GPU nodes' packages has to have: one line for each distribution, with its repositories.

    C(settings) are the variables of the role nvidia_driver, without their prefix. KERNEL stands for what uname -r says.
    """
    lines = []
    flavour = (
        gpu_generations.PROPRIETARY if settings["modules"] == gpu_generations.PROPRIETARY else gpu_generations.OPEN
    )
    branch = driver_plan.branch_of(settings)
    for folder in sorted(set(gpu_generations.REPOSITORIES.values())):
        is_rpm = folder.startswith("rhel")
        names = gpu_generations.driver_packages(folder, branch, flavour, settings["compute_only"])
        names = gpu_generations.at_version(names, str(settings["version"]), folder)
        if settings["fabric_manager"] != "never":
            names.append(gpu_generations.fabric_manager_package(folder, branch))
        if settings["kernel_headers"]:
            names += gpu_generations.header_packages(folder, "KERNEL")
        if settings["toolkit"]:
            names += gpu_generations.at_version(gpu_generations.TOOLKIT, settings["toolkit_version"], folder)
        kind, machine = ("rpm", "x86_64") if is_rpm else ("deb", "amd64")
        toolkit = settings["toolkit_repository_url"].replace("{kind}", kind).replace("{arch}", machine)
        source = driver_plan.filled(settings["repository_url"], folder, "x86_64")
        lines.append(f"{folder} {source} {toolkit} {' '.join(names)}")
    return lines


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
