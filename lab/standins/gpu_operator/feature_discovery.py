"""Stand-in of GPU Feature Discovery: labels its node with what the node's description says of its GPUs."""

from __future__ import annotations

import os
import sys
import time

from .hardware import DESCRIPTION, label_changes, read_hardware
from .kube import Kube
from .service import keep_trying, log, say_what_it_is

INTERVAL = 60


def main() -> int:
    say_what_it_is("gpu-feature-discovery")
    node = f"/api/v1/nodes/{os.environ['NODE_NAME']}"
    strategy = os.environ.get("MIG_STRATEGY", "none")
    api = Kube()
    started = int(time.time())
    written: dict[str, str | None] = {}

    def label_node() -> float:
        nonlocal written
        hardware = read_hardware()
        if hardware is None:
            log(f"no GPU on this node: there is no {DESCRIPTION}")
            return INTERVAL
        wanted = label_changes(hardware, strategy, started)
        if wanted != written:
            api.merge(node, {"metadata": {"labels": wanted}})
            written = wanted
            log(f"labelled {os.environ['NODE_NAME']}: {hardware.count} x {hardware.product}")
        return INTERVAL

    return keep_trying("gpu-feature-discovery", label_node)


if __name__ == "__main__":
    sys.exit(main())
