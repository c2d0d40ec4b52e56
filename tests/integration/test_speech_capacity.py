"""What one pod carries is found within a tenth, written once, and shown; the service itself is left alone meanwhile."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integration.test_site import changes, extra, recap

# 8 chunks of 160 ms in 20 + 8 x 5 = 60 ms.
SATURATION = 8 / 0.060 * 0.160


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("calibration")


def calibrate(lab, place, *arguments, check=True, **values):
    """Run calibrate.yml with its file and report below *place*, faster than a user would."""
    values = {"calibrate_settle_seconds": 3, "calibrate_hold_seconds": 8, "calibrate_confirm_seconds": 15, **values}
    where = {
        "calibrate_file": str(place / "vars" / "calibration.yml"),
        "calibrate_report_folder": str(place / "report"),
    }
    return lab.play("playbooks/calibrate.yml", "--diff", *arguments, *extra(**where, **values), check=check)


def test_the_known_capacity_of_a_pod_is_found_within_a_tenth(installed, place):
    def settings():
        """All of the service but its number of pods, which is the HPA's."""
        deployment = installed.get("deployment", "riva-asr", "-n", "riva")["spec"]
        return {**deployment, "replicas": None}, installed.get("hpa", "riva-asr", "-n", "riva")["spec"]

    before = settings()
    output = calibrate(
        installed, place, calibrate_first_streams=16, calibrate_max_streams=24, calibrate_peak_streams=100
    ).stdout
    entry = yaml.safe_load((place / "vars" / "calibration.yml").read_text())["riva_calibration"]["riva-asr"]
    assert 0.9 * SATURATION <= entry["stream_limit"] <= 1.1 * SATURATION, output
    assert 0.85 * SATURATION <= entry["planned_streams"] <= entry["stream_limit"]
    # The stand-in loads 10 s, and is asked every 5 s.
    assert 9 <= entry["model_load_seconds"] <= 25
    assert entry["max_replicas"] == -(-100 // entry["planned_streams"]) + 2
    assert "+    stream_limit: " in output
    assert "<svg" in (place / "report" / "index.html").read_text()
    # The service was left alone, and nothing is left behind.
    assert settings() == before
    names = {item["metadata"]["name"] for item in installed.get("deployments", "-n", "riva")["items"]}
    assert "riva-asr-calibration" not in names


def test_from_a_result_the_file_is_made_anew_for_another_peak_and_only_then(installed, place):
    result = {"calibrate_result_file": str(place / "report" / "calibration.json")}
    file = place / "vars" / "calibration.yml"
    before = file.read_text()
    assert changes(calibrate(installed, place, calibrate_peak_streams=100, **result).stdout) == []
    told = calibrate(installed, place, "--check", calibrate_peak_streams=300, **result).stdout
    assert "+    max_replicas: 1" in told
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"calibrate_peek_streams": 100}, "unknown variables calibrate_peek_streams"),
        ({"calibrate_name": "riva-xyz"}, "riva_services has riva-asr"),
        ({"calibrate_endpoint": "127.0.0.1:1", "calibrate_hold_seconds": 1}, "hold_seconds is 1; it must be from 8"),
    ],
)
def test_bad_input_is_named_before_anything_is_installed(installed, place, values, said):
    done = calibrate(installed, place, check=False, **values)
    assert done.returncode != 0
    assert said in " ".join(done.stdout.split())
    assert recap(done.stdout)["changed"] == 0


def test_capacity_is_shown_as_a_table_and_as_json(installed, tmp_path):
    file = tmp_path / "capacity.json"
    output = installed.play("playbooks/capacity.yml", *extra(capacity_report_file=str(file))).stdout
    assert "SERVICE        STREAMS  CARRIES NOW" in output
    assert "GPUs free on 2 nodes (nvidia.com/gpu)" in output
    (cluster,) = json.loads(file.read_text())
    (service,) = cluster["services"]
    assert cluster["gpus"]["allocatable"] == 4
    assert (service["streams"], service["streams_source"]) == (0, "counted")
    assert service["carries_now"] == service["streams_per_pod"] * service["replicas"]["ready"]
    assert service["state"] == "room"
