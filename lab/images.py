"""The lab's container images, built locally under the names and tags that the charts ask for.

Real programs lie alone in an otherwise empty image. The stand-ins for the GPU's software and for Riva share one small
Debian or Ubuntu root file system with Python, NVIDIA's gRPC stubs and the folder ``lab/standins``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.binaries import DEVICE_PLUGIN
from lab.components import PAUSE_IMAGE
from lab.progress import step
from lab.settings import REPOSITORY

STANDINS = REPOSITORY / "lab" / "standins"
STANDIN_FOLDER = "opt/speechops"
ROOT_PACKAGES = "python3,dash,coreutils,base-files,libc-bin,libstdc++6,tzdata"
NOBODY = "65534"
TRAEFIK_VERSION = "3.7.15"
# Beside the stand-in of the chart's own version: the newest whose Go module can be had whole.
DEVICE_PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.19.0"
HAPROXY_IMAGE = "docker.io/library/haproxy:3.2.6"
BUSYBOX_IMAGE = "docker.io/library/busybox:1.36"

# Commands of the stand-ins' images, as the real images have them, and the Python module behind each.
STANDIN_COMMANDS = {
    "opt/riva/bin/start-riva": "standins.riva.start",
    "opt/nim/start_server.sh": "standins.riva.nim",
    "usr/local/bin/download_and_deploy_ngc_models": "standins.riva.fetch",
    "usr/bin/gpu-operator": "standins.gpu_operator",
    "usr/bin/nvidia-device-plugin": "standins.gpu_operator.device_plugin",
    "usr/bin/gpu-feature-discovery": "standins.gpu_operator.feature_discovery",
    "usr/bin/nvidia-validator": "standins.gpu_operator.validator",
    "usr/bin/cleanup-gpuclusters": "standins.gpu_operator.hooks cleanup-gpuclusters",
    "usr/bin/manage-crds": "standins.gpu_operator.hooks manage-crds",
    "usr/bin/nfd-worker": "standins.gpu_operator.nfd worker",
    "usr/bin/nfd-master": "standins.gpu_operator.nfd master",
    "usr/bin/nfd-gc": "standins.gpu_operator.nfd gc",
}
STANDIN_IMAGES = (
    "nvcr.io/nvidia/riva/riva-speech:2.19.0",
    "nvcr.io/nvidia/riva/riva-speech:2.19.0-servicemaker",
    "nvcr.io/nvidia/gpu-operator:v26.7.0",
    "nvcr.io/nvidia/k8s-device-plugin:v0.20.0",
)
# A Speech NIM's image starts by itself. The tags are those of the lab's inventory.
NIM_IMAGES = {
    "asr": "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us:1.4.0",
    "tts": "nvcr.io/nim/nvidia/magpie-tts-multilingual:1.4.0",
    "nmt": "nvcr.io/nim/nvidia/riva-translate-1_6b:1.4.0",
}
FEATURE_DISCOVERY_IMAGE = "registry.k8s.io/nfd/node-feature-discovery:v0.19.0"

ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nriva:x:1000:1000::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nriva:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


@dataclass(frozen=True)
class Image:
    """One image: its names, its layers (tar files) and how it starts."""

    tags: tuple[str, ...]
    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    stop_signal: str = "SIGTERM"
    environment: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


@dataclass(frozen=True)
class Archive:
    """One importable file with several images; ``key`` changes whenever its content would."""

    name: str
    key: str
    images: Callable[[Path], list[Image]]


def _member(name: str, mode: int, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.size, member.type = mode, size, kind
    return member


def program_layer(
    path: Path, programs: dict[str, Path], texts: dict[str, str] | None = None, links: dict[str, str] | None = None
) -> Path:
    """A layer with programs (path in the image: file here), the usual accounts, links, and an open /tmp."""
    with tarfile.open(path, "w") as layer:
        layer.addfile(_member("tmp", 0o1777, kind=tarfile.DIRTYPE))
        for name, text in {**ACCOUNTS, **(texts or {})}.items():
            content = text.encode()
            layer.addfile(_member(name, 0o755 if text.startswith("#!") else 0o644, len(content)), io.BytesIO(content))
        for name, source in programs.items():
            with open(source, "rb") as file:
                layer.addfile(_member(name, 0o755, source.stat().st_size), file)
        for name, target in (links or {}).items():
            link = _member(name, 0o777, kind=tarfile.SYMTYPE)
            link.linkname = target
            layer.addfile(link)
    return path


def folder_layer(path: Path, folder: Path, target: str) -> Path:
    """A layer with a folder of files, owned by root and without times, so that equal content gives an equal layer."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in member.name:
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(path, "w") as layer:
        layer.add(folder, target, filter=plain)
    return path


