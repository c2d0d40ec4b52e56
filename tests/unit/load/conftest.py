"""What the tests of the load test share: a tone as a wav file, and the records of a run that went 1 → 3 → 1."""

from __future__ import annotations

import math
import random
import struct
import wave

import pytest


def write_tone(path, seconds=1.0, rate=16000, channels=1, width=2, pitch=440.0):
    """Write a sine tone as a wav file."""
    frames = bytearray()
    for index in range(int(seconds * rate)):
        value = math.sin(2 * math.pi * pitch * index / rate)
        sample = struct.pack("<h", int(8000 * value)) if width == 2 else bytes([int(128 + 60 * value)])
        frames += sample * channels
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(frames))
    return str(path)


@pytest.fixture
def tone(tmp_path):
    return write_tone(tmp_path / "tone.wav")


@pytest.fixture
def make_tone():
    return write_tone


def pod(name, created, ready, node):
    return {"name": name, "node": node, "created": created, "ready": ready, "leaving": False, "restarts": 0}


def example_records():
    """Return the records of an invented run: a burst of 40 streams, two more pods, back to one; one stream fails."""
    rng = random.Random(7)
    steps = [
        {"streams": 6, "duration": 45.0, "ramp": 5.0},
        {"streams": 40, "duration": 150.0, "ramp": 30.0},
        {"streams": 6, "duration": 45.0, "ramp": 10.0},
    ]
    plan = {
        "endpoint": "172.30.0.200:50051",
        "namespace": "riva",
        "name": "riva-asr",
        "steps": steps,
        "tail_seconds": 180.0,
        "chunk_duration_ms": 160,
        "stream_seconds": 20.0,
        "stream_grace_seconds": 30.0,
        "objective_ms": 300.0,
        "sample_seconds": 3.0,
        "max_streams": 5000,
        "language_code": "en-US",
    }
    audio = {"files": 5, "seconds": 24.7, "samples_per_second": 16000}
    records = [{"kind": "start", "t": 0.0, "time": "2026-11-20T10:00:00.000+00:00", "plan": plan, "audio": audio}]
    pods = [
        pod("riva-asr-6c9d-aaaaa", "2026-11-20T09:50:00Z", "2026-11-20T09:50:31Z", "lab-gpu-1"),
        pod("riva-asr-6c9d-bbbbb", "2026-11-20T10:01:15Z", "2026-11-20T10:01:47Z", "lab-gpu-2"),
        pod("riva-asr-6c9d-ccccc", "2026-11-20T10:01:15Z", "2026-11-20T10:01:49Z", "lab-gpu-2"),
    ]
    opened = finished = failed = 0
    for t in range(1, 385):
        level = 6 if t < 45 else min(40, 6 + int((t - 45) * 34 / 30)) if t < 195 else 6 if t < 240 else 0
        in_flight = level if t < 240 else max(0, 6 - (t - 240) // 3)
        opened += in_flight // 14 + (1 if t % 3 == 0 and t < 240 else 0) if t < 240 else 0
        load = in_flight / (16 if t < 107 or t >= 330 else 48)
        base = 40 + 30 * load + (260 * (load - 1) if load > 1 else 0)
        latency = [round(max(20, rng.gauss(base, base / 8)), 1) for _ in range(int(in_flight * 6.25))]
        ended = opened - in_flight - finished - failed
        for _ in range(max(0, ended)):
            bad = t > 100 and not failed
            failed, finished = failed + bad, finished + (not bad)
            records.append(
                {
                    "kind": "stream", "t": t + 0.0, "number": finished + failed, "opened": t - 15.0, "seconds": 15.0,
                    "state": "failed" if bad else "finished", "code": "UNAVAILABLE" if bad else "",
                    "details": "connection reset by peer" if bad else "", "chunks": 94, "sent": 94 - 40 * bad,
                    "answered": 94 - 40 * bad, "late": 0, "first_response_ms": round(rng.gauss(base + 30, 9), 1),
                    "final_ms": round(rng.gauss(base + 60, 9), 1), "pod": "",
                    "real_time_factor": None if bad else round(1 + (base + 60) / 15000, 4),
                }
            )  # fmt: skip
        late = sum(value > 300 for value in latency)
        phase = 0 if t <= 45 else 1 if t <= 195 else 2 if t <= 240 else 3
        records.append(
            {
                "kind": "streams", "t": t + 0.0, "phase": phase, "level": level, "in_flight": in_flight,
                "opened": opened, "finished": finished, "failed": failed, "refused": 0, "chunks_sent": len(latency),
                "chunks_answered": len(latency), "chunks_late": late, "latency_ms": latency,
                "pacing_lag_ms": [round(abs(rng.gauss(0.8, 0.6)), 1) for _ in latency],
            }
        )  # fmt: skip
        if t % 3 == 0:
            desired = 1 if t < 75 or t >= 345 else 3 if t < 330 else 2
            ready = 1 if t < 107 or t >= 346 else 2 if t < 109 or t >= 331 else 3
            queue = None if t < 4 else round(max(0.1, (40 * max(0, load - 0.8)) + rng.gauss(1.5, 0.5)), 3)
            records.append(
                {
                    "kind": "cluster", "t": t + 0.2, "t_asked": t + 0.0, "min": 1, "max": 4, "desired": desired,
                    "replicas": desired, "ready": ready,
                    "metrics": [{"name": "avg_time_queue_ms", "kind": "averageValue", "target": 8.0, "value": queue}],
                    "pods": pods[:desired], "gpus_per_pod": 1, "streams_source": "counted",
                    "streams": {p["name"]: round(in_flight / max(1, ready)) for p in pods[:ready]},
                    "limits": {p["name"]: 20 for p in pods[:ready]},
                }
            )  # fmt: skip
        for at, size, why in ((75, 3, "above target"), (330, 2, "below target"), (345, 1, "below target")):
            if t == at:
                reason = f"pods metric avg_time_queue_ms {why}" if size == 3 else f"All metrics {why}"
                time = f"2026-11-20T10:{at // 60:02d}:{at % 60:02d}Z"
                records.append(
                    {
                        "kind": "event", "t": t + 0.3, "time": time, "reason": "SuccessfulRescale",
                        "message": f"New size: {size}; reason: {reason}", "count": 1,
                    }
                )  # fmt: skip
    records.append({"kind": "end", "t": 385.0, "reason": "back at the minimum"})
    return records


def example_calibration():
    """Return the result of an invented calibration: 21 streams, of which the server says how long they wait."""
    held = ((4, "passed", 90, 1), (8, "passed", 95, 2), (16, "passed", 110, 12), (32, "failed", 5200, 3000),
            (24, "failed", 900, 700), (20, "passed", 140, 40), (22, "failed", 420, 250), (21, "passed", 180, 60),
            (21, "passed", 182, 61))  # fmt: skip
    levels = [
        {
            "streams": streams,
            "seconds": 40.0 if number == len(held) - 1 else 14.0,
            "judgement": {
                "state": state, "reason": "of the chunks are late", "sure": True,
                "late_percent": 0.0 if state == "passed" else 60.0,
                "low_percent": 0.0 if state == "passed" else 45.0,
                "high_percent": 0.2 if state == "passed" else 75.0, "rising_ms": 0.0,
            },
            "latency_ms": {"count": 900, "mean": p50, "p50": p50, "p90": p50 * 1.2, "p95": p50 * 1.3, "p99": p50 * 1.5,
                           "max": p50 * 2.0},
            "throughput": min(streams, 21.4),
            "queue_ms": float(queue),
            "confirmed": number == len(held) - 1,
        }
        for number, (streams, state, p50, queue) in enumerate(held)
    ]  # fmt: skip
    entry = {"stream_limit": 21, "planned_streams": 20, "queue_time_target_ms": 122.0, "latency_objective_ms": 300,
             "longest_stream_seconds": 600, "model_load_seconds": 12.0, "min_replicas": 1,
             "max_replicas": 7}  # fmt: skip
    return {
        "schema": 1,
        "service": "riva/riva-asr",
        "endpoint": "172.30.0.200:50051",
        "started": "2026-11-20T10:00:00+00:00",
        "seconds": 214.3,
        "objective": {"latency_ms": 300.0, "late_percent": 1.0, "longest_stream": 600.0},
        "settings": {"chunk_duration_ms": 160, "stream_seconds": 60.0, "settle_seconds": 5.0, "hold_seconds": 14.0,
                     "confirm_seconds": 40.0},
        "capacity": {"streams": 21, "low": 21, "high": 21, "saturation": 21.4, "bounded": False},
        "model_load": {"start_s": 2.0, "load_s": 12.0},
        "queue_seen": True,
        "pacing_lag_p99_ms": 3.1,
        "measured": {key: value for key, value in entry.items() if "replicas" not in key},
        "levels": levels,
        "entry": entry,
        "kept": False,
        "peak": {"peak_streams": 100, "base_streams": 0, "spare_pods": 1.75},
    }  # fmt: skip


@pytest.fixture(scope="session")
def records():
    return example_records()
