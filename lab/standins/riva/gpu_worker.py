"""One instance of a speech network on a real GPU, for the stand-in server: it is told batch sizes and runs them.

The network is a FastConformer with CTC of the size of the Parakeet models that Riva serves, with random weights: its
time is real, its words are not. As in Riva's streaming pipelines each request is a window of audio (left padding,
chunk, right padding); the features are computed on the GPU, each batch size is one CUDA graph. The samples are noise,
but they cross to the GPU for each batch, and the labels of the chunk come back.

It runs under the machine's own PyTorch, whatever Python that has: nothing but it, NumPy and the standard library is
imported. ``python gpu_worker.py --serve`` speaks lines over stdin and stdout (see ``gpu_engine.py``);
``python gpu_worker.py --measure FILE`` writes the service times of this machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import random
import statistics
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

SAMPLE_RATE = 16000
FFT, WINDOW, HOP, MELS = 512, 400, 160, 80
LABELS = 1025
SUBSAMPLING = 8


@dataclass(frozen=True)
class Size:
    """Layers, width, heads and the kernel of the convolutions."""

    layers: int
    width: int
    heads: int
    kernel: int = 9
    channels: int = 256


# parakeet-ctc-1.1b and -0.6b as NVIDIA publishes them; tiny is for trials on a machine without a GPU.
SIZES = {"1.1b": Size(42, 1024, 8), "0.6b": Size(24, 1024, 8), "tiny": Size(2, 64, 4, channels=32)}


@dataclass(frozen=True)
class Shape:
    """What one request is: milliseconds of audio."""

    chunk_ms: int = 160
    left_ms: int = 1920
    right_ms: int = 1920

    @property
    def samples(self) -> int:
        return (self.left_ms + self.chunk_ms + self.right_ms) * SAMPLE_RATE // 1000

    @property
    def chunk_frames(self) -> int:
        return max(1, self.chunk_ms * SAMPLE_RATE // 1000 // HOP // SUBSAMPLING)


def batch_sizes(largest: int) -> list[int]:
    """The sizes that get a graph of their own: fine where it matters; another one is padded to the next."""
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128]
    return sorted({size for size in steps if size < largest} | {largest})


def network(size: Size, torch):
    """The FastConformer: subsampling by 8, then layers of half feed-forward, attention, convolution, half again."""
    nn: Any = torch.nn
    functional = nn.functional

    class Subsampling(nn.Module):
        def __init__(self):
            super().__init__()
            channels = size.channels
            parts = [nn.Conv2d(1, channels, 3, 2, 1), nn.ReLU()]
            for _ in range(2):
                parts += [nn.Conv2d(channels, channels, 3, 2, 1, groups=channels), nn.Conv2d(channels, channels, 1)]
                parts += [nn.ReLU()]
            self.convolutions = nn.Sequential(*parts)
            self.out = nn.Linear(channels * math.ceil(MELS / SUBSAMPLING), size.width)

        def forward(self, mel):
            maps = self.convolutions(mel.unsqueeze(1))
            return self.out(maps.transpose(1, 2).flatten(2))

    def feed_forward():
        return nn.Sequential(
            nn.LayerNorm(size.width),
            nn.Linear(size.width, 4 * size.width),
            nn.SiLU(),
            nn.Linear(4 * size.width, size.width),
        )

    class Attention(nn.Module):
        """Self-attention with relative positions (Transformer-XL)."""

        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(size.width)
            self.inward = nn.Linear(size.width, 3 * size.width)
            self.position = nn.Linear(size.width, size.width, bias=False)
            self.out = nn.Linear(size.width, size.width)
            depth = size.width // size.heads
            self.content_bias = nn.Parameter(torch.randn(size.heads, 1, depth) * 0.02)
            self.position_bias = nn.Parameter(torch.randn(size.heads, 1, depth) * 0.02)

        def forward(self, x, positions):
            batch, time_steps, width = x.shape
            depth = width // size.heads
            q, k, v = (
                part.view(batch, time_steps, size.heads, depth).transpose(1, 2)
                for part in self.inward(self.norm(x)).chunk(3, dim=-1)
            )
            p = self.position(positions).view(-1, size.heads, depth).permute(1, 2, 0)
            bias = torch.matmul(q + self.position_bias, p)
            # The shift of Transformer-XL: row i keeps the columns of its own distances.
            bias = functional.pad(bias, (1, 0)).flatten(2)[:, :, time_steps:]
            bias = bias.view(batch, size.heads, time_steps, 2 * time_steps - 1)[..., :time_steps]
            mixed = functional.scaled_dot_product_attention(
                q + self.content_bias, k, v, attn_mask=bias / math.sqrt(depth)
            )
            return self.out(mixed.transpose(1, 2).reshape(batch, time_steps, width))

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(size.width)
            self.first = nn.Linear(size.width, 2 * size.width)
            self.depthwise = nn.Conv1d(size.width, size.width, size.kernel, padding=size.kernel // 2, groups=size.width)
            self.batch_norm = nn.BatchNorm1d(size.width)
            self.last = nn.Linear(size.width, size.width)

        def forward(self, x):
            x = functional.glu(self.first(self.norm(x)), dim=-1).transpose(1, 2)
            x = functional.silu(self.batch_norm(self.depthwise(x)))
            return self.last(x.transpose(1, 2))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.before, self.after = feed_forward(), feed_forward()
            self.attention, self.convolution = Attention(), Convolution()
            self.norm = nn.LayerNorm(size.width)

        def forward(self, x, positions):
            x = x + 0.5 * self.before(x)
            x = x + self.attention(x, positions)
            x = x + self.convolution(x)
            return self.norm(x + 0.5 * self.after(x))

    class FastConformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.subsampling = Subsampling()
            self.layers = nn.ModuleList(Layer() for _ in range(size.layers))
            self.labels = nn.Linear(size.width, LABELS)
            self.register_buffer("window", torch.hann_window(WINDOW))
            self.register_buffer("mels", torch.rand(FFT // 2 + 1, MELS) / 100)

        def positions(self, time_steps, like):
            places = torch.arange(time_steps - 1, -time_steps, -1, device=like.device, dtype=torch.float32)
            waves = torch.exp(
                torch.arange(0, size.width, 2, device=like.device, dtype=torch.float32)
                * (-math.log(10000.0) / size.width)
            )
            angles = places[:, None] * waves
            return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(like.dtype)

        def features(self, pcm):
            sound = pcm.float() / 32768
            spectrum = torch.stft(
                sound, FFT, HOP, WINDOW, self.window.float(), center=True, pad_mode="constant", return_complex=True
            )
            power = spectrum.real.square() + spectrum.imag.square()
            mel = (power.transpose(1, 2) @ self.mels.float() + 1e-9).log()[:, :-1]
            mean, deviation = mel.mean(1, keepdim=True), mel.std(1, keepdim=True)
            return (mel - mean) / (deviation + 1e-5)

        def forward(self, pcm):
            x = self.subsampling(self.features(pcm).to(self.labels.weight.dtype))
            positions = self.positions(x.shape[1], x)
            for layer in self.layers:
                x = layer(x, positions)
            return self.labels(x).argmax(-1).to(torch.int32)

    return FastConformer()


class Instance:
    """The network on the device, with a CUDA graph for each batch size (plain execution where there is no GPU)."""

    def __init__(self, size: str, shape: Shape, largest: int, graphs: bool = True) -> None:
        import torch

        self.torch, self.shape, self.sizes = torch, shape, batch_sizes(largest)
        self.is_cuda = torch.cuda.is_available()
        device = torch.device("cuda" if self.is_cuda else "cpu")
        torch.manual_seed(1)
        with torch.device(device):
            model = network(SIZES[size], torch).eval()
        self.model = model.to(torch.bfloat16) if self.is_cuda else model
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        pcm = torch.randint(-8000, 8000, (largest, shape.samples), dtype=torch.int16)
        self.host_in = pcm.pin_memory() if self.is_cuda else pcm
        self.device_in = self.host_in.to(device)
        first, frames = shape.left_ms * SAMPLE_RATE // 1000 // HOP // SUBSAMPLING, shape.chunk_frames
        self.kept = slice(first, first + frames)
        host_out = torch.zeros((largest, frames), dtype=torch.int32)
        self.host_out = host_out.pin_memory() if self.is_cuda else host_out
        self.graphs: dict = {}
        with torch.inference_mode():
            if not self.is_cuda:
                return
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                # Each size once: the plans of its transforms and products are made before a graph is recorded.
                for number in self.sizes:
                    self.model(self.device_in[:number])
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            pool = None
            # The largest first, so that the others find their memory in its pool.
            for number in reversed(self.sizes) if graphs else ():
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    out = self.model(self.device_in[:number])
                pool = pool or graph.pool()
                self.graphs[number] = (graph, out)
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]

    def run(self, number: int) -> tuple[int, ...]:
        """Execute a batch; nanoseconds of input, inference and output, by the device's clock."""
        torch = self.torch
        padded = next(size for size in self.sizes if size >= number)
        with torch.inference_mode():
            if not self.is_cuda:
                started = time.perf_counter_ns()
                self.host_out[:padded].copy_(self.model(self.host_in[:padded])[:, self.kept])
                return 0, time.perf_counter_ns() - started, 0
            begin, copied, computed, end = self.events
            begin.record()
            self.device_in[:number].copy_(self.host_in[:number], non_blocking=True)
            copied.record()
            if self.graphs:
                graph, out = self.graphs[padded]
                graph.replay()
            else:
                out = self.model(self.device_in[:padded])
            computed.record()
            self.host_out[:number].copy_(out[:number, self.kept], non_blocking=True)
            end.record()
            end.synchronize()
        return tuple(
            round(first.elapsed_time(second) * 1e6)
            for first, second in ((begin, copied), (copied, computed), (computed, end))
        )

    def about(self) -> dict:
        name = self.torch.cuda.get_device_name() if self.is_cuda else "cpu"
        memory = self.torch.cuda.max_memory_reserved() if self.is_cuda else 0
        return {
            "device": name,
            "torch": self.torch.__version__,
            "parameters": self.parameters,
            "memory_reserved_bytes": memory,
            "batch_sizes": self.sizes,
            "window_ms": self.shape.samples * 1000 // SAMPLE_RATE,
            "chunk_ms": self.shape.chunk_ms,
        }


