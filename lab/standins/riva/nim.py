"""Takes the environment of a Speech NIM's container and runs the stand-in with a NIM's HTTP paths.

The argument says what the container serves: asr, tts or nmt.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from . import nim_face
from .server import StandIn, StartError, log
from .settings import PREFIX, SettingsError, from_environment

PORTS = {"NIM_HTTP_API_PORT": ("HTTP_PORT", "9000"), "NIM_GRPC_API_PORT": ("GRPC_PORT", "50051")}
# The Triton inside has it.
TAKEN = "8000"


async def serve(server: StandIn) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.request_stop)
    return await server.run()


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The stand-in's own variables, with a NIM's ports among them."""
    found = {name: text for name, text in environment.items() if not name.startswith("NIM_")}
    for variable, (own, default) in PORTS.items():
        found.setdefault(PREFIX + own, environment.get(variable) or default)
    return found


async def run(speech: str, environment: Mapping[str, str]) -> int:
    settings = from_environment(settings_of(environment))
    face = nim_face.from_environment(environment, settings.fetch_seconds, f"stand-in {speech}")
    kinds = {kind: kind == speech for kind in ("asr", "tts", "nmt")}
    return await serve(StandIn(settings, **kinds, nim=face))


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    found = os.environ if environment is None else environment
    speech = given[0] if given else "asr"
    if speech not in ("asr", "tts", "nmt") or len(given) > 1:
        print(f"ERROR: {' '.join(given)}: expected asr, tts or nmt", file=sys.stderr)
        return 1
    if found.get("NIM_HTTP_API_PORT") == TAKEN:
        print(f"ERROR: NIM_HTTP_API_PORT is {TAKEN}, which the Triton inside has: take another one", file=sys.stderr)
        return 2
    log("This is a stand-in for a Speech NIM: a simulated GPU, no model, no speech")
    try:
        return asyncio.run(run(speech, found))
    except SettingsError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 2
    except (StartError, nim_face.NimError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
