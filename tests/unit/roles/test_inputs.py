# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mistakes in variables: each is named together with what would be right."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import inputs

OPTIONS = {
    "cluster_kubeconfig": {"type": "path", "required": True, "description": "Path of the kubeconfig."},
    "riva_timeout": {"type": "int", "description": "Seconds."},
    "riva_target": {"type": "float"},
    "riva_enabled": {"type": "bool"},
    "riva_key": {"type": "str", "no_log": True},
    "riva_secret_list": {"type": "list", "elements": "int", "no_log": True},
    "riva_values": {"type": "dict"},
    "riva_mode": {"type": "str", "choices": ["a", "b"]},
    "riva_names": {"type": "list", "elements": "str"},
    "riva_services": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True, "description": "Name of the service."},
            "max_replicas": {"type": "int"},
            "speech": {"type": "list", "elements": "str", "choices": ["asr", "tts"]},
        },
    },
}
PREFIXES = ["riva"]

WRONG = [
    ("typo", {"riva_servces": []}, "riva_servces", "Did you mean riva_services?"),
    ("unknown name", {"riva_colour": 1}, "riva_colour is not a known variable", "take one of"),
    ("typo of another prefix", {"cluster_kubeconfg": "/k"}, "cluster_kubeconfg is not", "cluster_kubeconfig"),
    ("text for a number", {"riva_timeout": "soon"}, "riva_timeout is 'soon', which is not a whole", "Seconds."),
    ("broken number", {"riva_timeout": 1.5}, "not a whole number", "riva_timeout"),
    ("truth for a number", {"riva_timeout": True}, "not a whole number", "riva_timeout"),
    ("text for truth", {"riva_enabled": "maybe"}, "not true or false", "riva_enabled"),
    ("list for a mapping", {"riva_values": []}, "not a mapping", "riva_values"),
    ("mapping for a list", {"riva_services": {}}, "not a list", "riva_services"),
    ("mapping for a text", {"riva_mode": {}}, "not a text", "riva_mode"),
    ("no choice", {"riva_mode": "c"}, "riva_mode is 'c'", "one of: a, b"),
    (
        "unknown key",
        {"riva_services": [{"name": "x", "max_replica": 2}]},
        "riva_services[0].max_replica is not a known key of riva_services[0]",
        "Did you mean max_replicas?",
    ),
    ("missing key", {"riva_services": [{}]}, "riva_services[0] lacks name", "Name of the service."),
    (
        "wrong type below",
        {"riva_services": [{"name": "x", "max_replicas": "many"}]},
        "riva_services[0].max_replicas is 'many'",
        "whole number",
    ),
    (
        "no choice below",
        {"riva_services": [{"name": "x", "speech": ["asr", "sst"]}]},
        "riva_services[0].speech[1] is 'sst'",
        "one of: asr, tts",
    ),
    ("text for a service", {"riva_services": ["x"]}, "riva_services[0] is 'x'", "a mapping"),
    ("nothing in a list", {"riva_names": [None]}, "riva_names[0] is empty", ""),
]


@pytest.mark.parametrize(("given", "message", "remedy"), [c[1:] for c in WRONG], ids=[c[0] for c in WRONG])
def test_mistakes(given, message, remedy):
    found = inputs.check_variables(OPTIONS, PREFIXES, {"cluster_kubeconfig": "/k", **given})
    assert len(found) == 1
    assert found[0]["status"] == "failed"
    assert message in found[0]["message"]
    assert remedy in found[0]["remedy"]


RIGHT = [
    {},
    {"riva_timeout": "30"},
    {"riva_target": "1.5"},
    {"riva_enabled": "true"},
    {"riva_mode": "a", "riva_names": ["x"], "riva_values": {"anything": 1}},
    {"riva_services": [{"name": "x", "max_replicas": 3, "speech": ["asr"]}]},
    {"riva_timeout": None},
    {"clusters": 1, "my_own": 2, "rivalry": 3},
]


@pytest.mark.parametrize("given", RIGHT)
def test_no_mistake(given):
    assert inputs.check_variables(OPTIONS, PREFIXES, {"cluster_kubeconfig": "/k", **given}) == []


@pytest.mark.parametrize("given", [{}, {"cluster_kubeconfig": None}, {"cluster_kubeconfig": ""}])
def test_a_required_variable_is_named(given):
    (found,) = inputs.check_variables(OPTIONS, PREFIXES, given)
    assert found["subject"] == "cluster_kubeconfig"
    assert "Path of the kubeconfig." in found["remedy"]


