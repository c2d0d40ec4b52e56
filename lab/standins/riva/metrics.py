"""Triton's metrics page: names, help texts, types and labels as Triton writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .batcher import NS_PER_MS, Batcher, ModelStats

CONTENT_TYPE = "text/plain; charset=utf-8"
VERSION = "1"
SHORTEST_INTERVAL_NS = 1000 * NS_PER_MS
IDLE_WATTS, BUSY_WATTS = 12.0, 68.0
WEIGHTS_SHARE = 0.4

# name, type, help, value of one model
PER_MODEL = (
    (
        "nv_inference_request_success",
        "counter",
        "Number of successful inference requests, all batch sizes",
        "success",
    ),
    (
        "nv_inference_request_failure",
        "counter",
        "Number of failed inference requests, all batch sizes",
        "failure",
    ),
    (
        "nv_inference_count",
        "counter",
        "Number of inferences performed (does not include cached requests)",
        "inferences",
    ),
    (
        "nv_inference_exec_count",
        "counter",
        "Number of model executions performed (does not include cached requests)",
        "executions",
    ),
    (
        "nv_inference_request_duration_us",
        "counter",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        "request_us",
    ),
    (
        "nv_inference_queue_duration_us",
        "counter",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        "queue_us",
    ),
    (
        "nv_inference_compute_input_duration_us",
        "counter",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        "compute_input_us",
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        "compute_infer_us",
    ),
    (
        "nv_inference_compute_output_duration_us",
        "counter",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        "compute_output_us",
    ),
    (
        "nv_inference_pending_request_count",
        "gauge",
        "Instantaneous number of pending requests awaiting execution per-model.",
        "pending",
    ),
)


@dataclass
class Gpu:
    """The simulated card. Sampled per interval as in Triton, not per request; here at a scrape, 1 s apart."""

    uuid: str
    memory_bytes: int
    utilization: float = 0.0
    _sampled_ns: int = field(default=0, repr=False)
    _sampled_busy_ns: int = field(default=0, repr=False)

    def sample(self, now: int, busy_ns: int) -> None:
        if not self._sampled_ns:
            self._sampled_ns, self._sampled_busy_ns = now, busy_ns
        elapsed = now - self._sampled_ns
        if elapsed >= SHORTEST_INTERVAL_NS:
            self.utilization = min(1.0, (busy_ns - self._sampled_busy_ns) / elapsed)
            self._sampled_ns, self._sampled_busy_ns = now, busy_ns

    def families(self) -> Iterable[tuple[str, str, float]]:
        yield "nv_gpu_utilization", "GPU utilization rate [0.0 - 1.0)", round(self.utilization, 4)
        yield "nv_gpu_memory_total_bytes", "GPU total memory, in bytes", self.memory_bytes
        yield "nv_gpu_memory_used_bytes", "GPU used memory, in bytes", int(self.memory_bytes * WEIGHTS_SHARE)
        watts = IDLE_WATTS + (BUSY_WATTS - IDLE_WATTS) * self.utilization
        yield "nv_gpu_power_usage", "GPU power usage in watts", round(watts, 3)


def model_statistics(batcher: Batcher, acoustic: str, idle: str, ensemble: str | None) -> dict[str, ModelStats]:
    """The models that this server exports, as Riva does: one works, one waits for its turn for ever."""
    models = {acoustic: batcher.stats, idle: ModelStats()}
    if ensemble:
        models[ensemble] = ensemble_of(batcher.stats)
    return models


def ensemble_of(inner: ModelStats) -> ModelStats:
    """An ensemble hands its requests on at once: it counts them and their time, but no queue of its own.

    Its failures keep no reason but OTHER.
    """
    return ModelStats(
        success=inner.success,
        failure={**dict.fromkeys(inner.failure, 0), "OTHER": sum(inner.failure.values())},
        inferences=inner.success,
        executions=inner.success,
        request_us=inner.request_us,
        compute_input_us=inner.compute_input_us,
        compute_infer_us=inner.compute_infer_us,
        compute_output_us=inner.compute_output_us,
    )


def render(models: Mapping[str, ModelStats], gpu: Gpu) -> str:
    """The page in Prometheus' text format. Labels stand in alphabetical order."""
    lines = []
    for name, kind, text, attribute in PER_MODEL:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for model, stats in models.items():
            value = getattr(stats, attribute)
            if isinstance(value, dict):
                lines += [
                    f'{name}{{model="{model}",reason="{reason}",version="{VERSION}"}} {count}'
                    for reason, count in value.items()
                ]
            else:
                lines.append(f'{name}{{model="{model}",version="{VERSION}"}} {value}')
    for name, text, value in gpu.families():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", f'{name}{{gpu_uuid="{gpu.uuid}"}} {value}']
    return "\n".join(lines) + "\n"
