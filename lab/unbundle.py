"""Lays a bundle out on a bare Linux machine: ``python3 -m lab up --bundle DIR``.

It can be interrupted and typed again. Nothing of the machine is written over: programs and libraries lie in the lab's
own cache, the Python packages in the checkout's ``.venv``. Only the standard library is imported here, for a bare
machine has no more.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from lab.bundle_format import BLOCK, COLLECTIONS, FORMAT, MANIFEST, BundleError, Entry, digest_of, glibc
from lab.progress import step
from lab.settings import CACHE, REPOSITORY


def read_manifest(folder: Path) -> dict:
    """The manifest of a bundle that fits this machine.

    Raises:
        BundleError: there is none, it is not whole, or it is made for another machine.
    """
    file = folder / MANIFEST
    if not file.exists():
        raise BundleError(f"{file} is not there: the bundle is not copied whole, or `lab bundle` was interrupted")
    try:
        manifest = json.loads(file.read_text())
    except ValueError as error:
        raise BundleError(f"{file} is damaged ({error}): copy it again") from error
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{file} has format {manifest.get('format')}, this lab reads {FORMAT}: use its own version")
    if manifest["machine"] != platform.machine():
        raise BundleError(f"the bundle is made for {manifest['machine']}, this machine is {platform.machine()}")
    if (0, 0) < glibc() < tuple(manifest["glibc"]):
        needed = ".".join(map(str, manifest["glibc"]))
        raise BundleError(
            f"the bundle needs glibc {needed} or newer, this machine has {'.'.join(map(str, glibc()))}: "
            "make the bundle on an older system"
        )
    return manifest


def check_parts(folder: Path, manifest: dict) -> None:
    """Hold every part against the manifest; all that are wrong are named at once."""
    wrong = []
    for part in manifest["parts"]:
        file = folder / part["name"]
        if not file.exists():
            wrong.append(f"{part['name']} is not there")
        elif file.stat().st_size != part["size"]:
            wrong.append(f"{part['name']} has {file.stat().st_size} bytes instead of {part['size']}")
        elif digest_of(file) != part["sha256"]:
            wrong.append(f"{part['name']} has changed (its SHA-256 is not the one of {MANIFEST})")
    if wrong:
        raise BundleError(f"the bundle in {folder} cannot be used: {'; '.join(wrong)}. Copy these files again")


class Row(io.RawIOBase):
    """A stretch of the row of all parts, as one readable stream."""

    def __init__(self, folder: Path, parts: list[dict], offset: int, length: int) -> None:
        self.folder, self.parts, self.offset, self.left = folder, parts, offset, length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        begin = 0
        for part in self.parts:
            if begin <= self.offset < begin + part["size"]:
                wanted = min(len(buffer), self.left, begin + part["size"] - self.offset)
                with open(self.folder / part["name"], "rb") as file:
                    file.seek(self.offset - begin)
                    block = file.read(wanted)
                buffer[: len(block)] = block
                self.offset += len(block)
                self.left -= len(block)
                return len(block)
            begin += part["size"]
        return 0


def lay(folder: Path, manifest: dict, entry: Entry, target: Path) -> None:
    """Unpack one entry beside its target, hold it against its checksum, then put it in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    digest = hashlib.sha256()
    row = io.BufferedReader(Row(folder, manifest["parts"], entry.offset, entry.length), BLOCK)
    with lzma.open(row) if entry.packed == "xz" else row as stream, open(partial, "wb") as file:
        while block := stream.read(BLOCK):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != entry.sha256:
        partial.unlink()
        raise BundleError(f"{entry.name} from the bundle has SHA-256 {digest.hexdigest()}, not {entry.sha256}")
    if entry.kind == "file":
        partial.chmod(entry.mode)
        partial.rename(target)
        return
    opened = target.with_name(f".{target.name}.opened")
    shutil.rmtree(opened, ignore_errors=True)
    with tarfile.open(partial) as archive:
        # Debian 12's Python has no filters yet; 3.14 asks for one.
        if hasattr(tarfile, "tar_filter"):
            archive.extractall(opened, filter="tar")
        else:
            archive.extractall(opened)
    opened.chmod(entry.mode)
    shutil.rmtree(target, ignore_errors=True)
    opened.rename(target)
    partial.unlink()


