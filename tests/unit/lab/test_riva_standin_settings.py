"""Settings, flags and audio cutting of the Riva stand-in."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import pytest

from lab.standins.riva.audio import AudioError, ChunkCutter
from lab.standins.riva.batcher import ModelStats
from lab.standins.riva.metrics import Gpu, ensemble_of, render
from lab.standins.riva.settings import PREFIX, TABLE, Settings, SettingsError, from_environment
from lab.standins.riva.start import FlagError, parse_flags

README = Path(__file__).parents[3] / "lab/standins/riva/README.md"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("GRPC_PORT", "0", 0),
        ("HTTP_PORT", "18000", 18000),
        ("METRICS_PORT", "65535", 65535),
        ("MODEL_LOAD_SECONDS", "0.5", 0.5),
        ("INSTANCES", "2", 2),
        ("MAX_BATCH_SIZE", " 16 ", 16),
        ("PREFERRED_BATCH_SIZES", "8, 4,4", (4, 8)),
        ("PREFERRED_BATCH_SIZES", "", ()),
        ("MAX_QUEUE_DELAY_MS", "1.5", 1.5),
        ("SERVICE_BASE_MS", "0", 0.0),
        ("SERVICE_PER_ITEM_MS", "2.25", 2.25),
        ("SERVICE_CURVE", "h100-0.6b", "h100-0.6b"),
        ("ENGINE", "gpu", "gpu"),
        ("NETWORK", "0.6b", "0.6b"),
        ("MACHINE", "/data/machine", "/data/machine"),
        ("MAX_QUEUE_SIZE", "0", 0),
        ("CHUNK_MS", "80", 80),
        ("STREAM_WINDOW", "1", 1),
        ("LANGUAGE_CODE", "de-DE", "de-DE"),
        ("MODEL_NAME", "conformer-1.1b", "conformer-1.1b"),
        ("ENSEMBLE", "True", True),
        ("GRACE_SECONDS", "0", 0.0),
        ("CRASH_AFTER_SECONDS", "12", 12.0),
        ("HANG_AFTER_SECONDS", "12", 12.0),
        ("GPU_UUID", "GPU-1234", "GPU-1234"),
        ("GPU_MEMORY_MIB", "40960", 40960),
        ("HOST", "127.0.0.1", "127.0.0.1"),
    ],
)
def test_good_value(name, text, expected):
    assert getattr(from_environment({PREFIX + name: text}), name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GRPC_PORT", "65536"),
        ("GRPC_PORT", "-1"),
        ("GRPC_PORT", "tcp://10.0.0.1:50051"),
        ("HTTP_PORT", "eighty"),
        ("METRICS_PORT", ""),
        ("MODEL_LOAD_SECONDS", "-1"),
        ("MODEL_LOAD_SECONDS", "nan"),
        ("MODEL_LOAD_SECONDS", "inf"),
        ("MODEL_LOAD_SECONDS", "5s"),
        ("INSTANCES", "0"),
        ("INSTANCES", "1.5"),
        ("MAX_BATCH_SIZE", "0"),
        ("PREFERRED_BATCH_SIZES", "4,,8"),
        ("PREFERRED_BATCH_SIZES", "0"),
        ("PREFERRED_BATCH_SIZES", "16"),
        ("MAX_QUEUE_DELAY_MS", "-0.1"),
        ("SERVICE_BASE_MS", "fast"),
        ("SERVICE_PER_ITEM_MS", "-4"),
        ("MAX_QUEUE_SIZE", "-1"),
        ("CHUNK_MS", "9"),
        ("STREAM_WINDOW", "0"),
        ("LANGUAGE_CODE", "English"),
        ("MODEL_NAME", 'a"b'),
        ("ENSEMBLE", "perhaps"),
        ("GRACE_SECONDS", "soon"),
        ("CRASH_AFTER_SECONDS", "-5"),
        ("HANG_AFTER_SECONDS", "1e9"),
        ("GPU_UUID", 'x"y'),
        ("GPU_MEMORY_MIB", "0"),
        ("HOST", ""),
        ("QUEUE_SIZE", "5"),
        ("SERVICE_BASE", "5"),
    ],
)
def test_bad_value_names_its_variable(name, text):
    with pytest.raises(SettingsError, match=PREFIX + name):
        from_environment({PREFIX + name: text})


def test_all_mistakes_come_at_once_and_an_unknown_name_gets_a_hint():
    with pytest.raises(SettingsError) as caught:
        from_environment(
            {PREFIX + "INSTANCE": "1", PREFIX + "CHUNK_MS": "x", "TRITON_TIMEOUT_SEC": "0", "OTHER": "fine"}
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "did you mean RIVA_STANDIN_INSTANCES?" in str(caught.value)


def test_service_time_must_not_be_zero():
    with pytest.raises(SettingsError, match="both 0"):
        from_environment({PREFIX + "SERVICE_BASE_MS": "0", PREFIX + "SERVICE_PER_ITEM_MS": "0"})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({PREFIX + "GPU_UUID": "GPU-a", "NVIDIA_VISIBLE_DEVICES": "GPU-b"}, "GPU-a"),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-b,GPU-c"}, "GPU-b"),
        (
            {"NVIDIA_VISIBLE_DEVICES": "all", "HOSTNAME": "pod"},
            from_environment({"HOSTNAME": "pod"}).gpu_uuid,
        ),
    ],
)
def test_gpu_identifier(environment, expected):
    assert from_environment(environment).gpu_uuid == expected
    assert expected.startswith("GPU-")


def test_every_setting_is_a_field_and_stands_in_the_readme_with_its_default():
    text = README.read_text()
    for setting in TABLE:
        default = getattr(Settings(), setting.attribute)
        shown = f"{default:g}" if isinstance(default, float) else str(default).lower()
        shown = {"()": "", "parakeet-streaming-asr": shown, "en-us": "en-US"}.get(shown, shown)
        cell = f"`{shown}`" if shown else "(none)"
        assert f"| `{setting.name}` | {cell} |" in text


@pytest.mark.parametrize(
    ("arguments", "asr", "tts"),
    [
        ([], True, False),
        (
            ["--asr_service=true", "--nlp_service=false", "--nmt_service=false", "--tts_service=false"],
            True,
            False,
        ),
        (["--asr_service=false", "--tts_service"], False, True),
        (["-noasr_service", "--tts_service=YES"], False, True),
    ],
)
def test_flags(arguments, asr, tts):
    services = parse_flags(arguments)
    assert (services["asr_service"], services["tts_service"]) == (asr, tts)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--nlp_service=", "illegal value '' specified for bool flag 'nlp_service'"),
        ("--asr_service=maybe", "illegal value 'maybe' specified for bool flag 'asr_service'"),
        ("--sar_service=true", "unknown command line flag 'sar_service'"),
        ("true", "unexpected argument"),
    ],
)
def test_bad_flags(argument, text):
    with pytest.raises(FlagError, match=text):
        parse_flags([argument])


def wav(seconds: float, rate: int = 16000, channels: int = 1, width: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(int(seconds * rate) * channels * width))
    return buffer.getvalue()


@pytest.mark.parametrize("piece", [1, 7, 1000, 3200, 10**6])
@pytest.mark.parametrize(
    ("audio", "rate", "chunks"),
    [
        (bytes(16000), 16000, [2560] * 3 + [320]),
        (bytes(5120), 16000, [2560]),
        (bytes(5121), 16000, [2560]),
        (b"", 16000, []),
        (b"RI", 16000, [1]),
        (b"RIFX" + bytes(6), 8000, [5]),
        (wav(0.2), 0, [2560, 640]),
        (wav(0.2, rate=8000), 16000, [1280, 320]),
        # A part before the data is passed over.
        (
            b"RIFF" + bytes(4) + b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0" + wav(0.1)[12:],
            0,
            [1600],
        ),
    ],
    ids=[
        "odd end",
        "one chunk",
        "half a sample",
        "nothing",
        "two bytes",
        "not RIFF",
        "wav",
        "wav rate",
        "wav part",
    ],
)
def test_chunks_do_not_depend_on_how_the_audio_is_cut_by_the_client(audio, rate, chunks, piece):
    cutter = ChunkCutter(rate, 160)
    cut = [part for start in range(0, len(audio), piece) for part in cutter.feed(audio[start : start + piece])]
    cut += cutter.finish()
    assert cut == chunks
    assert cutter.samples == sum(chunks)


@pytest.mark.parametrize(
    ("audio", "rate", "text"),
    [
        (bytes(100), 0, "sample_rate_hertz is 0"),
        (wav(0.1, channels=2), 16000, "2 channels"),
        (wav(0.1, width=1), 16000, "8 bits"),
        (b"RIFF" + bytes(8), 16000, "not WAVE"),
        (wav(0.1)[:30], 16000, "not complete"),
        (
            b"RIFF" + bytes(4) + b"WAVE" + b"LIST" + struct.pack("<I", 10**6) + bytes(70000),
            16000,
            "no data part",
        ),
    ],
)
def test_audio_that_cannot_be_used(audio, rate, text):
    cutter = ChunkCutter(rate, 160)
    with pytest.raises(AudioError, match=text):
        cutter.feed(audio) + cutter.finish()


def test_ensemble_repeats_its_model_without_a_queue_of_its_own():
    inner = ModelStats(success=10, inferences=10, executions=4, request_us=500, queue_us=300, pending=7)
    inner.failure["REJECTED"] = 2
    outer = ensemble_of(inner)
    assert (outer.success, outer.executions, outer.queue_us, outer.pending) == (10, 10, 0, 0)
    assert outer.failure == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 2}


def test_gpu_is_sampled_at_most_once_a_second():
    gpu = Gpu("GPU-x", 1000)
    second = 10**9
    gpu.sample(second, 0)
    gpu.sample(second + second // 2, second // 2)
    assert gpu.utilization == 0
    gpu.sample(3 * second, second)
    assert gpu.utilization == 0.5
    assert 'nv_gpu_utilization{gpu_uuid="GPU-x"} 0.5\n' in render({}, gpu)
