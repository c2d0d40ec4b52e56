"""Imports image archives into a node's containerd; ``lab up`` runs it inside the node."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from lab.components import CONTAINERD_SOCKET
from lab.node import STASH, answers

CONTAINERD_TIMEOUT = 60


def main() -> None:
    """Import the archives named on the command line, and mark each that is done."""
    deadline = time.monotonic() + CONTAINERD_TIMEOUT
    while not answers(CONTAINERD_SOCKET):
        if time.monotonic() > deadline:
            sys.exit(f"containerd does not answer after {CONTAINERD_TIMEOUT} s; see its log in the node's folder")
        time.sleep(0.2)
    marks = STASH / "node" / "imported"
    marks.mkdir(exist_ok=True)
    for archive in sys.argv[1:]:
        # Unpacking waits until a container needs the image: most images run on one node only.
        subprocess.run(["ctr", "--namespace=k8s.io", "images", "import", "--no-unpack", archive], check=True)
        # An archive's name carries the digest of what is in it.
        (marks / Path(archive).name).touch()


if __name__ == "__main__":
    main()
