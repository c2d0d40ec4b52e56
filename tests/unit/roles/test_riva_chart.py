# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The riva chart as Helm renders it: what the article had wrong, and what a user may get wrong."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import scaling_rules

from tests.unit import charts


def rendered(release="riva-asr", **values):
    return {item["kind"]: item for item in charts.rendered(charts.RIVA, values, release, "speech")}


def every(kind, **values):
    return [item for item in charts.rendered(charts.RIVA, values, namespace="speech") if item["kind"] == kind]


def container(**values):
    return rendered(**values)["Deployment"]["spec"]["template"]["spec"]["containers"][0]


def test_lint():
    answer = charts.helm("lint", "--strict", charts.RIVA)
    assert answer.returncode == 0, answer.stdout


def test_every_port_of_the_service_leads_to_a_port_of_the_container():
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"grpc": 50051, "http": 8000, "triton-grpc": 8001, "metrics": 8002}
    for port in rendered()["Service"]["spec"]["ports"]:
        assert port["targetPort"] in ports
    monitored = rendered()["ServiceMonitor"]["spec"]["endpoints"]
    assert [(m["port"], m["interval"]) for m in monitored] == [("metrics", "15s")]


def test_selectors_name_the_release():
    objects = dict(rendered(release="riva-tts"))
    wanted = {"app.kubernetes.io/name": "riva", "app.kubernetes.io/instance": "riva-tts"}
    assert objects["Service"]["spec"]["selector"] == wanted
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == wanted
    assert objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == wanted
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "riva-tts"
    assert objects.pop("ConfigMap")["metadata"]["name"] == "riva-tts-dashboard"
    assert {item["metadata"]["name"] for item in objects.values()} == {"riva-tts"}
    assert {item["metadata"]["namespace"] for item in objects.values()} == {"speech"}


def test_the_hpa_owns_the_number_of_pods():
    assert "replicas" not in rendered()["Deployment"]["spec"]
    assert rendered(autoscaling={"enabled": False}, replicas=2)["Deployment"]["spec"]["replicas"] == 2
    assert "HorizontalPodAutoscaler" not in rendered(autoscaling={"enabled": False})


@pytest.mark.parametrize(("target", "quantity"), [(10, "10"), (1.5, "1500m"), (0.5, "500m"), (0.001, "1m")])
def test_the_target_is_milliseconds(target, quantity):
    hpa = rendered(autoscaling={"queueTimeTargetMs": target})["HorizontalPodAutoscaler"]
    (metric,) = hpa["spec"]["metrics"]
    assert hpa["apiVersion"] == "autoscaling/v2"
    assert metric["pods"]["metric"]["name"] == "avg_time_queue_ms"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": quantity}


def test_start_riva_gets_a_value_for_every_service():
    assert container(speechServices={"tts": True})["args"] == [
        "--asr_service=true",
        "--nlp_service=false",
        "--nmt_service=false",
        "--tts_service=true",
    ]


def test_environment():
    env = container(env={"A": "1", "B": True}, extraEnv=[{"name": "C", "value": "x"}])["env"]
    assert env == [
        {"name": "TRTIS_MODEL_STORE", "value": "/data/models"},
        {"name": "A", "value": "1"},
        {"name": "B", "value": "true"},
        {"name": "C", "value": "x"},
    ]


