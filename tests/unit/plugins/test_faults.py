# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The validators behind a proxy that spoils a part of the answers; 1,000 runs on a real apiserver are in
tests/integration."""

import time

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import cluster_errors

from tests.benchmarks.fault_proxy import FAULTS, FaultProxy
from tests.benchmarks.large_cluster import MODELS, gpu_labels

NODES = "/api/v1/nodes"
TOTAL = 23
DEADLINE = 12


def node(index):
    model = MODELS[index % len(MODELS)]
    amount = {"nvidia.com/gpu": str(model[1])} if model else {}
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": f"n{index}", "labels": gpu_labels(model) if model else {}},
        "status": {"allocatable": amount, "capacity": amount, "conditions": conditions},
    }


def paged(items):
    def answer(query, _count):
        start, size = int(query.get("continue", 0)), int(query["limit"])
        token = str(start + size) if start + size < len(items) else ""
        return {"items": items[start : start + size], "metadata": {"resourceVersion": "7", "continue": token}}

    return answer


@pytest.fixture
def faulty(api, monkeypatch):
    """A cluster whose lists take several pages, and a door that waits a fraction of what it is told to."""
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    pods = [
        {"metadata": {"name": f"p{i}"}, "spec": {"nodeName": f"n{i}", "containers": [{"resources": resources}]}}
        for i in range(TOTAL)
    ]
    api.routes[NODES] = paged([node(index) for index in range(TOTAL)])
    api.routes["/api/v1/pods"] = paged(pods)
    monkeypatch.setattr(door, "LONG_PAGE", 5)
    monkeypatch.setattr(door, "READ_SECONDS", 0.4)
    monkeypatch.setattr(door.Cluster.__init__, "__defaults__", (None, lambda seconds: time.sleep(seconds / 50)))
    return api


def ask(run_module, url):
    before = time.monotonic()
    result = run_module(
        "validate_gpu_nodes", url, fail_on="never", min_free_gpus=1, families=["ampere"], wait_timeout=DEADLINE
    )
    assert time.monotonic() - before < DEADLINE + 1
    result.pop("invocation", None)
    return result


def test_every_answer_through_faults_is_right_or_a_clear_error(faulty, run_module):
    right = ask(run_module, faulty.url)
    assert (right["matching_nodes"], right["gpus"], right["free_gpus"]) == (6, 48, 42)
    with FaultProxy(faulty.url, share=0.15, seed=4) as proxy:
        results = [ask(run_module, proxy.url) for _ in range(40)]
        assert set(proxy.injected) == set(FAULTS), "a fault was never injected"
    wrong = [result for result in results if result != right]
    assert all([finding["check"] for finding in result["findings"]] == ["api"] for result in wrong)
    assert len(wrong) < 4


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_survived_or_told(faulty, run_module, monkeypatch, fault):
    right = ask(run_module, faulty.url)
    with FaultProxy(faulty.url) as proxy:
        count = iter(range(1000))

        # Once in the middle of the list, which the proxy's choice would leave to chance.
        monkeypatch.setattr(proxy, "chosen", lambda _path: fault if next(count) == 2 else None)
        assert ask(run_module, proxy.url) == right
    with FaultProxy(faulty.url) as proxy:
        monkeypatch.setattr(proxy, "chosen", lambda _path: fault)
        result = ask(run_module, proxy.url)
        assert [finding["check"] for finding in result["findings"]] == ["api"]
        assert result["findings"][0]["remedy"]
        assert "nodes" not in result


def test_pages_of_different_moments_start_the_list_again(faulty, run_module):
    right = ask(run_module, faulty.url)
    whole = faulty.routes[NODES]

    def moved_once(query, count):
        answer = whole(query, count)
        if len(faulty.asked(NODES)) == 8:
            answer["metadata"]["resourceVersion"] = "8"
        return answer

    faulty.routes[NODES] = moved_once
    assert ask(run_module, faulty.url) == right
    assert len(faulty.asked(NODES)) == 5 + 3 + 5


def test_pages_that_never_agree_are_an_error(faulty, run_module):
    whole = faulty.routes[NODES]

    def moves(query, count):
        answer = whole(query, count)
        answer["metadata"]["resourceVersion"] = str(count)
        return answer

    faulty.routes[NODES] = moves
    assert "of different moments" in ask(run_module, faulty.url)["table"]


def test_one_fault_does_not_hide_what_the_server_says():
    errors = [
        cluster_errors.Unavailable("503"),
        cluster_errors.Unavailable("503 again"),
        cluster_errors.Unreachable("reset"),
    ]
    assert str(cluster_errors.usual(errors)) == "503 again"
    assert str(cluster_errors.usual([cluster_errors.Silent("silent"), cluster_errors.BadAnswer("cut")])) == "cut"
    assert str(cluster_errors.usual([cluster_errors.Unavailable("503"), cluster_errors.Silent("silent")])) == "503"