def write_archive(path: Path, images: list[Image]) -> None:
    """Write images into one file in the format of ``docker save``; a layer that several share is in it once."""
    manifest, written = [], {}
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:

        def add(name: str, content: bytes) -> None:
            archive.addfile(_member(name, 0o644, len(content)), io.BytesIO(content))

        for image in images:
            for layer in image.layers:
                if layer not in written:
                    with open(layer, "rb") as file:
                        written[layer] = hashlib.file_digest(file, "sha256").hexdigest()
                        file.seek(0)
                        archive.addfile(_member(f"{written[layer]}.tar", 0o644, layer.stat().st_size), file)
            config = json.dumps(
                {
                    "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
                    "os": "linux",
                    "config": {
                        "Entrypoint": list(image.entrypoint),
                        "Cmd": list(image.command),
                        "User": image.user,
                        "StopSignal": image.stop_signal,
                        "Env": list(image.environment),
                    },
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{written[layer]}" for layer in image.layers]},
                }
            ).encode()
            name = f"{hashlib.sha256(config).hexdigest()}.json"
            add(name, config)
            manifest.append(
                {
                    "Config": name,
                    "RepoTags": list(image.tags),
                    "Layers": [f"{written[layer]}.tar" for layer in image.layers],
                }
            )
        add("manifest.json", json.dumps(manifest).encode())
    partial.rename(path)


