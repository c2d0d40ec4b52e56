# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a module says while it waits: what for, how long, how long still."""

from __future__ import annotations

from types import SimpleNamespace

from ansible_collections.speechops.riva.plugins.module_utils import validation, waiting
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline
from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, WARNING, Finding

SERIES = Finding("series", "nv_inference", FAILED, "1 of 2 pods has no sample", "look at the target")
API = Finding("api", "pods/avg", FAILED, "has no value", "see the links before it")
DOUBT = Finding("hpa", "riva-asr", WARNING, "it is at its most pods", "raise max_replicas")
EFFECT = Finding("hpa", "riva-asr", FAILED, "ScalingActive is False (follows from series)")


def test_the_newest_whole_line_counts():
    said = "a warning\nwaits for a (1 of 9 s)\nwaits for b (2 of 9 s)\nTraceback\nwaits for c (3 o"
    assert waiting.newest(said) == "waits for b (2 of 9 s)"
    assert waiting.newest("a warning\n") is None


def test_the_first_broken_link_is_awaited():
    assert validation.awaited([DOUBT, SERIES], "failed") == "series, nv_inference: 1 of 2 pods has no sample"
    assert validation.awaited([EFFECT, SERIES], "failed").startswith("series, ")
    assert validation.awaited([EFFECT], "failed").startswith("hpa, ")
    assert validation.awaited([DOUBT, SERIES, API], "warning").endswith("it is at its most pods, and 2 more")


def test_each_look_of_a_check_says_what_it_waits_for(capsys):
    seconds = iter(range(0, 1000, 3))
    cluster = SimpleNamespace(deadline=Deadline(30, lambda: next(seconds)), sleep=lambda _seconds: None, host="h")
    looks = iter([[SERIES, API], [API], [Finding("api", "pods/avg", OK, "has a value")]])
    params = {"wait": True, "wait_sleep": 5, "fail_on": "failed"}
    found, _facts = validation.look(cluster, lambda _cluster: (next(looks), {}), params)
    assert found[0].status == OK
    first, second = capsys.readouterr().err.splitlines()
    assert first == "waits for series, nv_inference: 1 of 2 pods has no sample, and 1 more (3 of 30 s)"
    assert second.startswith("waits for api, pods/avg: has no value (")
