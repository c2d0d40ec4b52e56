"""What a bundle is made of, for the one that makes it and the one that lays it out. Only the standard library is
imported here, for a bare machine has no more.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1
MANIFEST = "bundle.json"
BLOCK = 2**20
COLLECTIONS = ("kubernetes/core",)


class BundleError(RuntimeError):
    """A bundle cannot be made or used; the message names the file and says what to do."""


@dataclass(frozen=True)
class Entry:
    """One file, or one folder as a tar, somewhere in the row of all parts.

    ``name`` begins with ``cache/`` (the lab's cache) or ``python/`` (wheels and collections).
    """

    name: str
    kind: str  # file or folder
    mode: int
    size: int
    sha256: str
    packed: str  # xz or plain
    offset: int
    length: int


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def glibc() -> tuple[int, int]:
    """Version of the C library that this Python runs with; (0, 0) where it is another one."""
    name, version = platform.libc_ver()
    # glibc's versions have two numbers, which mypy cannot know.
    return tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)  # type: ignore[return-value]
