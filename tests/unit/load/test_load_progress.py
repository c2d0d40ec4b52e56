"""The line that is shown while the test runs."""

import json
import os
import threading
from types import SimpleNamespace

import pytest
from ansible_collections.speechops.riva.plugins.module_utils.load_progress import (
    Follower,
    Lines,
    progress_line,
    time_left,
)
from ansible_collections.speechops.riva.plugins.plugin_utils.following import run_followed

START = {
    "kind": "start",
    "t": 0,
    "plan": {
        "steps": [{"streams": 4, "duration": 60.0, "ramp": 0.0}],
        "tail_seconds": 100.0,
        "stream_seconds": 20.0,
        "stream_grace_seconds": 30.0,
    },
}
STREAMS = {"kind": "streams", "t": 21.3, "in_flight": 3, "level": 4, "finished": 7, "failed": 1}
CLUSTER = {
    "kind": "cluster",
    "t": 20.0,
    "desired": 3,
    "ready": 1,
    "metrics": [{"name": "avg_time_queue_ms", "target": 10.0, "value": 22.3}],
}


def test_a_line_says_streams_replicas_metric_and_time_left():
    assert progress_line({"start": START, "streams": STREAMS, "cluster": CLUSTER}) == (
        "0:21; streams 3 of 4 in flight, 7 done, 1 failed; replicas 3 desired, 1 ready; "
        "avg_time_queue_ms 22.3 (target 10); load ends in 0:38"
    )


def test_an_unknown_metric_is_shown_as_kubectl_shows_it():
    cluster = {**CLUSTER, "metrics": [{"name": "m", "target": 10.0, "value": None}]}
    assert "m <unknown> (target 10)" in progress_line({"start": START, "streams": STREAMS, "cluster": cluster})


@pytest.mark.parametrize(
    ("error_at", "shown"),
    [(19.0, "replicas 3 desired, 1 ready"), (21.0, "cluster not read: no HPA; load ends")],
)
def test_old_figures_do_not_pass_for_the_present(error_at, shown):
    error = {"kind": "cluster_error", "t": error_at, "message": "no HPA"}
    line = progress_line({"start": START, "streams": STREAMS, "cluster": CLUSTER, "cluster_error": error})
    assert shown in line
    assert ("replicas" in line) != ("not read" in line)


@pytest.mark.parametrize("newest", [{}, {"start": START}])
def test_no_line_before_the_load(newest):
    assert progress_line(newest) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "load ends in 1:00"),
        (60, "watching for 1:40 at the most"),
        (999, "watching for 0:00 at the most"),
    ],
)
def test_time_left(seconds, text):
    assert time_left(START, seconds) == text


def test_the_follower_reads_whole_lines_of_the_new_file_only(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(STREAMS) + "\n")
    follower = Follower(str(path))
    assert follower.look() == {}
    new = tmp_path / "samples.jsonl.new"
    line = json.dumps({**STREAMS, "t": 22.3})
    new.write_text(json.dumps(START) + "\n" + line[:20])
    new.replace(path)
    assert set(follower.look()) == {"start"}
    with path.open("a") as file:
        file.write(line[20:] + "\n")
    assert follower.look()["streams"]["t"] == 22.3


def test_the_follower_waits_for_a_file(tmp_path):
    assert Follower(str(tmp_path / "samples.jsonl")).look() == {}


class Action:
    """What run_followed asks of Ansible's action; its module adds two lines, and ends once the second one was shown."""

    MODULE = "speechops.riva.speech_calibration"

    def __init__(self, transport, **args):
        self._task = SimpleNamespace(args=args, check_mode=False)
        self._connection = SimpleNamespace(transport=transport)
        self._display = self
        self.shown, self.got, self.both = [], {}, threading.Event()

    def display(self, line):
        self.shown.append(line)
        if "two" in line:
            self.both.set()

    def _execute_module(self, module_name, module_args, task_vars):
        self.got = {"module": module_name, **module_args}
        if self._connection.transport == "local":
            with open(os.path.join(module_args["report_folder"], "progress"), "w") as file:
                file.write(json.dumps({"kind": "progress", "lines": ["one", "two"]}) + "\n")
            assert self.both.wait(10)
        return {"changed": False, "table": ["21 streams", ""]}


def look_into(folder):
    return Lines(os.path.join(folder, "progress")).new


def test_an_action_shows_what_its_module_adds_and_then_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    action = Action("local", report_folder=".", name="riva-asr")
    result = run_followed(action, {"inventory_hostname": "lab"}, "report_folder", look_into, 0.01, stop_with_process=7)
    assert action.shown == ["    [lab] one", "    [lab] two", "    21 streams", ""]
    assert result == {"changed": False}
    given = {"report_folder": str(tmp_path), "stop_with_process": 7}
    assert action.got == {"module": Action.MODULE, "name": "riva-asr", **given}


def test_an_action_on_another_machine_shows_the_table_alone():
    action = Action("ssh", report_folder="there")
    run_followed(action, None, "report_folder", look_into, 0.01, stop_with_process=7)
    assert action.shown == ["    21 streams", ""]
    assert action.got == {"module": Action.MODULE, "report_folder": "there"}
