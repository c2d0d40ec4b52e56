"""Settings of the stand-in, read from the environment and checked before anything listens."""

from __future__ import annotations

import difflib
import math
import re
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .curves import CURVES

PREFIX = "RIVA_STANDIN_"
UUID_NAMESPACE = uuid.UUID("6f1d3a52-4a52-5b8c-9a0e-2f3b7c1d9e10")
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
GPU = re.compile(r"[A-Za-z0-9-]*")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class SettingsError(ValueError):
    """One or more settings are wrong. The text names each variable, its value and what would be right."""


@dataclass(frozen=True)
class Setting:
    """One variable: how its text becomes a value, and what a right one looks like."""

    name: str
    parse: Callable[[str], Any]
    expected: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name

    @property
    def attribute(self) -> str:
        return self.name.lower()


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(text)
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(text)
        return value

    return parse


def _sizes(text: str) -> tuple[int, ...]:
    parse = _integer(1, 1024)
    return tuple(sorted({parse(part.strip()) for part in text.split(",")})) if text.strip() else ()


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(text)
    return BOOLEANS[text.lower()]


def _matching(pattern: re.Pattern) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(text)
        return text

    return parse


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


_PORT = (_integer(0, 65535), "a port number from 0 (any free port) to 65535")
_SECONDS = (_number(0, 86400), "a number of seconds from 0 to 86400")
_FAULT = (_number(0, 86400), "a number of seconds from 0 (never) to 86400")
_MILLISECONDS = (_number(0, 60000), "a number of milliseconds from 0 to 60000")

TABLE: tuple[Setting, ...] = (
    Setting("HOST", _matching(HOST), "an address to listen on, such as 0.0.0.0"),
    Setting("GRPC_PORT", *_PORT),
    Setting("HTTP_PORT", *_PORT),
    Setting("METRICS_PORT", *_PORT),
    Setting("MODEL_LOAD_SECONDS", *_SECONDS),
    Setting("FETCH_SECONDS", *_SECONDS),
    Setting("INSTANCES", _integer(1, 64), "a whole number from 1 to 64"),
    Setting("MAX_BATCH_SIZE", _integer(1, 1024), "a whole number from 1 to 1024"),
    Setting("PREFERRED_BATCH_SIZES", _sizes, "whole numbers from 1 to 1024, commas between, or nothing"),
    Setting("MAX_QUEUE_DELAY_MS", *_MILLISECONDS),
    Setting("SERVICE_BASE_MS", *_MILLISECONDS),
    Setting("SERVICE_PER_ITEM_MS", *_MILLISECONDS),
    Setting("SERVICE_CURVE", _one_of("", *CURVES), f"one of {', '.join(CURVES)}, or nothing"),
    Setting("ENGINE", _one_of("simulated", "gpu"), "simulated or gpu"),
    Setting("NETWORK", _one_of("1.1b", "0.6b", "tiny"), "1.1b, 0.6b or tiny"),
    Setting("MACHINE", str, "a folder that holds the machine's PyTorch"),
    Setting("MAX_QUEUE_SIZE", _integer(0, 1000000), "a whole number from 0 (no bound) to 1000000"),
    Setting("CHUNK_MS", _integer(10, 60000), "a whole number of milliseconds from 10 to 60000"),
    Setting("STREAM_WINDOW", _integer(1, 100000), "a whole number from 1 to 100000"),
    Setting("LANGUAGE_CODE", _matching(LANGUAGE), "a language code such as en-US"),
    Setting("MODEL_NAME", _matching(MODEL), "a name of letters, digits, dots, dashes"),
    Setting("ENSEMBLE", _boolean, "true or false"),
    Setting("GRACE_SECONDS", *_SECONDS),
    Setting("CRASH_AFTER_SECONDS", *_FAULT),
    Setting("HANG_AFTER_SECONDS", *_FAULT),
    Setting("GPU_UUID", _matching(GPU), "an identifier of letters, digits and dashes, or nothing"),
    Setting("GPU_MEMORY_MIB", _integer(1, 10000000), "a whole number of MiB"),
)


@dataclass(frozen=True)
class Settings:
    """Checked settings. Field names are the variables' names without prefix, in lower case."""

    host: str = "0.0.0.0"
    grpc_port: int = 50051
    http_port: int = 8000
    metrics_port: int = 8002
    model_load_seconds: float = 10.0
    fetch_seconds: float = 0.0
    instances: int = 1
    max_batch_size: int = 8
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_ms: float = 0.0
    service_base_ms: float = 10.0
    service_per_item_ms: float = 4.0
    service_curve: str = "h100-1.1b"
    engine: str = "simulated"
    network: str = "1.1b"
    machine: str = "/data"
    max_queue_size: int = 0
    chunk_ms: int = 160
    stream_window: int = 64
    language_code: str = "en-US"
    model_name: str = "parakeet-streaming-asr"
    ensemble: bool = False
    grace_seconds: float = 3600.0
    crash_after_seconds: float = 0.0
    hang_after_seconds: float = 0.0
    gpu_uuid: str = ""
    gpu_memory_mib: int = 15360
    triton_timeout_seconds: int | None = None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from the variables, or SettingsError with every mistake at once."""
    known = {setting.variable: setting for setting in TABLE}
    values: dict[str, Any] = {}
    mistakes = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX)):
        setting = known.get(variable)
        if setting is None:
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            mistakes.append(f"{variable} is not a setting of the stand-in{hint}")
            continue
        try:
            values[setting.attribute] = setting.parse(environment[variable].strip())
        except ValueError:
            mistakes.append(f"{variable}={environment[variable]!r} is wrong: it must be {setting.expected}")
    if {"service_base_ms", "service_per_item_ms"} & set(values):
        # A straight line was asked for.
        values.setdefault("service_curve", "")
    triton_timeout = environment.get("TRITON_TIMEOUT_SEC", "").strip()
    if triton_timeout:
        try:
            values["triton_timeout_seconds"] = _integer(1, 86400)(triton_timeout)
        except ValueError:
            mistakes.append(
                f"TRITON_TIMEOUT_SEC={triton_timeout!r} is wrong: it must be a whole number from 1 to 86400"
            )
    settings = Settings(**values)
    mistakes += _cross_checks(settings)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return settings if settings.gpu_uuid else replace(settings, gpu_uuid=_visible_gpu(environment))


def _cross_checks(settings: Settings) -> list[str]:
    mistakes = []
    too_large = [size for size in settings.preferred_batch_sizes if size > settings.max_batch_size]
    if too_large:
        mistakes.append(
            f"{PREFIX}PREFERRED_BATCH_SIZES has {', '.join(map(str, too_large))}, above "
            f"{PREFIX}MAX_BATCH_SIZE={settings.max_batch_size}: give sizes up to that, or raise it"
        )
    if settings.service_base_ms + settings.service_per_item_ms <= 0:
        mistakes.append(
            f"{PREFIX}SERVICE_BASE_MS and {PREFIX}SERVICE_PER_ITEM_MS are both 0: "
            "an inference must take some time, give at least one of them"
        )
    return mistakes


def _visible_gpu(environment: Mapping[str, str]) -> str:
    """The GPU that the device plugin gave this container, else an identifier made of the host name."""
    visible = environment.get("NVIDIA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible.startswith(("GPU-", "MIG-")):
        return visible
    return f"GPU-{uuid.uuid5(UUID_NAMESPACE, environment.get('HOSTNAME') or socket.gethostname())}"