def place(name: str, cache: Path) -> Path:
    """Where an entry goes: nowhere but below the cache."""
    parts = Path(name).parts
    if not name.startswith(("cache/", "python/")) or ".." in parts:
        raise BundleError(f"the bundle names {name!r}, which lies outside the lab's cache: it was not made by the lab")
    return cache.joinpath(*parts[1:]) if parts[0] == "cache" else cache.joinpath(*parts)


def unpack(folder: Path, cache: Path = CACHE) -> dict:
    """Lay a bundle out in the lab's cache; typed again, only what is missing. Returns its manifest."""
    manifest = read_manifest(folder)
    marks = cache / ".bundle"
    missing = []
    for fields in manifest["entries"]:
        entry = Entry(**fields)
        mark = marks / f"{entry.name.replace('/', '-')}-{entry.sha256[:16]}"
        if not (mark.exists() and place(entry.name, cache).exists()):
            missing.append((entry, mark))
    if missing:
        with step(f"checksums of {len(manifest['parts'])} parts"):
            check_parts(folder, manifest)
        marks.mkdir(parents=True, exist_ok=True)
        with step(f"unpacking {len(missing)} files and folders into {cache}"):
            # Decompression leaves Python's lock: several at a time.
            from concurrent.futures import ThreadPoolExecutor

            def one(item: tuple[Entry, Path]) -> None:
                entry, mark = item
                lay(folder, manifest, entry, place(entry.name, cache))
                mark.touch()

            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:
                list(workers.map(one, missing))
    # Several labs may be brought up at once.
    partial = cache / f".{MANIFEST}.{os.getpid()}"
    partial.write_text(json.dumps({key: manifest[key] for key in ("archives", "requirements", "pythons")}))
    partial.rename(cache / MANIFEST)
    return manifest


def archives(cache: Path) -> list[Path] | None:
    """The image archives of the bundle that was laid out here, or None."""
    file = cache / MANIFEST
    if not file.exists():
        return None
    return [cache / "images" / name for name in json.loads(file.read_text())["archives"]]


def use_tools(cache: Path = CACHE) -> None:
    """Let this process and all that it starts find the bundle's programs first."""
    folder = cache / "tools" / "bin"
    if folder.is_dir() and str(folder) not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def provide_python(cache: Path, manifest: dict, home: Path) -> Path:
    """A Python environment with all packages of the bundle; returns its interpreter."""
    interpreter, stamp = home / "bin" / "python", home / ".bundle"
    wanted = "\n".join(manifest["requirements"])
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if here not in manifest["pythons"]:
        raise BundleError(
            f"the bundle has wheels for Python {', '.join(manifest['pythons'])}, this is {here}: "
            f"run it with one of those, or make the bundle with --python {here}"
        )
    wheels = cache / "python" / "wheels"
    pip = next(wheels.glob("pip-*.whl"))
    with step(f"Python packages in {home}"):
        # Without pip: Debian and Ubuntu keep it in a package of its own.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", str(home)], check=True)
        done = subprocess.run(
            [
                *(str(interpreter), str(pip / "pip"), "install", "--quiet", "--no-index", "--no-cache-dir"),
                *(f"--find-links={wheels}", "--disable-pip-version-check", *manifest["requirements"]),
            ],
            capture_output=True,
            text=True,
            env={key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))},
        )
        if done.returncode:
            raise BundleError(f"the bundle's Python packages cannot be installed:\n{done.stderr[-1500:]}")
        packages = next(home.glob("lib/python3*/site-packages"))
        for collection in COLLECTIONS:
            target = packages / "ansible_collections" / collection
            shutil.copytree(cache / "python" / "collections" / collection, target, dirs_exist_ok=True)
    stamp.write_text(wanted)
    return interpreter


def bootstrap(folder: Path) -> None:
    """Lay the bundle out, then go on as the same command under the bundle's Python."""
    manifest = unpack(folder)
    interpreter = provide_python(CACHE, manifest, REPOSITORY / ".venv")
    if Path(sys.prefix).resolve() != interpreter.parent.parent.resolve():
        os.execv(interpreter, [str(interpreter), "-m", "lab", *sys.argv[1:]])
