"""Takes the command line of `/opt/riva/bin/start-riva` and runs the stand-in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from .server import StandIn, StartError, log
from .settings import Settings, SettingsError, from_environment

SERVICES = {"asr_service": True, "nlp_service": False, "nmt_service": False, "tts_service": False}
TRUE, FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")
EXIT_FLAG, EXIT_SETTING = 1, 2


class FlagError(ValueError):
    """A flag is unknown or has no truth value."""


def parse_flags(arguments: Sequence[str]) -> dict[str, bool]:
    """The services' flags, read as gflags reads them: `--flag=true`, `--flag`, `--noflag`; never empty."""
    services = dict(SERVICES)
    for argument in arguments:
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            raise FlagError(f"unexpected argument '{argument}': flags look like --asr_service=true")
        if not equals and name.startswith("no") and name[2:] in services:
            name, value = name[2:], "false"
        elif not equals:
            value = "true"
        if name not in services:
            raise FlagError(f"unknown command line flag '{name}': known are {', '.join(services)}")
        if value.lower() not in TRUE + FALSE:
            raise FlagError(f"illegal value '{value}' specified for bool flag '{name}': give true or false")
        services[name] = value.lower() in TRUE
    return services


async def serve(settings: Settings, services: Mapping[str, bool]) -> int:
    server = StandIn(settings, asr=services["asr_service"], tts=services["tts_service"], nmt=services["nmt_service"])
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.request_stop)
    return await server.run()


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    try:
        services = parse_flags(sys.argv[1:] if arguments is None else arguments)
    except FlagError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_FLAG
    try:
        settings = from_environment(os.environ if environment is None else environment)
    except SettingsError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_SETTING
    kind = (
        "a simulated GPU, no model" if settings.engine == "simulated" else "a real GPU, a network with random weights"
    )
    log(f"This is a stand-in for NVIDIA Riva: {kind}, no recognition")
    if services["nlp_service"]:
        log("--nlp_service=true is accepted, but the stand-in serves none of it")
    try:
        return asyncio.run(serve(settings, services))
    except StartError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return EXIT_FLAG


if __name__ == "__main__":
    sys.exit(main())