def _digest(*parts: str | Path) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for part in parts:
        if isinstance(part, Path) and part.is_dir():
            for file in sorted(part.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    digest.update(str(file.relative_to(part)).encode() + file.read_bytes())
        elif isinstance(part, Path):
            status = part.stat()
            digest.update(f"{part.name} {status.st_size} {status.st_mtime_ns}".encode())
        else:
            digest.update(part.encode())
    return digest.hexdigest()[:16]


def base_images(binaries: Path, busybox: Path) -> Callable[[Path], list[Image]]:
    def images(work: Path) -> list[Image]:
        applets = (
            "sh",
            "sleep",
            "wget",
            "nslookup",
            "httpd",
            "cat",
            "ls",
            "nc",
            "ip",
            "env",
            "echo",
            "grep",
            "timeout",
        )
        shell = program_layer(
            work / "busybox.tar", {"bin/busybox": busybox}, links={f"bin/{name}": "busybox" for name in applets}
        )
        coredns = program_layer(work / "coredns.tar", {"coredns": binaries / "coredns"})
        return [
            Image(
                (PAUSE_IMAGE,),
                (program_layer(work / "pause.tar", {"bin/busybox": busybox}),),
                entrypoint=("/bin/busybox", "sleep", "2147483647"),
            ),
            Image((BUSYBOX_IMAGE,), (shell,), command=("sh",)),
            Image((coredns_image(),), (coredns,), entrypoint=("/coredns",)),
        ]

    return images


def coredns_image() -> str:
    from lab.binaries import MODULES

    version = next(module.version for module in MODULES if module.name == "coredns")
    return f"registry.k8s.io/coredns/coredns:v{version}"


def monitoring_images(binaries: Path) -> Callable[[Path], list[Image]]:
    def images(work: Path) -> list[Image]:
        def one(name: str, tags: tuple[str, ...], programs: dict[str, str], **rest) -> Image:
            files = {target: binaries / source for target, source in programs.items()}
            return Image(tags, (program_layer(work / f"{name}.tar", files),), user=NOBODY, **rest)

        operator = "quay.io/prometheus-operator"
        return [
            one(
                "operator",
                (f"{operator}/prometheus-operator:v0.93.1",),
                {"bin/operator": "prometheus-operator"},
                entrypoint=("/bin/operator",),
            ),
            one(
                "reloader",
                (f"{operator}/prometheus-config-reloader:v0.93.1",),
                {"bin/prometheus-config-reloader": "prometheus-config-reloader"},
                entrypoint=("/bin/prometheus-config-reloader",),
            ),
            one(
                "prometheus",
                ("quay.io/prometheus/prometheus:v3.14.0", "quay.io/prometheus/prometheus:v3.14.0-distroless"),
                {"bin/prometheus": "prometheus"},
                entrypoint=("/bin/prometheus",),
            ),
            # Its chart gives the whole command as arguments.
            one(
                "adapter",
                ("registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0",),
                {"adapter": "prometheus-adapter"},
            ),
        ]

    return images


def traefik_images(traefik: Path) -> Callable[[Path], list[Image]]:
    def images(work: Path) -> list[Image]:
        layer = program_layer(work / "traefik.tar", {"usr/local/bin/traefik": traefik})
        return [
            Image(
                (f"docker.io/library/traefik:v{TRAEFIK_VERSION}",),
                (layer,),
                entrypoint=("/usr/local/bin/traefik",),
                user=NOBODY,
            )
        ]

    return images


def linked_files(program: Path) -> dict[str, Path]:
    """The libraries that a program is linked with, by their paths in an image; as the dynamic loader finds them."""
    answer = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    paths = [word for line in answer.splitlines() for word in line.split() if word.startswith("/")]
    return {path.lstrip("/"): Path(path).resolve() for path in paths}


def haproxy_images(haproxy: Path) -> Callable[[Path], list[Image]]:
    """The distribution's HAProxy under the name and tag that the riva chart asks for."""

    def images(work: Path) -> list[Image]:
        files = {"usr/local/sbin/haproxy": haproxy, **linked_files(haproxy)}
        layer = program_layer(work / "haproxy.tar", files)
        # Docker's official image has this signal: HAProxy ends when its streams have.
        return [Image((HAPROXY_IMAGE,), (layer,), command=("haproxy",), user=NOBODY, stop_signal="SIGUSR1")]

    return images


def device_plugin_images(binaries: Path) -> Callable[[Path], list[Image]]:
    """NVIDIA's device plugin and GPU Feature Discovery; they look for the driver's libraries when they run."""

    def images(work: Path) -> list[Image]:
        files: dict[str, Path] = {}
        for name in DEVICE_PLUGIN.programs:
            files |= {f"usr/bin/{name}": binaries / name, **linked_files(binaries / name)}
        # What the driver's libraries are linked with.
        loaded = Path(next(path for path in linked_files(binaries / name).values() if path.name.startswith("libc.so")))
        for library in ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"):
            if (loaded.parent / library).exists():
                files[str(loaded.parent / library).lstrip("/")] = (loaded.parent / library).resolve()
        layer = program_layer(work / "device-plugin.tar", files)
        return [Image((DEVICE_PLUGIN_IMAGE,), (layer,), command=("nvidia-device-plugin",))]

    return images


def release_codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise RuntimeError("/etc/os-release names no VERSION_CODENAME; the lab's images need Debian or Ubuntu")


def standin_base(cache: Path) -> Path:
    """The layer that the stand-ins share: a root file system with Python and the packages they need."""
    requirements = STANDINS / "requirements.txt"
    key = _digest(ROOT_PACKAGES, release_codename(), requirements.read_text())
    layer = cache / f"standin-base-{key}.tar"
    if layer.exists():
        return layer
    root = cache / f"standin-base-{key}.root"
    shutil.rmtree(root, ignore_errors=True)
    with step("root file system of the stand-ins"):
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=extract", f"--include={ROOT_PACKAGES}"),
                *("--dpkgopt=path-exclude=/usr/share/man/*", release_codename(), str(root)),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed:\n{done.stderr[-2000:]}")
        for folder in ("var/cache", "var/lib/apt", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(root / folder, ignore_errors=True)
        python = next(path.name for path in sorted((root / "usr/bin").glob("python3.*")) if path.name[8:].isdigit())
        platforms = [f"manylinux_2_{minor}_{os.uname().machine}" for minor in (17, 28)]
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)),
                *("--target", str(root / STANDIN_FOLDER / "packages"), "--only-binary=:all:"),
                *("--python-version", python.removeprefix("python")),
                *(
                    word
                    for platform in [*platforms, f"manylinux2014_{os.uname().machine}"]
                    for word in ("--platform", platform)
                ),
            ],
            check=True,
        )
        compileall = f"import compileall; compileall.compile_dir('/{STANDIN_FOLDER}/packages', quiet=2)"
        subprocess.run(["chroot", str(root), f"/usr/bin/{python}", "-c", compileall], check=False)
        folder_layer(layer.with_suffix(".partial"), root, "./")
        shutil.rmtree(root)
        layer.with_suffix(".partial").rename(layer)
    _remove_older(cache, "standin-base-", layer)
    return layer