class Nvml:
    """Utilization, memory and power of this process's first GPU, by NVML itself."""

    class _Memory(ctypes.Structure):
        _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]

    class _Rates(ctypes.Structure):
        _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self._check(self.library.nvmlInit_v2())
        self.handle = ctypes.c_void_p()
        wanted = os.environ.get("NVIDIA_VISIBLE_DEVICES", "").split(",")[0]
        if wanted.startswith("GPU-"):
            code = self.library.nvmlDeviceGetHandleByUUID(wanted.encode(), ctypes.byref(self.handle))
        else:
            code = self.library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.handle))
        self._check(code)

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise OSError(f"NVML answers {code}")

    def sample(self) -> dict:
        rates, memory, power = self._Rates(), self._Memory(), ctypes.c_uint()
        uuid = ctypes.create_string_buffer(96)
        self._check(self.library.nvmlDeviceGetUtilizationRates(self.handle, ctypes.byref(rates)))
        self._check(self.library.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(memory)))
        self._check(self.library.nvmlDeviceGetPowerUsage(self.handle, ctypes.byref(power)))
        self._check(self.library.nvmlDeviceGetUUID(self.handle, uuid, 96))
        return {
            "uuid": uuid.value.decode(),
            "utilization": rates.gpu / 100,
            "memory_total_bytes": memory.total,
            "memory_used_bytes": memory.used,
            "power_watts": power.value / 1000,
        }


