# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from dataclasses import replace

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import aggregation as rules

NAME = "v1beta1.custom.metrics.k8s.io"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def service(available="True", reason="Passed", message="all checks passed", backend="monitoring/prometheus-adapter"):
    return rules.ApiService(NAME, "custom.metrics.k8s.io", "v1beta1", backend, available, reason, message)


def test_project_apiservice():
    item = {
        "metadata": {"name": NAME, "annotations": {"x": "y" * 1000}},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta1",
            "service": {"namespace": "monitoring", "name": "prometheus-adapter"},
        },
        "status": {
            "conditions": [
                None,
                {"type": "Available", "status": "True", "reason": "Passed", "message": "all checks\npassed"},
            ]
        },
    }
    found = rules.project_apiservice(item)
    assert found == service()
    assert found.path == "/apis/custom.metrics.k8s.io/v1beta1"


@pytest.mark.parametrize("item", [{}, {"metadata": None, "spec": None, "status": {"conditions": 3}}])
def test_project_a_hostile_apiservice(item):
    assert rules.project_apiservice(item).available == "Unknown"


@pytest.mark.parametrize(
    ("configmap", "state"),
    [
        ({"data": {"requestheader-client-ca-file": PEM}}, "present"),
        ({"data": {"requestheader-client-ca-file": ""}}, "absent"),
        ({"data": {"client-ca-file": PEM}}, "absent"),
        ({"data": None}, "absent"),
        ({}, "absent"),
    ],
)
def test_trust_state(configmap, state):
    assert rules.trust_state(configmap) == state


@pytest.mark.parametrize(
    ("state", "proven", "status", "text"),
    [
        ("present", False, "ok", "publishes"),
        ("absent", False, "failed", "not configured"),
        ("absent", True, "warning", "not configured"),
        ("hidden", False, "unknown", "nothing else proves it"),
        ("hidden", True, "unknown", "proves it all the same"),
    ],
)
def test_trust_finding(state, proven, status, text):
    finding = rules.trust_finding(state, proven=proven)
    assert (finding.status, text in finding.message) == (status, True)
    assert bool(finding.remedy) is (status != "ok")


@pytest.mark.parametrize(
    ("reason", "message", "text"),
    [
        ("ServiceNotFound", 'service/x in "y" is not present', "its Service does not exist"),
        ("ServicePortError", "not listening on port 443", "lacks the port"),
        ("EndpointsNotFound", "cannot find endpointslices", "no endpoints"),
        ("MissingEndpoints", "no addresses with port name", "no pod behind its Service is ready"),
        ("FailedDiscoveryCheck", "Get https://10.0.0.1:443: context deadline exceeded", "network"),
        ("FailedDiscoveryCheck", "bad status from https://10.0.0.1:443/apis/x: 401", "request header CA"),
        ("FailedDiscoveryCheck", "bad status from https://10.0.0.1:443/apis/x: 403", "allowed names"),
        ("FailedDiscoveryCheck", "bad status from https://10.0.0.1:443/apis/x: 500", "answers with an error"),
        ("FailedDiscoveryCheck", "dial tcp: connect: connection refused", "nothing listens"),
        ("FailedDiscoveryCheck", "tls: x509: certificate signed by unknown authority", "caBundle"),
        ("SomethingNew", "", "not available"),
        ("", "", "not available"),
    ],
)
def test_each_reason_is_told_apart(reason, message, text):
    finding = rules.apiservice_finding(service("False", reason, message), rules.Probe(503, "unavailable"))
    assert finding.status == "failed"
    assert text in finding.message
    assert message in finding.message
    assert finding.remedy


@pytest.mark.parametrize(
    ("probe", "status", "text"),
    [
        (rules.Probe(200), "ok", "answers"),
        (rules.Probe(401, "Unauthorized"), "failed", "does not trust"),
        (rules.Probe(403, 'User "system:anonymous" cannot get path'), "failed", "does not trust"),
        (rules.Probe(403, 'User "jane" cannot get path'), "failed", "the caller may not ask"),
        (rules.Probe(404), "failed", "is not served"),
        (rules.Probe(503), "failed", "fail with 503"),
        (rules.Probe(500), "failed", "HTTP 500"),
        (rules.Probe(0, "silent"), "failed", "no answer (silent)"),
    ],
)
def test_available_alone_proves_nothing(probe, status, text):
    finding = rules.apiservice_finding(service(), probe)
    assert (finding.status, text in finding.message) == (status, True)


def test_an_answer_beats_a_stale_condition():
    assert rules.apiservice_finding(service("False", "FailedDiscoveryCheck"), rules.Probe(200)).status == "warning"


@pytest.mark.parametrize(
    ("services", "names", "required", "statuses"),
    [
        ([service()], [], True, ["ok", "ok"]),
        ([service()], [NAME], True, ["ok", "ok"]),
        ([], [NAME], True, ["ok", "failed"]),
        ([], [NAME], False, ["ok", "ok"]),
        ([], [], True, ["ok", "unknown"]),
        ([service(backend="")], [NAME], True, ["ok", "ok"]),
    ],
)
def test_findings_of(services, names, required, statuses):
    probes = {entry.name: rules.Probe(200) for entry in services if entry.service}
    findings = rules.findings_of(("present", ""), services, probes, names, required)
    assert [finding.status for finding in findings] == statuses


def test_what_follows_from_missing_flags_has_no_remedy_of_its_own():
    broken = service("False", "FailedDiscoveryCheck", "bad status from https://10.0.0.1:443/apis/x: 403")
    other = replace(broken, name="v1.other", reason="MissingEndpoints")
    probes = {name: rules.Probe(503) for name in (broken.name, "v1.other")}
    trust, followed, own = rules.findings_of(("absent", ""), [broken, other], probes)
    assert (trust.status, trust.check) == ("failed", "requestheader_ca")
    assert followed.message.endswith("(follows from requestheader_ca)")
    assert (followed.status, followed.remedy) == ("failed", "")
    assert own.remedy
    _trust, alone, _own = rules.findings_of(("present", ""), [broken, other], probes)
    assert "--requestheader-client-ca-file" in alone.remedy
