# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""When a workload is ready, and what is said where it is not."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import workloads


def workload(kind="Deployment", generation=2, spec=None, **status):
    status.setdefault("observedGeneration", generation)
    return {
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "generation": generation},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **(spec or {})},
        "status": status,
    }


READINESS = [
    ("all available", workload(replicas=1, updatedReplicas=1, availableReplicas=1), True),
    ("nothing yet", workload(), False),
    ("no status at all", {"kind": "Deployment", "metadata": {}, "spec": {}}, False),
    ("scaled to zero", workload(spec={"replicas": 0}), True),
    (
        "change not seen",
        workload(generation=3, observedGeneration=2, replicas=1, updatedReplicas=1, availableReplicas=1),
        False,
    ),
    ("old pod still there", workload(replicas=2, updatedReplicas=1, availableReplicas=2), False),
    (
        "half updated",
        workload(spec={"replicas": 2}, replicas=2, updatedReplicas=1, availableReplicas=2),
        False,
    ),
    (
        "stateful set",
        workload("StatefulSet", readyReplicas=1, updateRevision="a", currentRevision="a"),
        True,
    ),
    (
        "stateful set rolls",
        workload("StatefulSet", readyReplicas=1, updateRevision="b", currentRevision="a"),
        False,
    ),
    (
        "stateful set updated by hand",
        workload(
            "StatefulSet",
            spec={"updateStrategy": {"type": "OnDelete"}},
            readyReplicas=1,
            updateRevision="b",
            currentRevision="a",
        ),
        True,
    ),
    ("daemon set on no node", workload("DaemonSet", desiredNumberScheduled=0), True),
    (
        "daemon set",
        workload("DaemonSet", desiredNumberScheduled=2, numberReady=2, updatedNumberScheduled=2),
        True,
    ),
    (
        "daemon set rolls",
        workload("DaemonSet", desiredNumberScheduled=2, numberReady=2, updatedNumberScheduled=1),
        False,
    ),
    ("daemon set half", workload("DaemonSet", desiredNumberScheduled=2, numberReady=1), False),
    ("job done", workload("Job", succeeded=1), True),
    ("job runs", workload("Job", active=1), False),
    (
        "job failed",
        workload("Job", conditions=[{"type": "Failed", "status": "True", "message": "too often"}]),
        False,
    ),
    ("another kind", {"kind": "Service", "metadata": {"name": "web"}}, True),
]


@pytest.mark.parametrize(("item", "ready"), [c[1:] for c in READINESS], ids=[c[0] for c in READINESS])
def test_readiness(item, ready):
    state = workloads.readiness(item)
    assert state["ready"] is ready
    assert bool(state["reason"]) is not ready


def node(name="n1", gpus=None, **labels):
    status = {"allocatable": {"nvidia.com/gpu": gpus}} if gpus is not None else {}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def policy(state, **condition):
    return {
        "kind": "ClusterPolicy",
        "metadata": {"name": "p"},
        "status": {"state": state, "conditions": [condition] if condition else []},
    }


GPU_SUM = {"what": "GPUs", "sum": r"status.allocatable.nvidia\.com/gpu", "at_least": 4}
RECONCILED = {
    "what": "policy",
    "fields": [{"path": "status.state", "equals": "ready"}],
    "conditions": [{"type": "Ready", "reason": "Reconciled"}],
}
LOADED = {"what": "daemon set", "ready": True}

