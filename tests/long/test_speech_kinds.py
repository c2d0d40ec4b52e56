"""Synthesis and translation beside recognition, each scaled by a target of its own; languages behind one address.

USE_LAB=X pytest tests/long/test_speech_kinds.py
"""

from __future__ import annotations

import json

import grpc
import pytest
from ansible_collections.speechops.riva.plugins.module_utils.outside_calls import channel, tone
from riva.client.proto import riva_asr_pb2, riva_audio_pb2

from tests.integration.running_lab import HELM, run
from tests.integration.test_site import extra
from tests.integration.way_in import way_of

RECOGNIZE = "/nvidia.riva.asr.RivaSpeechRecognition/Recognize"
# No GPUs: it is the queue that is looked at. One pod carries 4 requests in 180 ms, so that few calls fill it.
COMMON = {"gpus": 0, "max_replicas": 2, "latency_objective_ms": 1000}
PACE = {
    "RIVA_STANDIN_MODEL_LOAD_SECONDS": "2",
    "RIVA_STANDIN_MAX_BATCH_SIZE": "4",
    "RIVA_STANDIN_SERVICE_BASE_MS": "100",
    "RIVA_STANDIN_SERVICE_PER_ITEM_MS": "20",
    # A sentence is four requests.
    "RIVA_STANDIN_CHUNK_MS": "1000",
}
QUICK = {"autoscaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}}}}
SERVICES = [
    {"name": "asr-en", "header": {"name": "x-language", "value": "en-US"}, "env": PACE, **COMMON},
    {
        "name": "asr-de",
        "header": {"name": "x-language", "value": "de-DE"},
        "env": {**PACE, "RIVA_STANDIN_LANGUAGE_CODE": "de-DE"},
        **COMMON,
    },
    {
        "name": "riva-tts",
        "speech": ["tts"],
        "host": "tts.example.com",
        "queue_time_target_ms": 40,
        "env": PACE,
        "values": QUICK,
        **COMMON,
    },
    {
        "name": "riva-nmt",
        "speech": ["nmt"],
        "host": "nmt.example.com",
        "queue_time_target_ms": 25,
        "env": PACE,
        "values": QUICK,
        **COMMON,
    },
]


@pytest.fixture(scope="module")
def spoken(installed):
    installed.play("site.yml", "--tags", "riva", *extra(riva_services=SERVICES))
    yield installed
    for service in SERVICES:
        run(HELM, "uninstall", service["name"], "--namespace", "riva", KUBECONFIG=installed.kubeconfig, check=False)


def recognise(way, language: str, route: str) -> str:
    """gRPC's code of one second of speech in a language, on the route of a language."""
    config = riva_asr_pb2.RecognitionConfig(
        encoding=riva_audio_pb2.AudioEncoding.LINEAR_PCM,
        sample_rate_hertz=16000,
        language_code=language,
        audio_channel_count=1,
    )
    request = riva_asr_pb2.RecognizeRequest(config=config, audio=tone(1))
    with channel(way) as opened:
        call = opened.unary_unary(
            RECOGNIZE,
            request_serializer=riva_asr_pb2.RecognizeRequest.SerializeToString,
            response_deserializer=riva_asr_pb2.RecognizeResponse.FromString,
        )
        try:
            call(request, timeout=20, metadata=(("x-language", route),))
        except grpc.RpcError as error:
            return error.code().name
        return "OK"


def test_languages_are_services_behind_one_address(spoken):
    way = way_of(spoken)
    assert recognise(way, "de-DE", "de-DE") == "OK"
    assert recognise(way, "en-US", "en-US") == "OK"
    # The other one's pods do not know it: the header has chosen.
    assert recognise(way, "de-DE", "en-US") == "INVALID_ARGUMENT"
    assert recognise(way, "en-US", "de-DE") == "INVALID_ARGUMENT"


def test_each_kind_has_a_target_of_its_own(spoken):
    targets = {}
    for name in ("riva-tts", "riva-nmt", "riva-asr"):
        metrics = spoken.get("hpa", name, "-n", "riva")["spec"]["metrics"]
        targets[name] = [entry["pods"]["target"]["averageValue"] for entry in metrics if entry["type"] == "Pods"]
    assert targets == {"riva-tts": ["40"], "riva-nmt": ["25"], "riva-asr": ["150"]}


@pytest.mark.parametrize(("name", "callers", "every"), [("riva-tts", 20, 3), ("riva-nmt", 10, 0.4)])
def test_it_scales_on_its_own_load(spoken, tmp_path, name, callers, every):
    """1 to 2 to 1, without a failed caller; recognition beside it stays as it is."""
    done = spoken.play(
        "playbooks/load_test.yml",
        *extra(
            riva_services=SERVICES,
            load_test_name=name,
            load_test_text_seconds=every,
            load_test_profile=[
                {"streams": 3, "duration": 15},
                {"streams": callers, "duration": 90, "ramp": 20},
            ],
            load_test_tail_seconds=300,
            load_test_objective_ms=1000,
            load_test_expect_replicas=[1, 2, 1],
            load_test_report_folder=str(tmp_path / "report"),
        ),
        check=False,
    )
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    print(name, summary["headline"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert summary["streams"]["failed"] == 0
    assert summary["latency_ms"]["count"] > 100
    assert "a chunk is a text" in summary["notes"][0]
    assert spoken.get("deployment", "riva-asr", "-n", "riva")["spec"]["replicas"] == 1
