# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The validators as modules, against a real HTTP server that plays a cluster, whole and broken."""

from __future__ import annotations

import time

import pytest

from tests.unit.plugins.whole_chain import APISERVICES, CUSTOM, HPA, NAME, TRUST, apiservice, forbidden, quick

__all__ = ["quick"]  # A fixture.


def node(name, gpus=2, product="Tesla-T4", memory="15360"):
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.count": str(gpus), "nvidia.com/gpu.memory": memory}
    return {
        "metadata": {"name": name, "labels": labels if product else {}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "4", **({"nvidia.com/gpu": str(gpus)} if product else {})},
            "capacity": {"nvidia.com/gpu": str(gpus)} if product else {},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def nodes(api):
    pods = [
        {
            "metadata": {"name": f"p{i}", "namespace": "riva", "labels": {"app": app}},
            "spec": {"nodeName": "gpu-1", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
            "status": {"phase": "Running"},
        }
        for i, app in enumerate(("riva-asr", "other"))
    ]
    api.routes["/api/v1/nodes"] = {
        "items": [node("gpu-1"), node("gpu-2", 4, "NVIDIA-A100-PCIE-40GB", "39538"), node("control-plane", 0, None)]
    }
    api.routes["/api/v1/pods"] = {"items": pods}
    return api


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"matching_nodes": 2, "gpus": 6, "nodes_total": 3, "free_gpus": None, "ok": True}),
        ({"products": ["*a100*"]}, {"matching_nodes": 1, "gpus": 4}),
        ({"min_memory": 40960}, {"matching_nodes": 1}),
        ({"min_free_gpus": 4}, {"free_gpus": 4, "ok": True}),
        (
            {"min_free_gpus": 0, "count_as_free": [{"namespace": "riva", "labels": {"app": "riva-asr"}}]},
            {"free_gpus": 5},
        ),
        ({"min_fitting_pods": 2, "gpus_per_pod": 2}, {"fitting_pods": 2, "ok": True}),
    ],
)
def test_gpu_nodes(nodes, run_module, options, expected):
    result = run_module("validate_gpu_nodes", nodes, **options)
    assert {key: result[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_nodes": 3}, "2 of 3 nodes meet the requirement, 3 needed"),
        ({"min_gpus": 7}, "6 GPUs on these nodes, 7 needed (min_gpus)"),
        ({"min_free_gpus": 5}, "4 GPUs free, 5 needed"),
        ({"min_fitting_pods": 3, "gpus_per_pod": 2}, "2 more pods of 2 GPU(s) fit, 3 needed"),
        ({"products": ["*H100*"]}, "product is Tesla-T4, not *H100*"),
        ({"min_compute_capability": "x"}, "min_compute_capability is 'x'"),
    ],
)
def test_gpu_nodes_that_fall_short(nodes, run_module, options, text):
    result = run_module("validate_gpu_nodes", nodes, **options)
    assert result["failed"]
    assert text in result["msg"]


def test_labels_that_nobody_keeps_right_are_doubted(nodes, run_module):
    pods = nodes.routes["/api/v1/pods"]["items"]
    ctr = {"name": "gpu-feature-discovery-ctr"}
    pods += [
        {"spec": {"nodeName": "gpu-1", "containers": [ctr]}, "status": {"phase": "Running"}},
        {"spec": {"nodeName": "gpu-2", "containers": [ctr]}, "status": {"phase": "Pending"}},
    ]
    nodes.routes["/api/v1/nodes"]["items"][1]["metadata"]["labels"]["nvidia.com/gfd.timestamp"] = "1767225600"
    result = run_module("validate_gpu_nodes", nodes, check_discovery=True)
    doubted = [finding for finding in result["findings"] if finding["check"] == "gpu_labels"]
    assert [(finding["subject"], finding["status"]) for finding in doubted] == [("gpu-2", "warning")]
    assert "its labels of 2026-01-01 00:00 UTC may be stale" in doubted[0]["message"]
    assert result["free_gpus"] is None


def test_pods_are_only_read_for_free_gpus(nodes, run_module):
    run_module("validate_gpu_nodes", nodes, node_selector={"pool": "gpu"})
    assert nodes.asked("/api/v1/pods") == []
    assert nodes.asked("/api/v1/nodes")[0]["labelSelector"] == "pool=gpu"