def serve(instance: Instance) -> None:
    """A line with a batch size comes in, a line with its three times (ns) goes out; a line `gpu {…}` once a second."""
    out = threading.Lock()

    def tell(text: str) -> None:
        with out:
            print(text, flush=True)

    def watch() -> None:
        try:
            nvml = Nvml()
            while True:
                tell(f"gpu {json.dumps(nvml.sample())}")
                time.sleep(1)
        except OSError as error:
            print(f"no figures of the GPU: {error}", file=sys.stderr, flush=True)

    for number in instance.sizes:
        instance.run(number)
    tell(f"ready {json.dumps(instance.about())}")
    threading.Thread(target=watch, daemon=True).start()
    for line in sys.stdin:
        tell("done " + " ".join(str(value) for value in instance.run(int(line))))


def timed(instance: Instance, number: int, seconds: float) -> dict:
    """The time of a batch size as a server sees it (ms), and its three parts on the device (median, ms)."""
    for _ in range(5):
        instance.run(number)
    wall: list[float] = []
    parts: list[tuple[int, ...]] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(wall) < 10:
        started = time.perf_counter()
        parts.append(instance.run(number))
        wall.append((time.perf_counter() - started) * 1000)
    wall.sort()
    return {
        "batch": number,
        "runs": len(wall),
        "median_ms": round(statistics.median(wall), 4),
        "p95_ms": round(wall[int(len(wall) * 0.95)], 4),
        "input_ms": round(statistics.median(part[0] for part in parts) / 1e6, 4),
        "infer_ms": round(statistics.median(part[1] for part in parts) / 1e6, 4),
        "output_ms": round(statistics.median(part[2] for part in parts) / 1e6, 4),
    }


