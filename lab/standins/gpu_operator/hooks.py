"""Stand-ins of the two helpers that the upstream chart's Helm hooks run. The lab has nothing for them to do."""

from __future__ import annotations

import sys

from .service import log

SAYS = {
    "cleanup-gpuclusters": "no GPUCluster is ever made here, so there is none to remove",
    "manage-crds": "custom resource definitions are left as they are",
}


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "?"
    if name not in SAYS:
        print(f"unknown helper {name!r}: use {' or '.join(SAYS)}", file=sys.stderr)
        return 2
    log(f"{name}: stand-in: {SAYS[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
