# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with the options of a load test, in words. Pure."""

from __future__ import annotations

import re

from ansible_collections.speechops.riva.plugins.module_utils.load_numbers import path_of
from ansible_collections.speechops.riva.plugins.module_utils.load_profile import (
    LOGNORMAL,
    MOST_STREAMS_AT_ONCE,
    Schedule,
    profile_problems,
)

# option: (least, most, unit)
RANGES = {
    "tail_seconds": (0, 3600, "seconds"),
    "stream_seconds": (1, 3600, "seconds"),
    "stream_grace_seconds": (1, 600, "seconds"),
    "chunk_duration_ms": (10, 5000, "milliseconds"),
    "objective_ms": (1, 60000, "milliseconds"),
    "sample_seconds": (1, 60, "seconds"),
    "max_streams": (1, 1000000, "streams"),
    "max_streams_at_once": (1, 10000, "streams"),
    "max_failed_streams": (0, 1000000, "streams"),
    "max_refused_streams": (0, 1000000, "streams"),
    "stream_median_seconds": (1, 3600, "seconds"),
    "text_seconds": (0.1, 600, "seconds"),
    "stream_sigma": (0.1, 3, "(no unit)"),
    "abort_failed_percent": (1, 100, "percent"),
    "abort_latency_ms": (1, 600000, "milliseconds"),
}
ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


def endpoint_arguments() -> dict:
    """The options of the documentation fragment speech_endpoint."""
    return {
        "balancer_namespace": {"type": "str", "default": "traefik"},
        "balancer_service": {"type": "str", "default": "traefik"},
        "tls": {"type": "bool", "default": False},
        "tls_ca_file": {"type": "path"},
        "tls_certificate_file": {"type": "path"},
        "tls_key_file": {"type": "path"},
        "tls_server_name": {"type": "str"},
        "chunk_duration_ms": {"type": "int", "default": 160},
        "language_code": {"type": "str", "default": "en-US"},
    }


def option_problems(options: dict) -> list[str]:
    """Return one sentence for each option that cannot be used."""
    problems = load_problems(options) + text_problems(options)
    for name, (least, most, unit) in RANGES.items():
        if options.get(name) is not None and not least <= options[name] <= most:
            problems.append(f"{name} is {options[name]:g}; it must be from {least} to {most} {unit}")
    endpoint = options.get("endpoint")
    if endpoint:
        found = ENDPOINT.fullmatch(endpoint)
        if not found or not 0 < int(found.group(2)) < 65536:
            problems.append(f"endpoint is {endpoint!r}; it must be host:port, for example 10.0.0.5:50051")
    elif options.get("watch_cluster") is False:
        problems.append("watch_cluster is false, so the cluster gives no endpoint; set endpoint to host:port")
    if options.get("stream_distribution") == LOGNORMAL and options["stream_median_seconds"] > options["stream_seconds"]:
        problems.append(
            f"stream_median_seconds is {options['stream_median_seconds']:g}, more than the longest stream, "
            f"stream_seconds {options['stream_seconds']:g}; it must be less"
        )
    expected = options.get("expect_replicas")
    if expected and options.get("watch_cluster") is False:
        problems.append("expect_replicas needs to see the cluster; leave it out, or set watch_cluster to true")
    if expected is not None and (not expected or min(expected) < 0 or path_of(expected) != expected):
        problems.append(
            f"expect_replicas is {expected}; it must be a list of numbers, each different from the one before, "
            "for example [1, 3, 1]"
        )
    return problems


def text_problems(options: dict) -> list[str]:
    """Return what is wrong with the texts of synthesis or translation, or with options that those do not have."""
    texts = options.get("texts")
    if options.get("speech", "asr") == "asr":
        return ["texts is for speech tts or nmt; recognition needs audio"] if texts else []
    if texts is not None and not (texts and all(str(text).strip() for text in texts)):
        return ["texts has an empty entry, or none; give sentences, or leave it out"]
    return []


def load_problems(options: dict) -> list[str]:
    """Return what is wrong with the profile or the trace (as `read_trace` gives it); one of the two must be there."""
    most = options.get("max_streams_at_once") or MOST_STREAMS_AT_ONCE
    trace = options.get("trace")
    if bool(trace) == bool(options.get("profile")):
        return ["profile and trace_file: one of the two must be given, and not both"]
    if not trace:
        return [f"profile: {problem}" for problem in profile_problems(options["profile"], most)]
    peak = Schedule([], trace).peak
    if peak > most:
        return [f"trace_file: it asks for {peak} streams at once; {most} is the most (max_streams_at_once)"]
    return []
