"""``python -m lab``; with ``--bundle`` it first lays out what a bare machine's Python lacks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lab import unbundle
from lab.bundle_format import BundleError


def bundle_folder(arguments: list[str]) -> Path | None:
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--bundle", type=Path)
    return early.parse_known_args(arguments)[0].bundle


def main() -> int:
    if folder := bundle_folder(sys.argv[1:]):
        try:
            unbundle.bootstrap(folder.resolve())
        except BundleError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    # A bare machine's Python has not what this needs.
    from lab import command

    return command.main()


if __name__ == "__main__":
    sys.exit(main())
