"""Takes the command line of `download_and_deploy_ngc_models` and fills the model store, in the time that was asked for.

What is in the store already takes no time: that is what a cache, or a Job that filled it, is worth.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .settings import SettingsError, from_environment

STORE = "/data"


def main(
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    store: str = STORE,
    sleep=time.sleep,
) -> int:
    models = sys.argv[1:] if arguments is None else arguments
    found = os.environ if environment is None else environment
    missing = [name for name in ("NGC_CLI_API_KEY", "MODEL_DEPLOY_KEY") if not found.get(name)]
    if missing:
        print(f"ERROR: {' and '.join(missing)} not set: 401 Unauthorized", file=sys.stderr)
        return 1
    try:
        seconds = from_environment(found).fetch_seconds
    except SettingsError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    folder = Path(store) / "models"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for model in models:
            place = folder / model.rpartition("/")[2].replace(":", "_v")
            if (place / "1").exists():
                print(f"{model} is in the store already", flush=True)
                continue
            print(f"{model}: downloading and building (stand-in, {seconds:g} s)", flush=True)
            sleep(seconds)
            (place / "1").mkdir(parents=True)
    except PermissionError as error:
        print(f"ERROR: {error.filename}: Permission denied (os error 13)", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
