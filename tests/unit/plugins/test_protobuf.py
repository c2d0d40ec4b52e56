# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lists in protobuf form. The files in api_lists are answers of a kube-apiserver 1.36, the same list in both forms."""

import json
from functools import partial
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import cluster_errors, gpu_labels, protobuf
from hypothesis import given
from hypothesis import strategies as some

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "api_lists"
RESOURCE = "nvidia.com/gpu"


def answer(name):
    return (FIXTURES / f"{name}.pb").read_bytes()


def pieces(data, size):
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data, fields, size=1 << 20):
    metadata = {}
    return list(protobuf.read_list(pieces(data, size), fields, metadata)), metadata


PROJECTIONS = {
    "nodes": (gpu_labels.node_fields(), gpu_labels.project_node),
    "pods": (gpu_labels.pod_fields(RESOURCE), partial(gpu_labels.project_pod, resource=RESOURCE)),
    "discovery": (gpu_labels.pod_fields(RESOURCE), gpu_labels.discovery_node),
    "own pods": (
        gpu_labels.pod_fields(RESOURCE),
        partial(
            gpu_labels.project_pod, resource=RESOURCE, own=[{"namespace": "default", "labels": {"team": "speech"}}]
        ),
    ),
}


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_both_forms_say_the_same(name, size):
    fields, project = PROJECTIONS[name]
    file = "nodes" if name == "nodes" else "pods"
    listed = json.loads((FIXTURES / f"{file}.json").read_text())
    items, metadata = read(answer(file), fields, size)
    assert [project(item) for item in items] == [project(item) for item in listed["items"]]
    assert metadata["resourceVersion"] == listed["metadata"]["resourceVersion"]


def test_the_answers_hold_what_could_go_wrong():
    nodes = [gpu_labels.project_node(item) for item in read(answer("nodes"), gpu_labels.node_fields())[0]]
    assert [node.unschedulable for node in nodes] == [False, False, True]
    assert nodes[1].taints[1] == {"key": "k", "value": "v", "effect": "NoExecute"}
    assert nodes[1].allocatable == {"nvidia.com/gpu": "0", "nvidia.com/gpu.shared": "2k"}
    assert gpu_labels.offered(nodes[1].allocatable, "nvidia.com/gpu.shared") == 2000
    assert nodes[1].labels["nvidia.com/gpu.clique"] == ""
    assert nodes[0].labelled == 1763817215
    (pod,), _metadata = read(answer("pods"), gpu_labels.pod_fields(RESOURCE))
    assert gpu_labels.used_by(pod, RESOURCE) == 5


def test_a_refusal_in_protobuf_is_read():
    message, reason = cluster_errors.status_message(answer("status"))
    assert "invalid continue token" in message
    assert reason == "BadRequest"
    assert cluster_errors.status_message(answer("status")[:-9])[1] == ""


@pytest.mark.parametrize("name", ["nodes", "pods"])
@pytest.mark.parametrize("size", [997, 1 << 20])
def test_a_list_that_is_cut_off_is_never_taken_for_a_short_one(name, size):
    data = answer(name)
    # The last four bytes say that there is no encoding and no content type.
    for end in [*range(0, 400), *range(400, len(data) - 4, 53), len(data) - 5]:
        with pytest.raises(protobuf.Malformed):
            read(data[:end], PROJECTIONS[name][0], size)


def test_what_is_no_list_is_refused():
    with pytest.raises(protobuf.Malformed, match="is a Status, not a list"):
        read(answer("status"), gpu_labels.node_fields())
    with pytest.raises(protobuf.Malformed, match="no Kubernetes object"):
        read(b"<html>login</html>", gpu_labels.node_fields())


@given(some.data())
def test_bytes_that_changed_end_in_an_error_or_in_objects(data):
    whole = bytearray(answer(data.draw(some.sampled_from(["nodes", "pods"]))))
    for _ in range(data.draw(some.integers(1, 4))):
        whole[data.draw(some.integers(0, len(whole) - 1))] = data.draw(some.integers(0, 255))
    for fields, project in PROJECTIONS.values():
        try:
            items, _metadata = read(bytes(whole), fields)
        except protobuf.Malformed:
            continue
        for item in items:
            project(item)


@given(some.binary(max_size=200))
def test_any_bytes_end_in_an_error(data):
    with pytest.raises(protobuf.Malformed):
        read(protobuf.MAGIC + data, gpu_labels.node_fields())


def test_nodes_that_differ_in_nothing_share_what_they_hold():
    known = {}
    items = json.loads((FIXTURES / "nodes.json").read_text())["items"]
    first, second = (gpu_labels.project_node(item | {}, known) for item in (items[0], items[0]))
    other = gpu_labels.project_node(items[1], known)
    assert first.labels is second.labels
    assert first.gpus is second.gpus
    assert other.labels is not first.labels
    assert [gpu_labels.project_node(item, known) for item in items] == [gpu_labels.project_node(item) for item in items]