@pytest.mark.parametrize("given", [{"riva_key": {"a": "hush"}}, {"riva_secret_list": ["hush"]}])
def test_a_secret_is_not_shown(given):
    found = inputs.check_variables(OPTIONS, PREFIXES, {"cluster_kubeconfig": "/k", **given})
    assert found
    assert "hush" not in inputs.as_text(found)


SERVICES = [
    ([{"name": "a"}], []),
    ([{"name": "a", "host": "x"}, {"name": "b", "host": "y"}], []),
    ([{"name": "a", "host": "x"}, {"name": "a", "host": "y"}], ["same name (a)"]),
    ([{"name": "a"}, {"name": "b"}], ["same host (any)"]),
    ([{"name": "a", "min_replicas": 4, "max_replicas": 3}], ["min_replicas 4 is more than max_replicas 3"]),
    ("nonsense", []),
    (["nonsense"], []),
]


@pytest.mark.parametrize(("services", "words"), SERVICES)
def test_services_together(services, words):
    found = inputs.check_services(services)
    assert len(found) == len(words)
    for item, text in zip(found, words, strict=True):
        assert text in item["message"]


CHARTS = [
    ("traefik", ""),
    ("oci://registry/traefik", ""),
    ("https://site/traefik.tgz", ""),
    ("/charts/traefik", ""),
    ("/charts/none", "where nothing is"),
    ("none.tgz", "where nothing is"),
    ("/charts/empty", "a folder without a Chart.yaml"),
]


@pytest.mark.parametrize(("reference", "words"), CHARTS)
def test_charts(reference, words):
    there = {"/charts/traefik", "/charts/traefik/Chart.yaml", "/charts/empty"}
    assert inputs.chart_problem(reference, there.__contains__, there.__contains__) == words


VERSIONS = [
    ("v1.36.3", True),
    ("v1.30.0+k3s1", True),
    ("v1.29.9", False),
    ("v2.0.0", True),
    ("", True),
    ("odd", True),
]


@pytest.mark.parametrize(("version", "well"), VERSIONS)
def test_kubernetes_versions(version, well):
    assert (inputs.check_kubernetes(version) == []) is well


PLAIN = {"metadata": {"name": "n"}}
LABELLED = {"metadata": {"name": "n", "labels": {"nvidia.com/gpu.present": "true"}}}
ALLOCATABLE = {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "2"}}}
NONE_LEFT = {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "0"}}}
NODES = [
    ([], False, "no nodes"),
    ([PLAIN], False, ""),
    ([PLAIN], True, "gpu_stack is preinstalled"),
    ([NONE_LEFT], True, "gpu_stack is preinstalled"),
    ([PLAIN, LABELLED], True, ""),
    ([ALLOCATABLE], True, ""),
]


@pytest.mark.parametrize(("nodes", "now", "words"), NODES)
def test_nodes(nodes, now, words):
    found = inputs.check_nodes([inputs.node_facts(node) for node in nodes], now)
    assert bool(found) is bool(words)
    assert words in inputs.as_text(found)


def test_only_the_roles_variables_are_relevant():
    names = ["riva_timeout", "riva_odd", "cluster_kubeconfg", "groups", "ansible_host"]
    assert inputs.relevant(names, OPTIONS, PREFIXES) == ["cluster_kubeconfg", "riva_odd", "riva_timeout"]


@pytest.mark.parametrize(
    ("apiservice", "wrong"),
    [
        (None, False),
        ({"spec": {}}, False),
        ({"spec": {"service": {"namespace": "monitoring", "name": "prometheus-adapter"}}}, False),
        ({"spec": {"service": {"namespace": "keda", "name": "keda-operator-metrics-apiserver"}}}, True),
    ],
)
def test_the_external_metrics_belong_to_the_adapter(apiservice, wrong):
    found = inputs.check_external_metrics(apiservice, "monitoring")
    assert bool(found) is wrong
    if wrong:
        assert "keda/keda-operator-metrics-apiserver" in found[0]["message"]
        assert "prometheus_adapter_namespace" in found[0]["remedy"]


def test_node_facts_count_gpus():
    node = {
        "metadata": {"name": "a"},
        "status": {"allocatable": {"nvidia.com/gpu": "2", "nvidia.com/mig-1g.10gb": "3"}},
    }
    assert inputs.node_facts(node) == {"name": "a", "gpu": True, "capability": None, "gpus": 5}
