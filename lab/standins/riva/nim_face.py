"""What of a Speech NIM is not Riva: its environment, its cache, its HTTP paths.

After NVIDIA's documentation (docs.nvidia.com/nim/speech: runtime parameters, observability). The figures of
`/v1/metrics` are those that it lists: GPU and process, no `nv_inference_*`. Those are on the Triton inside, at 8002.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .metrics import CONTENT_TYPE, Gpu
from .web import Response

CACHE = "/opt/nim/.cache"
MARK = "standin-models"


class NimError(RuntimeError):
    """The container can't start. The text says it as a NIM does."""


@dataclass
class Nim:
    """The face of a NIM: where its cache is, and how long it has to fetch what is not in it."""

    cache: Path
    container: str = "stand-in"
    fetch_seconds: float = 0.0
    started: float = field(default_factory=time.time)

    def keep(self) -> None:
        """What was fetched and built is in the cache from now on."""
        (self.cache / MARK).write_text("a stand-in has no models\n")

    def answer(self, path: str, ready: bool, gpu: Gpu) -> Response:
        if path == "/v1/health/live":
            return _json({"object": "health.response", "message": "live", "status": "live"})
        if path == "/v1/health/ready":
            word = "ready" if ready else "not ready"
            return _json({"object": "health.response", "message": word, "status": word}, 200 if ready else 503)
        if path == "/v1/metadata":
            return _json({"modelInfo": [{"shortName": self.container}], "version": "stand-in"})
        if path == "/v1/metrics":
            return Response(200, self._page(gpu), CONTENT_TYPE)
        return Response(404, '{"detail":"Not Found"}', "application/json")

    def _page(self, gpu: Gpu) -> str:
        figures = {
            "gpu_power_usage_watts": next(
                value for name, _text, value in gpu.families() if name == "nv_gpu_power_usage"
            ),
            "gpu_utilization": gpu.utilization,
            "gpu_memory_total_bytes": gpu.memory_bytes,
            "process_start_time_seconds": self.started,
            "process_cpu_seconds_total": time.process_time(),
        }
        lines = [f"# TYPE {name} gauge\n{name} {value}" for name, value in figures.items()]
        return "\n".join(lines) + "\n"


def _json(content: dict, status: int = 200) -> Response:
    return Response(status, json.dumps(content), "application/json")


def from_environment(environment: Mapping[str, str], fetch_seconds: float, container: str) -> Nim:
    """The face, or NimError where a NIM would not start: no key, or a cache that is another user's."""
    cache = Path(environment.get("NIM_CACHE_PATH") or CACHE)
    offline = environment.get("NIM_DISABLE_MODEL_DOWNLOAD", "").lower() in ("1", "true")
    if not os.access(cache, os.W_OK):
        raise NimError(f"cache {cache}: Permission denied (os error 13); it must be writable by uid {os.getuid()}")
    kept = (cache / MARK).exists()
    if not (kept or offline or environment.get("NGC_API_KEY")):
        raise NimError("NGC_API_KEY is not set, the cache is empty: Authentication Error (401)")
    return Nim(cache, container, 0.0 if kept else fetch_seconds)