def standin_images(cache: Path) -> Callable[[Path], list[Image]]:
    def images(work: Path) -> list[Image]:
        base = standin_base(cache)
        commands = {
            path: f'#!/bin/sh\nexec /usr/bin/python3 -m {module} "$@"\n' for path, module in STANDIN_COMMANDS.items()
        }
        start = program_layer(work / "standin-commands.tar", {}, commands)
        code = folder_layer(work / "standin-code.tar", STANDINS, f"{STANDIN_FOLDER}/standins")
        environment = (
            *Image.environment,
            f"PYTHONPATH=/{STANDIN_FOLDER}:/{STANDIN_FOLDER}/packages",
            "PYTHONUNBUFFERED=1",
            "PYTHONDONTWRITEBYTECODE=1",
            "LANG=C.UTF-8",
        )
        layers = (base, start, code)
        return [
            Image(STANDIN_IMAGES, layers, environment=environment),
            *(
                Image(
                    (tag,), layers, environment=environment, entrypoint=("/opt/nim/start_server.sh", kind), user="1000"
                )
                for kind, tag in NIM_IMAGES.items()
            ),
            # Its chart demands a user that is not root.
            Image((FEATURE_DISCOVERY_IMAGE,), layers, environment=environment, user=NOBODY),
        ]

    return images


def _remove_older(cache: Path, prefix: str, kept: Path) -> None:
    for old in cache.glob(f"{prefix}*.tar"):
        if old != kept:
            old.unlink()


def archives(binaries: Path, cache: Path, real_gpus: bool = False) -> list[Archive]:
    """All archives that every node of a lab needs, in the order in which they are imported."""
    busybox, traefik = Path(shutil.which("busybox") or "/bin/busybox"), Path(sys.prefix) / "bin" / "traefik"
    haproxy = Path(shutil.which("haproxy") or "/usr/sbin/haproxy")
    monitoring = ("prometheus-operator", "prometheus-config-reloader", "prometheus", "prometheus-adapter")
    real = [
        Archive(
            "device-plugin",
            _digest(*(binaries / name for name in DEVICE_PLUGIN.programs)),
            device_plugin_images(binaries),
        )
    ]
    return [
        Archive("base", _digest(binaries / "coredns", busybox), base_images(binaries, busybox)),
        Archive("monitoring", _digest(*(binaries / name for name in monitoring)), monitoring_images(binaries)),
        Archive("traefik", _digest(traefik), traefik_images(traefik)),
        Archive("haproxy", _digest(haproxy), haproxy_images(haproxy)),
        Archive("standins", _digest(STANDINS, release_codename()), standin_images(cache)),
        *(real if real_gpus else ()),
    ]


def provide_all(binaries: Path, cache: Path, real_gpus: bool = False) -> list[Path]:
    """Build what is missing; returns the archives' paths."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = []
    for archive in archives(binaries, cache, real_gpus):
        path = cache / f"{archive.name}-{archive.key}.tar"
        if not path.exists():
            with step(f"images: {archive.name}"):
                work = cache / f".{archive.name}.work"
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                write_archive(path, archive.images(work))
                shutil.rmtree(work)
            _remove_older(cache, f"{archive.name}-", path)
        paths.append(path)
    return paths