@pytest.mark.parametrize(
    ("path", "permission"), [("/api/v1/nodes", "list nodes"), ("/api/v1/pods", "list pods")], ids=["nodes", "pods"]
)
def test_gpu_nodes_without_permission(nodes, run_module, path, permission):
    nodes.routes[path] = forbidden(path)
    result = run_module("validate_gpu_nodes", nodes, min_free_gpus=0)
    assert f"lacks the permission: {permission} (apiGroup '')" in result["msg"]


@pytest.fixture
def layer(api):
    pem = "-----BEGIN CERTIFICATE-----"
    local = {"metadata": {"name": "v1.apps"}, "spec": {"group": "apps", "version": "v1"}}
    api.routes[TRUST] = {"data": {"requestheader-client-ca-file": pem}}
    api.routes[APISERVICES] = {"items": [apiservice(), local]}
    api.routes[CUSTOM] = {"resources": []}
    return api


def test_aggregation_layer(layer, run_module):
    result = run_module("validate_aggregation_layer", layer)
    assert result["ok"]
    assert result["requestheader"] == "present"
    assert result["apiservices"] == [
        {
            "name": NAME,
            "service": "monitoring/prometheus-adapter",
            "available": "True",
            "reason": "Passed",
            "http_status": 200,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "options", "status", "text"),
    [
        ({TRUST: {"data": {}}, CUSTOM: (401, {})}, {}, "failed", "requestheader-client-ca-file is absent"),
        ({CUSTOM: (401, {"message": "Unauthorized"})}, {}, "failed", "does not trust the API server's headers"),
        ({CUSTOM: (503, {"message": "service unavailable"})}, {}, "failed", "requests fail with 503"),
        ({CUSTOM: forbidden("path")}, {}, "failed", "the caller may not ask it"),
        ({APISERVICES: forbidden("apiservices")}, {}, "failed", "list apiservices"),
        ({TRUST: forbidden("configmap")}, {}, "unknown", "proves it all the same"),
        ({APISERVICES: {"items": []}}, {"apiservices": [NAME]}, "failed", "is not registered"),
        (
            {APISERVICES: {"items": []}},
            {"apiservices": [NAME], "require_apiservices": False},
            "ok",
            "not registered yet",
        ),
        ({APISERVICES: {"items": []}}, {}, "unknown", "no APIService is backed by a Service"),
        ({CUSTOM: (503, {})}, {"leave_out": [NAME]}, "unknown", "no APIService is backed by a Service"),
        ({CUSTOM: (503, {})}, {"leave_out": ["v1.other"]}, "failed", "requests fail with 503"),
    ],
)
def test_a_broken_layer(layer, run_module, changes, options, status, text):
    layer.routes |= changes
    result = run_module("validate_aggregation_layer", layer, fail_on="never", **options)
    assert result["status"] == status
    assert text in result["table"]
    assert result["ok"] is (status != "failed")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("validate_gpu_nodes", {}),
        ("validate_aggregation_layer", {}),
        ("validate_custom_metric", {"namespace": "riva", "hpa": "riva-asr"}),
    ],
)
class TestEveryValidator:
    def test_no_api_is_one_finding(self, run_module, module, options):
        result = run_module(module, "http://127.0.0.1:1", **options)
        assert result["failed"]
        assert [finding["check"] for finding in result["findings"]] == ["api"]
        assert "not reachable" in result["msg"]

    def test_refused_credentials_are_one_finding(self, api, run_module, module, options):
        for path in ("/api/v1/nodes", APISERVICES, HPA):
            api.routes[path] = (401, {"message": "Unauthorized"})
        result = run_module(module, api, fail_on="never", **options)
        assert [finding["check"] for finding in result["findings"]] == ["api"]
        assert "does not accept these credentials" in result["table"]

    def test_a_missing_kubeconfig_is_named(self, run_module, module, options):
        result = run_module(module, kubeconfig="/nowhere/config", **options)
        assert "/nowhere/config does not exist" in result["msg"]

    def test_a_silent_api_ends_at_the_deadline(self, api, run_module, module, options):
        for path in ("/api/v1/nodes", APISERVICES, HPA):
            api.routes[path] = ("hang", 3)
        before = time.monotonic()
        result = run_module(module, api, wait=True, wait_timeout=1, **options)
        assert time.monotonic() - before < 3
        assert "within 1 s" in result["msg"]

    def test_check_mode_answers_the_same(self, api, run_module, module, options):
        expected = run_module(module, api, fail_on="never", **options)
        assert run_module(module, api, fail_on="never", _ansible_check_mode=True, **options) == expected
