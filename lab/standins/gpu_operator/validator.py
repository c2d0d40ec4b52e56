"""Stand-in of the operator's validator: ready while the kubelet offers all GPUs that the node says it has."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from .hardware import Hardware, read_hardware
from .kube import Kube
from .service import keep_trying, log, say_what_it_is, serve_health

RESOURCE = "nvidia.com/gpu"
INTERVAL_WAITING, INTERVAL_READY = 2, 30


def problem_of(node: Mapping[str, Any], hardware: Hardware | None) -> str:
    """Why the node cannot run GPU pods; empty if it can."""
    if hardware is None:
        return "the node has no description of its GPUs"
    allocatable = node.get("status", {}).get("allocatable", {}).get(RESOURCE, "0")
    if int(allocatable) != hardware.count:
        return f"the node offers {allocatable} {RESOURCE}, it has {hardware.count}"
    return ""


def main() -> int:
    say_what_it_is("nvidia-operator-validator")
    api = Kube()
    path = f"/api/v1/nodes/{os.environ['NODE_NAME']}"
    seen = {"problem": "not looked yet"}
    serve_health(8000, ready=lambda: not seen["problem"])

    def look() -> float:
        problem = problem_of(api.get(path) or {}, read_hardware())
        if problem != seen["problem"]:
            log(problem or "all validations are successful")
            seen["problem"] = problem
        return INTERVAL_WAITING if problem else INTERVAL_READY

    return keep_trying("nvidia-operator-validator", look)


if __name__ == "__main__":
    sys.exit(main())