def test_the_startup_probe_waits_as_long_as_models_load():
    probe = container(modelLoadSeconds=121)["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 121
    deployment = rendered(modelLoadSeconds=121)["Deployment"]["spec"]
    assert deployment["progressDeadlineSeconds"] > 121


def test_a_hung_server_is_noticed_within_two_seconds():
    """Two calls a second over three pods: at most two of them meet a pod that hangs (measured in tests/long)."""
    probe = container()["readinessProbe"]
    assert probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"]) <= 2
    # It is ended later than it is passed over.
    alive = container()["livenessProbe"]
    assert alive["failureThreshold"] * alive["periodSeconds"] >= 60
    slow = container(probes={"readinessTimeoutSeconds": 5, "readinessFailureThreshold": 2})["readinessProbe"]
    assert (slow["timeoutSeconds"], slow["failureThreshold"]) == (5, 2)


def test_a_pod_leaves_the_balancer_before_it_stops():
    assert container(preStopSeconds=7)["lifecycle"]["preStop"]["sleep"]["seconds"] == 7
    pod = rendered(preStopSeconds=7, longestStreamSeconds=90)["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 7 + 90


def test_gpu_limit_beside_others():
    limits = container(gpus=2, resources={"limits": {"memory": "8Gi"}})["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": 2, "memory": "8Gi"}


@pytest.mark.parametrize(
    ("store", "wanted"),
    [
        ({}, {"hostPath": {"path": "/var/lib/riva", "type": "DirectoryOrCreate"}}),
        ({"type": "emptyDir"}, {"emptyDir": {}}),
        ({"type": "pvc"}, {"persistentVolumeClaim": {"claimName": "riva-asr-models"}}),
        ({"type": "pvc", "existingClaim": "mine"}, {"persistentVolumeClaim": {"claimName": "mine"}}),
    ],
)
def test_model_store(store, wanted):
    objects = rendered(modelStore=store)
    volume = objects["Deployment"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume == {"name": "models", **wanted}
    made = store.get("type") == "pvc" and not store.get("existingClaim")
    assert ("PersistentVolumeClaim" in objects) is made


def test_secrets_are_named_never_given():
    init = rendered(modelInit={"enabled": True, "models": ["a/b:1"]})["Deployment"]["spec"]["template"]["spec"][
        "initContainers"
    ][0]
    assert init["image"].endswith(":2.19.0-servicemaker")
    assert init["args"] == ["a/b:1"]
    for entry in init["env"]:
        assert set(entry) == {"name", "valueFrom"}


BUCKET = {"path": "speech/a100", "endpoint": "https://s3.example.com:9000", "secretName": "bucket"}


def test_models_are_copied_from_a_bucket():
    """By rclone, without a GPU, NGC's keys or keys in sight; a Job that fills a node's cache does the same."""
    objects = rendered(modelInit={"enabled": True, "s3": BUCKET, "preSeedNodes": ["gpu-1"]})
    (init,) = objects["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    assert init["image"] == "docker.io/rclone/rclone:1.76.0"
    assert init["command"][-3:] == ["copy", ":s3:speech/a100", "/data"]
    assert "resources" not in init
    env = {entry["name"]: entry.get("value") or entry["valueFrom"]["secretKeyRef"] for entry in init["env"]}
    assert env == {
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENDPOINT": "https://s3.example.com:9000",
        "RCLONE_S3_ACCESS_KEY_ID": {"name": "bucket", "key": "access_key_id"},
        "RCLONE_S3_SECRET_ACCESS_KEY": {"name": "bucket", "key": "secret_access_key"},
    }
    assert objects["Job"]["spec"]["template"]["spec"]["containers"] == [init]


@pytest.mark.parametrize(
    ("s3", "port"),
    [
        ({}, 443),
        ({"path": "speech"}, 443),
        ({"path": "speech", "endpoint": "https://s3.example.com"}, 443),
        ({"path": "speech", "endpoint": "http://s3.example.com"}, 80),
        (BUCKET, 9000),
    ],
)
def test_pods_may_reach_what_has_their_models(s3, port):
    made = every(
        "NetworkPolicy",
        networkPolicy={"enabled": True, "defaultDeny": True},
        modelInit={"enabled": True, "s3": s3},
        streams={"limit": 20},
    )
    (policy,) = [item for item in made if item["metadata"]["name"].endswith("-egress")]
    assert policy["spec"]["egress"][-1] == {"ports": [{"protocol": "TCP", "port": port}]}


def test_a_public_bucket_of_aws():
    objects = rendered(modelInit={"enabled": True, "s3": {"path": "speech", "region": "eu-central-1"}})
    (init,) = objects["Deployment"]["spec"]["template"]["spec"]["initContainers"]
    assert [entry["value"] for entry in init["env"]] == ["AWS", "eu-central-1"]


def test_route():
    spec = rendered()["IngressRoute"]["spec"]
    assert rendered()["IngressRoute"]["apiVersion"] == "traefik.io/v1alpha1"
    assert spec["entryPoints"] == ["riva-grpc"]
    (rule,) = spec["routes"]
    assert rule["match"].startswith("PathPrefix(`/`) && HeaderRegexp(")
    assert (rule["services"][0]["scheme"], rule["services"][0]["strategy"]) == ("h2c", "p2c")
    named = rendered(route={"host": "asr.example.com"})["IngressRoute"]["spec"]["routes"][0]
    assert named["match"].startswith("Host(`asr.example.com`) && ")


GRPC = " && HeaderRegexp(`Content-Type`, `^application/grpc`)"
RULES = [
    ({}, f"PathPrefix(`/`){GRPC}"),
    ({"host": "a.b"}, f"Host(`a.b`){GRPC}"),
    ({"header": {"name": "x-service", "value": "asr"}}, f"Header(`x-service`, `asr`){GRPC}"),
    ({"host": "a.b", "header": {"name": "x", "value": "1"}}, f"Host(`a.b`) && Header(`x`, `1`){GRPC}"),
    ({"host": "a.b", "match": "HostRegexp(`.+`)"}, "HostRegexp(`.+`)"),
]


@pytest.mark.parametrize(("route", "rule"), RULES)
def test_which_calls_a_route_takes(route, rule):
    assert rendered(route=route)["IngressRoute"]["spec"]["routes"][0]["match"] == rule


def test_a_call_passes_nothing_that_was_not_asked_for():
    assert every("Middleware") == []
    assert "middlewares" not in rendered()["IngressRoute"]["spec"]["routes"][0]
    assert "tls" not in rendered()["IngressRoute"]["spec"]
    assert "NetworkPolicy" not in rendered()


GUARDED = {
    "allowedSources": ["192.0.2.0/24"],
    "limits": {"streamsPerClient": 20, "streams": 100, "newStreamsPerSecond": 5},
    "auth": {"address": "http://check.auth.svc"},
}


def test_what_a_call_passes_cheap_refusals_first():
    route = rendered(route=GUARDED)["IngressRoute"]["spec"]["routes"][0]
    made = {item["metadata"]["name"]: item["spec"] for item in every("Middleware", route=GUARDED)}
    assert [entry["name"] for entry in route["middlewares"]] == list(made)
    assert made == {
        "riva-asr-sources": {"ipAllowList": {"sourceRange": ["192.0.2.0/24"]}},
        "riva-asr-rate": {"rateLimit": {"average": 5, "burst": 5, "period": "1s"}},
        "riva-asr-client-streams": {"inFlightReq": {"amount": 20, "sourceCriterion": {"ipStrategy": {}}}},
        "riva-asr-streams": {"inFlightReq": {"amount": 100, "sourceCriterion": {"requestHost": True}}},
        "riva-asr-token": {
            "forwardAuth": {"address": "http://check.auth.svc", "authRequestHeaders": ["authorization"]}
        },
    }


@pytest.mark.parametrize(
    ("tls", "wanted"),
    [
        ({"enabled": True}, {}),
        ({"enabled": True, "secretName": "asr-tls"}, {"secretName": "asr-tls"}),
        ({"enabled": True, "options": {"name": "o", "namespace": "n"}}, {"options": {"name": "o", "namespace": "n"}}),
    ],
)
def test_tls_of_one_route(tls, wanted):
    assert rendered(route={"tls": tls})["IngressRoute"]["spec"]["tls"] == wanted


def test_a_route_of_the_gateway_api():
    route = {
        "kind": "GRPCRoute",
        "gateway": {"name": "way-in", "namespace": "traefik"},
        "host": "asr.example.com",
        "header": {"name": "x-service", "value": "asr"},
    }
    objects = rendered(route=route)
    assert "IngressRoute" not in objects
    spec = objects["GRPCRoute"]["spec"]
    assert spec["parentRefs"] == [{"name": "way-in", "namespace": "traefik"}]
    assert spec["hostnames"] == ["asr.example.com"]
    (rule,) = spec["rules"]
    assert rule["backendRefs"] == [{"name": "riva-asr", "port": 50051}]
    assert rule["matches"] == [{"headers": [{"name": "x-service", "value": "asr"}]}]


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({"kind": "GRPCRoute"}, "set route.gateway.name"),
        ({"kind": "GRPCRoute", "gateway": {"name": "g"}, "limits": {"streams": 1}}, "takes no route.limits"),
    ],
)
def test_a_route_of_the_gateway_api_that_can_not_be(route, words):
    assert words in charts.refusal(charts.RIVA, {"route": route})


def test_pods_accept_traefik_and_prometheus_only():
    policy = rendered(networkPolicy={"enabled": True})["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == rendered()["Service"]["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress"]
    calls, metrics = policy["ingress"]
    assert [port["port"] for port in calls["ports"]] == [50051]
    assert [port["port"] for port in metrics["ports"]] == [8002]
    for rule, namespace, name in ((calls, "traefik", "traefik"), (metrics, "monitoring", "prometheus")):
        (peer,) = rule["from"]
        assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
        assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}
    limited = rendered(networkPolicy={"enabled": True}, streams={"limit": 20})["NetworkPolicy"]["spec"]["ingress"]
    assert [[port["port"] for port in rule["ports"]] for rule in limited] == [[50052], [8002, 9101], [50052, 9101]]
    more = rendered(networkPolicy={"enabled": True, "clients": [{"podSelector": {}}]})["NetworkPolicy"]["spec"]
    assert {"podSelector": {}} in more["ingress"][0]["from"]


DENY = {"networkPolicy": {"enabled": True, "defaultDeny": True}}


def policies(**values):
    return {item["metadata"]["name"]: item["spec"] for item in every("NetworkPolicy", **values)}


def called(spec):
    """Ports that a policy lets its pods call, with whether it is the own release's pods only."""
    return [([port["port"] for port in rule["ports"]], "to" in rule) for rule in spec["egress"]]


def test_all_other_traffic_of_the_namespace_is_denied():
    found = policies(**DENY)
    assert set(found) == {"riva-asr", "riva-asr-namespace", "riva-asr-egress"}
    assert found["riva-asr-namespace"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert set(policies(networkPolicy={"enabled": True})) == {"riva-asr"}
    assert policies(networkPolicy={"defaultDeny": True}) == {}


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ({}, [([53, 53], False)]),
        ({"streams": {"limit": 20}}, [([53, 53], False), ([50052, 9101], True)]),
        ({"modelInit": {"enabled": True, "models": ["a"]}}, [([53, 53], False), ([443], False)]),
        ({"engine": "nim", "image": {"tag": "1"}}, [([53, 53], False), ([443], False)]),
        ({"engine": "nim", "image": {"tag": "1"}, "nim": {"offline": True}}, [([53, 53], False)]),
        ({"openshift": {"scc": "anyuid"}}, [([53, 53, 5353, 5353], False)]),
    ],
)
def test_what_speech_pods_may_call(values, ports):
    assert called(policies(**DENY, **values)["riva-asr-egress"]) == ports


def test_both_kinds_of_pods_of_a_release_fall_under_its_policy():
    values = {**DENY, "modelInit": {"enabled": True, "models": ["a"], "preSeedNodes": ["gpu-1"]}}
    name, instance = policies(**values)["riva-asr-egress"]["podSelector"]["matchExpressions"]
    pods = [item["spec"]["template"] for kind in ("Deployment", "Job") for item in every(kind, **values)]
    labels = [pod["metadata"]["labels"] for pod in pods]
    assert {item["app.kubernetes.io/name"] for item in labels} == set(name["values"])
    assert {item["app.kubernetes.io/instance"] for item in labels} == set(instance["values"])


def test_further_calls_are_the_users():
    rule = {"ports": [{"protocol": "TCP", "port": 3128}]}
    found = policies(networkPolicy={**DENY["networkPolicy"], "extraEgress": [rule]})["riva-asr-egress"]
    assert found["egress"][-1] == rule


def test_a_new_chart_alone_does_not_restart_pods():
    labels = rendered()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in labels
    assert "app.kubernetes.io/version" not in labels


LIMIT = {"streams": {"limit": 20}}


def test_without_a_limit_there_is_no_sidecar():
    pod = rendered()["Deployment"]["spec"]["template"]
    assert "initContainers" not in pod["spec"]
    assert "annotations" not in pod["metadata"]
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == {"models", "shared-memory"}
    assert [item["metadata"]["name"] for item in every("Service")] == ["riva-asr"]
    assert every("ConfigMap", dashboard={"enabled": False}) == []


def test_with_a_limit_calls_go_through_the_sidecar():
    pod = rendered(**LIMIT)["Deployment"]["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    # A native sidecar: the kubelet stops it after the server, so it outlives the server's streams.
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("stream-limit", "Always")
    assert {port["name"]: port["containerPort"] for port in sidecar["ports"]} == {
        "limited-grpc": 50052,
        "limit-metrics": 9101,
    }
    assert sidecar["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 9101}
    assert "lifecycle" not in sidecar
    (service,) = [item for item in every("Service", **LIMIT) if item["metadata"]["name"] == "riva-asr"]
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["spec"]["ports"]}
    assert ports["grpc"] == (50051, 50052)
    assert ports["limit-metrics"] == (9101, 9101)
    endpoints = rendered(**LIMIT)["ServiceMonitor"]["spec"]["endpoints"]
    assert [endpoint["port"] for endpoint in endpoints] == ["metrics", "limit-metrics"]
    assert container(**LIMIT)["ports"][0] == {"name": "grpc", "containerPort": 50051}


def test_the_series_of_the_rules_are_kept():
    keep = rendered(**LIMIT)["ServiceMonitor"]["spec"]["endpoints"][1]["metricRelabelings"][0]["regex"]
    for series in (scaling_rules.STREAMS_SERIES, scaling_rules.LIMIT_SERIES, scaling_rules.REFUSED_SERIES):
        assert re.fullmatch(keep, series)
    assert not re.fullmatch(keep, "haproxy_server_bytes_in_total")


def test_another_limit_restarts_the_pods():
    def checksum(limit):
        template = every("Deployment", streams={"limit": limit})[0]["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/stream-limit"]

    assert checksum(20) != checksum(21)


@pytest.mark.parametrize(
    ("values", "in_readiness"),
    [
        (LIMIT, True),
        ({"streams": {"limit": 20, "readinessAtLimit": False}}, False),
        # The only pod there may be has nobody to leave its streams to.
        ({**LIMIT, "autoscaling": {"maxReplicas": 1}}, False),
    ],
)
def test_the_limit_speaks_through_readiness(values, in_readiness):
    (item,) = [item for item in every("ConfigMap", **values) if "haproxy.cfg" in item["data"]]
    text = item["data"]["haproxy.cfg"]
    assert ("monitor fail if { srv_conn(speech/riva) ge 20 } { nbsrv(others) gt 0 }" in text) is in_readiness
    # Asked through the Service: what is ready it knows at once, and DNS only when its answers end.
    assert ("riva-asr.speech.svc.cluster.local:9101" in text) is in_readiness
    assert [item["metadata"]["name"] for item in every("Service", **values)] == ["riva-asr"]


@pytest.mark.parametrize(("pods", "asked"), [(2, 8), (20, 20), (200, 32)])
def test_more_pods_are_asked_more_often_for_room(pods, asked):
    maps = every("ConfigMap", **LIMIT, autoscaling={"maxReplicas": pods})
    (text,) = [item["data"]["haproxy.cfg"] for item in maps if "haproxy.cfg" in item["data"]]
    assert f"server-template other {asked} riva-asr." in text


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed here")
@pytest.mark.parametrize(
    "values",
    [LIMIT, {"streams": {"limit": 1, "readinessAtLimit": False, "podHeader": ""}}, {"streams": {"limit": 5000}}],
)
def test_haproxy_takes_its_configuration(values, tmp_path):
    (item,) = [item for item in every("ConfigMap", **values) if "haproxy.cfg" in item["data"]]
    file = tmp_path / "haproxy.cfg"
    file.write_text(item["data"]["haproxy.cfg"])
    answer = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "WARNING" not in answer.stderr, answer.stderr


def test_a_pod_with_a_limit_has_time_for_both_to_stop():
    pod = rendered(preStopSeconds=7, longestStreamSeconds=90, **LIMIT)["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 7 + 90 + 5
    # What it handed over may run as long as any stream.
    maps = every("ConfigMap", preStopSeconds=7, longestStreamSeconds=90, **LIMIT)
    (text,) = [item["data"]["haproxy.cfg"] for item in maps if "haproxy.cfg" in item["data"]]
    assert "hard-stop-after 90s" in text


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, "AlwaysAllow"),
        # A full pod is unready and serves.
        (LIMIT, "IfHealthyBudget"),
        ({"streams": {"limit": 20, "readinessAtLimit": False}}, "AlwaysAllow"),
        ({**LIMIT, "podDisruptionBudget": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}, "AlwaysAllow"),
        ({"autoscaling": {"enabled": False}, "replicas": 2}, "AlwaysAllow"),
        ({"podDisruptionBudget": {"enabled": True}, "autoscaling": {"maxReplicas": 1}}, "AlwaysAllow"),
        # One pod: there is nothing to take one after the other.
        ({"autoscaling": {"maxReplicas": 1}}, None),
        ({"autoscaling": {"enabled": False}, "replicas": 1}, None),
        ({"podDisruptionBudget": {"enabled": False}}, None),
    ],
)
def test_a_drained_node_gives_up_its_pods_one_by_one(values, policy):
    budget = rendered(**values).get("PodDisruptionBudget")
    if policy is None:
        assert budget is None
    else:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == policy
        assert budget["spec"]["selector"] == rendered(**values)["Deployment"]["spec"]["selector"]