EXPECTATIONS = [
    ("sum reached", GPU_SUM, [node(gpus="2"), node(gpus="2")], True, ""),
    ("sum short", GPU_SUM, [node(gpus="2"), node()], False, "sum is 2"),
    ("sum of nonsense", GPU_SUM, [node(gpus="many")], False, "sum is 0"),
    ("none found", {"what": "nodes", "at_least": 2}, [node()], False, "1 of 2 found"),
    (
        "policy ready",
        RECONCILED,
        [policy("ready", type="Ready", status="True", reason="Reconciled")],
        True,
        "",
    ),
    (
        "ready without GPU nodes",
        RECONCILED,
        [policy("ready", type="Ready", status="True", reason="NoGPUNodes")],
        False,
        "reason NoGPUNodes, not Reconciled",
    ),
    ("policy not ready", RECONCILED, [policy("notReady")], False, "status.state is notReady"),
    ("no condition", RECONCILED, [policy("ready")], False, "not there yet"),
    (
        "condition false",
        RECONCILED,
        [policy("ready", type="Ready", status="False", reason="Stuck", message="why")],
        False,
        "Stuck: why",
    ),
    ("no object", RECONCILED, [], False, "0 of 1 found"),
    ("daemon set on no node", LOADED, [workload("DaemonSet", desiredNumberScheduled=0)], False, "no pod"),
    (
        "address",
        {"what": "s", "fields": [{"path": "status.loadBalancer.ingress", "exists": True}]},
        [{"kind": "Service", "metadata": {"name": "s"}, "status": {"loadBalancer": {}}}],
        False,
        "is empty",
    ),
    (
        "two wrong objects are named",
        {"what": "p", "at_least": 2, "fields": [{"path": "status.state", "equals": "ready"}]},
        [policy("a"), policy("b")],
        False,
        "ClusterPolicy p: status.state is a",
    ),
]


@pytest.mark.parametrize(
    ("expected", "items", "ready", "words"),
    [c[1:] for c in EXPECTATIONS],
    ids=[c[0] for c in EXPECTATIONS],
)
def test_expectations(expected, items, ready, words):
    state = workloads.meets(expected, items)
    assert state["ready"] is ready
    assert words in state["reason"]


def pod(conditions=(), phase="Running", init=(), containers=()):
    return {
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "status": {
            "phase": phase,
            "conditions": list(conditions),
            "initContainerStatuses": list(init),
            "containerStatuses": list(containers),
        },
    }


def unscheduled(message):
    return pod([{"type": "PodScheduled", "status": "False", "message": message}], "Pending")


def waiting(reason, message="m", **more):
    return {"name": "c", "state": {"waiting": {"reason": reason, "message": message}}, **more}


