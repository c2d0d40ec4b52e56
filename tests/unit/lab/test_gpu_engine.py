"""The queue before a real GPU, with a worker that only waits; and the service times measured on real ones."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from lab.standins.riva.batcher import NS_PER_MS, BatcherConfig, QueueFullError, on_curve
from lab.standins.riva.curves import CURVES
from lab.standins.riva.gpu_engine import GpuEngine, GpuEngineError, RealGpu, machine_command
from lab.standins.riva.metrics import render
from lab.standins.riva.settings import from_environment

FIXTURES = Path(__file__).parents[2] / "fixtures" / "real_gpu"
SAMPLE = {
    "uuid": "GPU-1",
    "utilization": 0.62,
    "memory_total_bytes": 85520809984,
    "memory_used_bytes": 3200000000,
    "power_watts": 412.5,
}
WORKER = f"""
import sys, time
print('ready {{"device": "a trial"}}', flush=True)
print('gpu {json.dumps(SAMPLE)}', flush=True)
for line in sys.stdin:
    time.sleep(0.01 + 0.002 * int(line))
    print('done 1000000', 8000000 + int(line), 500000, flush=True)
"""


class Owner:
    def __init__(self):
        self.done = []

    def chunks_done(self, requests):
        self.done += requests


def engine_of(code=WORKER, **config):
    told = []
    engine = GpuEngine(BatcherConfig(**config), [sys.executable, "-c", code], {}, told.append)
    return engine, told


async def until(condition, seconds=5):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it does not come true"
        await asyncio.sleep(0.002)


def test_batches_form_while_the_device_works():
    async def run():
        engine, _ = engine_of(max_batch_size=4)
        await engine.start()
        owner = Owner()
        for _ in range(7):
            engine.submit(owner, 2560)
        # The first goes alone, the others wait and go as Triton would send them.
        assert (engine.batcher.executing, engine.batcher.waiting, engine.batcher.stats.pending) == (1, 6, 6)
        await until(lambda: len(owner.done) == 7)
        stats = engine.batcher.stats
        assert (stats.executions, stats.success, stats.pending) == (3, 7, 0)
        # Each request counts the whole time of its batch, as the device told it.
        assert stats.compute_input_us == 7 * 1000
        assert stats.compute_output_us == 7 * 500
        assert stats.compute_infer_us == 7 * 8000
        assert stats.queue_us >= 4 * 12000 + 2 * 24000
        assert 0.030 < engine.batcher.busy_ns(time.monotonic_ns()) / 1e9 < 2
        await until(lambda: engine.sample)
        gpu = RealGpu("GPU-x", 1)
        gpu.update(engine.sample)
        page = render({}, gpu)
        assert 'nv_gpu_utilization{gpu_uuid="GPU-1"} 0.62' in page
        assert 'nv_gpu_power_usage{gpu_uuid="GPU-1"} 412.5' in page
        assert 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 3200000000' in page
        await engine.stop()

    asyncio.run(run())


def test_two_instances_work_at_the_same_time():
    async def run():
        engine, _ = engine_of(max_batch_size=1, instances=2)
        await engine.start()
        owner = Owner()
        for _ in range(3):
            engine.submit(owner, 2560)
        assert engine.batcher.executing == 2
        await until(lambda: len(owner.done) == 3)
        await engine.stop()

    asyncio.run(run())


def test_a_full_queue_refuses_and_a_client_that_leaves_takes_its_requests_along():
    async def run():
        engine, _ = engine_of(max_batch_size=1, max_queue_size=2)
        await engine.start()
        stays, leaves = Owner(), Owner()
        engine.submit(stays, 1)
        engine.submit(leaves, 1)
        engine.submit(stays, 1)
        with pytest.raises(QueueFullError):
            engine.submit(stays, 1)
        engine.cancel(leaves)
        await until(lambda: len(stays.done) == 2)
        assert leaves.done == []
        assert engine.batcher.stats.failure == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 0, "OTHER": 0}
        await engine.stop()

    asyncio.run(run())


def test_a_queue_delay_waits_for_a_batch():
    async def run():
        engine, _ = engine_of(max_batch_size=4, max_queue_delay_ns=40 * NS_PER_MS)
        await engine.start()
        owner = Owner()
        engine.submit(owner, 1)
        assert engine.batcher.executing == 0
        await until(lambda: owner.done)
        assert owner.done[0].started_ns - owner.done[0].arrived_ns >= 40 * NS_PER_MS
        await engine.stop()

    asyncio.run(run())


def test_frozen_nothing_ends():
    async def run():
        engine, _ = engine_of()
        await engine.start()
        owner = Owner()
        engine.submit(owner, 1)
        engine.freeze()
        await asyncio.sleep(0.1)
        assert owner.done == []
        await engine.stop()

    asyncio.run(run())


def test_a_worker_that_ends_breaks_the_engine():
    async def run():
        engine, told = engine_of("print('ready {}', flush=True); raise SystemExit(3)")
        await engine.start()
        await asyncio.wait_for(engine.broken.wait(), 5)
        assert told == ["the GPU's worker has ended with 3"]

    asyncio.run(run())


def test_a_worker_that_cannot_start_is_told():
    async def run():
        engine, _ = engine_of("raise SystemExit('no CUDA')")
        with pytest.raises(GpuEngineError, match="ended with 1"):
            await engine.start()

    asyncio.run(run())


def test_the_machines_python_is_run_with_the_machines_own_libraries(tmp_path, monkeypatch):
    with pytest.raises(GpuEngineError, match="holds no PyTorch of the machine"):
        machine_command(tmp_path)
    (tmp_path / "pytorch.json").write_text('{"python": "3.12"}')
    with pytest.raises(GpuEngineError, match="no dynamic loader"):
        machine_command(tmp_path)
    loader = tmp_path / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    loader.parent.mkdir(parents=True)
    loader.touch()
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1")
    monkeypatch.setenv("PYTHONPATH", "/opt/speechops")
    command, environment = machine_command(tmp_path)
    assert command[0] == str(loader)
    assert command[3] == f"{tmp_path}/home/bin/python3.12"
    assert f"{tmp_path}/driver" in command[2].split(":")
    assert environment["PYTHONPATH"] == f"{tmp_path}/packages"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "GPU-1"


@pytest.mark.parametrize("name", CURVES)
def test_curves_are_what_was_measured(name):
    card, _, network = name.partition("-")
    measured = json.loads((FIXTURES / f"{card}-service-times.json").read_text())["networks"][network]["graphs"]
    assert CURVES[name] == tuple((row["batch"], round(row["median_ms"], 2)) for row in measured)


@pytest.mark.parametrize("name", CURVES)
def test_curves_grow(name):
    sizes, times = zip(*CURVES[name], strict=True)
    assert list(sizes) == sorted(set(sizes))
    assert list(times) == sorted(times)


@pytest.mark.parametrize(("size", "expected"), [(1, 100), (2, 150), (3, 200), (5, 260), (7, 320), (9, 380)])
def test_between_the_points_a_straight_line(size, expected):
    assert on_curve(((1, 100), (3, 200), (7, 320)), size) == expected


def test_a_straight_line_that_is_asked_for_takes_the_place_of_the_curve():
    assert from_environment({}).service_curve == "h100-1.1b"
    assert from_environment({"RIVA_STANDIN_SERVICE_BASE_MS": "20"}).service_curve == ""
    both = {"RIVA_STANDIN_SERVICE_BASE_MS": "20", "RIVA_STANDIN_SERVICE_CURVE": "h100-0.6b"}
    assert from_environment(both).service_curve == "h100-0.6b"