def real_time(instance: Instance, streams: int, seconds: float, largest: int) -> dict:
    """Serve real-time streams with even arrivals and random phases: a free instance takes all that wait, to a limit."""
    generator, chunk = random.Random(streams), instance.shape.chunk_ms / 1000
    phases = sorted(generator.random() * chunk for _ in range(streams))
    started = time.perf_counter()
    latencies: list[float] = []
    queue_ms: list[float] = []
    sizes: list[int] = []
    taken, round_number, total = 0, 0, int(seconds / chunk) * streams

    def due(number: int) -> float:
        return started + (number // streams) * chunk + phases[number % streams]

    while taken < total:
        now = time.perf_counter()
        if due(taken) > now:
            time.sleep(max(0.0, due(taken) - now))
            continue
        number = 1
        while number < largest and taken + number < total and due(taken + number) <= now:
            number += 1
        queue_ms += [(now - due(taken + place)) * 1000 for place in range(number)]
        instance.run(number)
        done = time.perf_counter()
        latencies += [(done - due(taken + place)) * 1000 for place in range(number)]
        sizes.append(number)
        taken += number
        round_number += 1
        if done - started > 2 * seconds:
            break
    latencies.sort()
    return {
        "streams": streams,
        "served_share": round(taken / total, 4),
        "mean_batch": round(statistics.fmean(sizes), 2),
        "queue_mean_ms": round(statistics.fmean(queue_ms), 3),
        "p50_ms": round(statistics.median(latencies), 3),
        "p95_ms": round(latencies[int(len(latencies) * 0.95)], 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)], 3),
    }


def measure(path: str, sizes: list[str], largest: int, seconds: float, streams: list[int]) -> None:
    answer: dict = {"shape": asdict(Shape()), "networks": {}}
    for size in sizes:
        started = time.perf_counter()
        instance = Instance(size, Shape(), largest)
        loaded = time.perf_counter() - started
        entry: dict = {"load_seconds": round(loaded, 2), **instance.about()}
        entry["graphs"] = [timed(instance, number, seconds) for number in instance.sizes]
        print(size, entry["load_seconds"], [(row["batch"], row["median_ms"]) for row in entry["graphs"]], flush=True)
        entry["real_time"] = [real_time(instance, number, 4.0, largest) for number in streams]
        for row in entry["real_time"]:
            print(row, flush=True)
        graphs, instance.graphs = instance.graphs, {}
        entry["without_graphs"] = [timed(instance, number, seconds / 2) for number in (1, 8, largest)]
        print("eager", [(row["batch"], row["median_ms"]) for row in entry["without_graphs"]], flush=True)
        try:
            entry["gpu"] = {key: value for key, value in Nvml().sample().items() if key != "uuid"}
        except OSError as error:
            entry["gpu"] = {"error": str(error)}
        answer["networks"][size] = entry
        graphs.clear()
        del instance
        with open(path, "w") as file:
            json.dump(answer, file, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--measure", metavar="FILE")
    parser.add_argument("--size", default="1.1b", help=f"of {', '.join(SIZES)}; --measure takes several, with commas")
    parser.add_argument("--largest", type=int, default=64, help="largest batch")
    parser.add_argument("--chunk-ms", type=int, default=160)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each batch size of --measure")
    parser.add_argument("--streams", default="50,100,200,300,400,500,600,800")
    arguments = parser.parse_args()
    if arguments.measure:
        streams = [int(part) for part in arguments.streams.split(",")]
        measure(arguments.measure, arguments.size.split(","), arguments.largest, arguments.seconds, streams)
    else:
        serve(Instance(arguments.size, Shape(chunk_ms=arguments.chunk_ms), arguments.largest))


if __name__ == "__main__":
    main()