REFUSED = [
    {"podDisruptionBudget": {"unhealthyPodEvictionPolicy": "Never"}},
    {"streams": {"limit": 0}},
    {"streams": {"limits": 3}},
    {"streams": {"podHeader": "x pod"}},
    {"autoscaling": {"demand": {"plannedStreams": 0}}},
    {"autoscalling": {}},
    {"autoscaling": {"maxReplica": 3}},
    {"autoscaling": {"queueTimeTargetMs": 0}},
    {"modelStore": {"type": "nfs"}},
    {"ports": {"grpc": 0}},
    {"gpus": "one"},
    {"env": {"A": ["x"]}},
    {"route": {"strategy": "random"}},
    {"route": {"limits": {"streams": -1}}},
    {"route": {"auth": {"adress": "http://x"}}},
    {"networkPolicy": {"enabled": "yes"}},
]


@pytest.mark.parametrize("values", REFUSED)
def test_the_schema_refuses(values):
    assert "schema" in charts.refusal(charts.RIVA, values)


def test_on_openshift_the_pods_may_use_the_scc():
    items = rendered(openshift={"scc": "nonroot-v2"})
    assert items["RoleBinding"]["roleRef"]["name"] == "system:openshift:scc:nonroot-v2"
    assert items["RoleBinding"]["subjects"][0]["name"] == items["ServiceAccount"]["metadata"]["name"] == "riva-asr"
    assert items["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "riva-asr"
    # Whose account is given, sees to its rights.
    others = rendered(openshift={"scc": "nonroot-v2"}, serviceAccountName="mine")
    assert not {"RoleBinding", "ServiceAccount"} & set(others)
    assert others["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert not {"RoleBinding", "ServiceAccount"} & set(rendered())