POD_TROUBLE = [
    ("well", pod(containers=[{"name": "c", "ready": True, "state": {"running": {}}}]), None, None),
    ("no gpu", unscheduled("0/3 nodes: 3 Insufficient nvidia.com/gpu."), "Insufficient", "gpu"),
    ("taint", unscheduled("1 node(s) had untolerated taint {a: }"), "untolerated", "taint"),
    ("no room", unscheduled("Insufficient cpu"), "cpu", "schedule"),
    ("image", pod(containers=[waiting("ImagePullBackOff", "no such image")]), "no such image", "image"),
    ("secret", pod(init=[waiting("CreateContainerConfigError", "secret x")]), "secret x", "config"),
    (
        "crash",
        pod(
            containers=[waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 1, "message": "bad flag\n"}})]
        ),
        "bad flag",
        "crash",
    ),
    (
        "killed for memory",
        pod(containers=[waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 137}})]),
        "137",
        "memory",
    ),
    (
        "not ready",
        pod(containers=[{"name": "c", "ready": False, "state": {"running": {}}}]),
        "Readiness probe failed: 503",
        "probe",
    ),
    ("being made", pod(phase="Pending"), "being created", "schedule"),
]
PROBE_EVENT = {
    "type": "Warning",
    "involvedObject": {"kind": "Pod", "name": "web-1"},
    "message": "Readiness probe failed: 503",
    "lastTimestamp": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(("item", "words", "remedy"), [c[1:] for c in POD_TROUBLE], ids=[c[0] for c in POD_TROUBLE])
def test_pod_trouble(item, words, remedy):
    events = [PROBE_EVENT] if remedy == "probe" else []
    trouble = workloads.pod_trouble(item, events)
    if words is None:
        assert trouble is None
        return
    assert words in trouble[0]
    assert trouble[1][:20] == workloads.REMEDIES[remedy][:20]
    assert "{" not in trouble[1]


def test_a_workload_is_explained_by_its_own_pods_only():
    stranger = unscheduled("Insufficient cpu")
    stranger["metadata"]["labels"] = {"app": "other"}
    mine = pod(containers=[waiting("ErrImagePull", "denied")])
    found = workloads.explain(workload(), [stranger, mine])
    assert found["subject"] == "Deployment shop/web"
    assert "denied" in found["message"]
    assert "Insufficient" not in found["message"]
    assert [f["subject"] for f in workloads.other_trouble([stranger, mine], [workload()])] == ["Pod shop/web-1"]


def test_a_workload_without_pods_is_explained_by_its_replica_set():
    event = {
        "type": "Warning",
        "involvedObject": {"kind": "ReplicaSet", "name": "web-5d9"},
        "message": "exceeded quota: pods",
    }
    found = workloads.explain(workload(), [], [event])
    assert "exceeded quota" in found["message"]
    assert "quota" in found["remedy"]


SELECTORS = [
    ({"app": "web"}, {"matchLabels": {"app": "web"}}, True),
    ({"app": "web"}, {"matchLabels": {"app": "x"}}, False),
    ({"app": "web"}, {}, False),
    ({"a": "1"}, {"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
    ({"a": "1"}, {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
    ({}, {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, True),
    (None, {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, False),
]


@pytest.mark.parametrize(("labels", "selector", "verdict"), SELECTORS)
def test_selectors(labels, selector, verdict):
    assert workloads.selects(labels, selector) is verdict


def test_only_what_helm_marked_belongs_to_a_release():
    notes = {workloads.HELM_RELEASE: "web", workloads.HELM_NAMESPACE: "shop"}
    assert workloads.belongs_to({"metadata": {"annotations": notes}}, "web", "shop")
    assert not workloads.belongs_to({"metadata": {"annotations": notes}}, "web", "other")
    assert not workloads.belongs_to({"metadata": {"annotations": None}}, "web", "shop")


def test_progress_names_what_is_awaited():
    states = [
        {"subject": f"Deployment a/{n}", "ready": n == 0, "have": 0, "want": 1, "reason": "no pod"} for n in range(6)
    ]
    line = workloads.progress(states)
    assert line.startswith("1 of 6 ready; waiting for Deployment a/1 0/1 (no pod)")
    assert line.endswith("and 2 more")


def on_node(name, node="gpu-1", phase="Pending", init=(), containers=()):
    return {
        "metadata": {"name": name, "namespace": "gpu"},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "initContainerStatuses": list(init), "containerStatuses": list(containers)},
    }


DONE = {"name": "toolkit", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
WAITS = {"name": "main", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
UNDER_WAY = {
    "a step of its start": (
        on_node("driver-1", init=[DONE, {"name": "build", "state": {"running": {}}}], containers=[WAITS]),
        "pod driver-1 on gpu-1: build (init 2 of 2)",
    ),
    "a step that fails": (
        on_node("driver-1", init=[{"name": "build", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
        "pod driver-1 on gpu-1: build (init 1 of 1): CrashLoopBackOff",
    ),
    "a step that ended badly": (
        on_node("driver-1", init=[{"name": "build", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
        "pod driver-1 on gpu-1: build (init 1 of 1): Error",
    ),
    "an image": (
        on_node(
            "dcgm-1", containers=[{"name": "dcgm", "ready": False, "state": {"waiting": {"reason": "ErrImagePull"}}}]
        ),
        "pod dcgm-1 on gpu-1: dcgm: ErrImagePull",
    ),
    "beside a sidecar that runs": (
        {
            **on_node("dcgm-1", init=[{"name": "log", "state": {"running": {}}}], containers=[WAITS]),
            "spec": {"nodeName": "gpu-1", "initContainers": [{"name": "log", "restartPolicy": "Always"}]},
        },
        "pod dcgm-1 on gpu-1: main: PodInitializing",
    ),
    "no node": (on_node("dcgm-1", node=""), "pod dcgm-1 on no node yet: its start"),
    "ready": (on_node("dcgm-1", phase="Running", init=[DONE], containers=[{"name": "a", "ready": True}]), ""),
    "done": (on_node("hook", phase="Succeeded", containers=[{"name": "a", "ready": False}]), ""),
}


@pytest.mark.parametrize(("pod", "words"), UNDER_WAY.values(), ids=UNDER_WAY.keys())
def test_a_pod_under_way_is_told_with_its_node_and_step(pod, words):
    assert workloads.pods_under_way([pod]) == words


def test_progress_names_some_pods_and_counts_the_others():
    states = [{"subject": "ClusterPolicy a", "ready": False, "have": 0, "want": 1, "reason": "x"}]
    line = workloads.progress(states, [on_node(f"p-{number}", containers=[WAITS]) for number in range(5)])
    assert line.startswith("0 of 1 ready; waiting for ClusterPolicy a 0/1 (x); pod p-0 on gpu-1: main: ")
    assert line.endswith("; and 2 more pods")


def test_an_object_that_tells_of_its_error_is_quoted():
    """As the GPU Operator's ClusterPolicy, which names the states that are not ready there alone."""
    said = "ClusterPolicy is not ready, states not ready: [state-driver]"
    conditions = [{"type": "Ready", "status": "False"}, {"type": "Error", "status": "True", "message": said}]
    policy = {"metadata": {"name": "a"}, "status": {"state": "notReady", "conditions": conditions}}
    wanted = {"what": "a", "fields": [{"path": "status.state", "equals": "ready"}]}
    assert workloads.meets(wanted, [policy])["reason"] == f"status.state is notReady, not ready ({said})"
    policy["status"]["conditions"][1]["status"] = "False"
    assert workloads.meets(wanted, [policy])["reason"] == "status.state is notReady, not ready"


def in_state(*, init=None, **state):
    """A pod with one container in this state, or its init container."""
    container = {"name": "riva", **state}
    statuses = {"initContainerStatuses": [{"name": "init", **init}]} if init else {"containerStatuses": [container]}
    return {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "status": {"phase": "Running", **statuses},
    }


CRASHED = in_state(
    state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState={"terminated": {"exitCode": 1}}, restartCount=3
)
LOGS = [
    (CRASHED, ("riva", True)),
    (in_state(state={"terminated": {"exitCode": 2}}), ("riva", False)),
    (in_state(state={"running": {}}, ready=False), ("riva", False)),
    (in_state(state={"running": {}}, ready=True), None),
    (in_state(state={"waiting": {"reason": "ImagePullBackOff"}}), None),
    (in_state(init={"state": {"running": {}}, "ready": False}), ("init", False)),
    ({"status": {}}, None),
]


@pytest.mark.parametrize(("pod", "wanted"), LOGS)
def test_which_log_may_tell_why(pod, wanted):
    assert workloads.log_to_read(pod) == wanted


def test_a_finding_has_the_last_words_of_the_pod():
    item = workload(spec={"replicas": 1})
    told = workloads.explain(item, [CRASHED], (), {"web-1": "loading\n\n  no model\tfound\nexit\n"})
    assert "pod web-1: container riva ended with exit code 1 after 3 restarts" in told["message"]
    assert "it said last: loading / no model found / exit" in told["message"]
    (other,) = workloads.other_trouble([CRASHED], (), logs={"web-1": "exit"})
    assert other["message"].endswith("it said last: exit")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("a\nb\nc\nd", "b / c / d"),
        ("401 for nvapi-Ab_c-9 at nvcr.io", "401 for … at nvcr.io"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("x" * 900, "x" * 400),
    ],
)
def test_the_end_of_a_log_in_one_line_without_secrets(text, words):
    assert workloads.log_words(text) == words
