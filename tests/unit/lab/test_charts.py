# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's charts: they render what upstream would, under the same keys and names, and refuse what they cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.charts.stage import CHARTS, DEFINITIONS, GO_MODULES, ModuleMissingError, stage
from tests.unit import charts
from tests.unit.lab.upstream_keys import FIXTURES, known_keys, tree_of_values, unknown_keys

FOLDER = Path(__file__).resolve().parents[3] / "lab" / "charts"


def rendered(chart: str, values: dict, release: str = "", namespace: str = "ns") -> dict[tuple[str, str], dict]:
    """Render a chart: (kind, name) to object."""
    objects = charts.rendered(FOLDER / chart, values, release or chart, namespace)
    found = {(item["kind"], item["metadata"]["name"]): item for item in objects}
    assert len(found) == len(objects), "two objects of one kind and name"
    return found


def refusal(chart: str, values: dict) -> str:
    return charts.refusal(FOLDER / chart, values)


def container(workload: dict) -> dict:
    return workload["spec"]["template"]["spec"]["containers"][0]


# --- all charts


@pytest.mark.parametrize("chart", CHARTS)
def test_lint(chart):
    result = charts.helm("lint", "--strict", FOLDER / chart)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("chart", CHARTS)
def test_every_key_is_upstreams(chart):
    values = yaml.safe_load((FOLDER / chart / "values.yaml").read_text())
    assert unknown_keys(values, chart) == []


@pytest.mark.parametrize("chart", CHARTS)
def test_name_and_version_are_the_pinned_ones(chart):
    about = yaml.safe_load((FOLDER / chart / "Chart.yaml").read_text())
    assert about["name"] == chart
    assert (FIXTURES / f"{chart}-{about['version']}.json").exists()


@pytest.mark.parametrize("chart", CHARTS)
def test_the_defaults_render_and_never_pull(chart):
    for item in rendered(chart, {}).values():
        text = yaml.safe_dump(item)
        assert "Always" not in text, "the lab has no registry"


# --- kube-prometheus-stack

KINDS = ("serviceMonitor", "podMonitor", "rule", "probe", "scrapeConfig")
STACK = {
    "fullnameOverride": "kube-prometheus-stack",
    "prometheus": {
        "prometheusSpec": {
            **{f"{kind}SelectorNilUsesHelmValues": False for kind in KINDS},
            "scrapeInterval": "15s",
            "retention": "2d",
            "resources": {"requests": {"memory": "200Mi"}},
            "storageSpec": {"emptyDir": {"sizeLimit": "1Gi"}},
            "enableFeatures": ["otlp-write-receiver"],
        }
    },
}


def test_stack_names_and_images():
    found = rendered("kube-prometheus-stack", STACK)
    service = found["Service", "kube-prometheus-stack-prometheus"]
    assert service["spec"]["ports"][0] == {"name": "http-web", "port": 9090, "targetPort": 9090}
    operator = container(found["Deployment", "kube-prometheus-stack-operator"])
    assert operator["image"] == "quay.io/prometheus-operator/prometheus-operator:v0.93.1"
    reloader = "--prometheus-config-reloader=quay.io/prometheus-operator/prometheus-config-reloader:v0.93.1"
    assert reloader in operator["args"]
    assert ("ServiceAccount", "kube-prometheus-stack-prometheus") in found


def test_stack_hands_the_spec_on():
    spec = rendered("kube-prometheus-stack", STACK)["Prometheus", "kube-prometheus-stack-prometheus"]["spec"]
    assert spec["image"] == "quay.io/prometheus/prometheus:v3.14.0-distroless"
    assert [spec[f"{kind}Selector"] for kind in KINDS] == [{}] * 5
    assert spec["scrapeInterval"] == "15s"
    assert spec["retention"] == "2d"
    assert spec["storage"] == {"emptyDir": {"sizeLimit": "1Gi"}}
    assert spec["enableFeatures"] == ["otlp-write-receiver"]
    assert spec["replicas"] == 1
    assert not {"storageSpec", "scrapeTimeout", *(f"{kind}SelectorNilUsesHelmValues" for kind in KINDS)} & spec.keys()


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ({}, {"matchLabels": {"release": "mon"}}),
        ({"serviceMonitorSelectorNilUsesHelmValues": False}, {}),
        ({"serviceMonitorSelector": {"matchLabels": {"a": "b"}}}, {"matchLabels": {"a": "b"}}),
    ],
)
def test_stack_chooses_the_selector_as_upstream(spec, selector):
    found = rendered("kube-prometheus-stack", {"prometheus": {"prometheusSpec": spec}}, release="mon")
    # The full name is cut to 26 characters.
    assert found["Prometheus", "mon-kube-prometheus-stack-prometheus"]["spec"]["serviceMonitorSelector"] == selector
    assert ("Prometheus", "a-very-long-release-name-k-prometheus") in rendered(
        "kube-prometheus-stack", {}, release="a-very-long-release-name"
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"grafana": {"enabled": True}}, "grafana.enabled is true, but the lab chart has no grafana"),
        ({"alertmanager": {"enabled": True}}, "the lab chart has no alertmanager"),
        ({"nodeExporter": {"enabled": True}}, "the lab chart has no nodeExporter"),
        ({"kubeStateMetrics": {"enabled": True}}, "the lab chart has no kubeStateMetrics"),
        ({"prometheusOperator": {"admissionWebhooks": {"enabled": True}}}, "no admissionWebhooks"),
        ({"prometheusOperator": {"tls": {"enabled": True}}}, "use the upstream chart"),
        ({"prometheus": {"prometheusSpec": {"additionalScrapeConfigs": [{}]}}}, "no additionalScrapeConfigs"),
    ],
)
def test_stack_refuses_what_the_lab_lacks(values, says):
    assert says in refusal("kube-prometheus-stack", values)


# --- prometheus-adapter

RULE = {
    "seriesQuery": '{__name__="nv_inference_pending_request_count",namespace!="",pod!=""}',
    "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
    "name": {"as": "pending"},
    "metricsQuery": "sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)",
}
ADDRESS = {"url": "http://stack.{{ .Release.Namespace }}.svc", "port": 9090, "path": "/prometheus"}


@pytest.mark.parametrize(
    ("rules", "groups", "roles"),
    [
        ({}, set(), set()),
        ({"custom": [RULE]}, {"custom.metrics.k8s.io"}, {"server-resources"}),
        ({"external": [RULE]}, {"external.metrics.k8s.io"}, {"external-metrics"}),
        ({"resource": {"window": "3m"}}, {"metrics.k8s.io"}, {"metrics"}),
        (
            {"custom": [RULE], "external": [RULE]},
            {"custom.metrics.k8s.io", "external.metrics.k8s.io"},
            {"server-resources", "external-metrics"},
        ),
    ],
)
def test_adapter_registers_what_has_rules(rules, groups, roles):
    found = rendered("prometheus-adapter", {"rules": {"default": False, **rules}})
    assert {name for kind, name in found if kind == "APIService"} == {f"v1beta1.{group}" for group in groups}
    made = {name.removeprefix("prometheus-adapter-") for kind, name in found if kind == "ClusterRole"}
    assert made == roles | {"resource-reader"}
    for kind, name in found:
        if kind == "APIService":
            service = found[kind, name]["spec"]["service"]
            assert ("Service", service["name"]) in found
            assert service["port"] == 443


def test_adapter_rights_and_start():
    found = rendered("prometheus-adapter", {"prometheus": ADDRESS, "rules": {"custom": [RULE]}}, namespace="mon")
    delegator = found["ClusterRoleBinding", "prometheus-adapter-system-auth-delegator"]
    assert delegator["roleRef"]["name"] == "system:auth-delegator"
    reader = found["RoleBinding", "prometheus-adapter-auth-reader"]
    assert reader["metadata"]["namespace"] == "kube-system"
    assert reader["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    main = container(found["Deployment", "prometheus-adapter"])
    assert main["image"] == "registry.k8s.io/prometheus-adapter/prometheus-adapter:v0.12.0"
    assert "--prometheus-url=http://stack.mon.svc:9090/prometheus" in main["args"]
    assert "--metrics-relist-interval=1m" in main["args"]


def test_adapter_rules_reach_it_and_restart_it():
    def made(rule: dict) -> tuple[dict, str]:
        found = rendered("prometheus-adapter", {"rules": {"custom": [rule]}})
        config = yaml.safe_load(found["ConfigMap", "prometheus-adapter"]["data"]["config.yaml"])
        pod = found["Deployment", "prometheus-adapter"]["spec"]["template"]
        return config, pod["metadata"]["annotations"]["checksum/config"]

    config, checksum = made(RULE)
    assert config == {"rules": [RULE]}
    assert made(RULE)[1] == checksum
    assert made({**RULE, "metricsQuery": "1"})[1] != checksum


def test_adapter_takes_rules_of_an_existing_config_map():
    found = rendered("prometheus-adapter", {"rules": {"existing": "mine"}})
    assert ("ConfigMap", "prometheus-adapter") not in found
    pod = found["Deployment", "prometheus-adapter"]["spec"]["template"]["spec"]
    assert {"name": "config", "configMap": {"name": "mine"}} in pod["volumes"]


def test_adapter_refuses_default_rules():
    assert "rules.default is true, but the lab chart has no default rules" in refusal(
        "prometheus-adapter", {"rules": {"default": True}}
    )


# --- traefik

PROXY = {
    "deployment": {"replicas": 2, "terminationGracePeriodSeconds": 75},
    "ports": {
        "web": {"expose": {"default": False}},
        "websecure": None,
        "riva-grpc": {
            "port": 50051,
            "expose": {"default": True},
            "exposedPort": 50051,
            "protocol": "TCP",
            "transport": {
                "respondingTimeouts": {"readTimeout": 0, "writeTimeout": 0, "idleTimeout": "180s"},
                "lifeCycle": {"requestAcceptGraceTimeout": 5, "graceTimeOut": 60},
                "keepAliveMaxTime": 0,
            },
        },
    },
    "ingressClass": {"enabled": True, "isDefaultClass": False, "name": "riva"},
    "providers": {
        "kubernetesCRD": {"enabled": True, "ingressClass": "riva", "namespaces": ["riva", "traefik"]},
        "kubernetesIngress": {"enabled": False},
    },
    "additionalArguments": ["--entryPoints.riva-grpc.http2.maxConcurrentStreams=250"],
    "service": {"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, "annotations": {"a": "b"}},
    "metrics": {"prometheus": {"service": {"enabled": True}, "serviceMonitor": {"enabled": True, "interval": "15s"}}},
    "log": {"level": "DEBUG"},
}


def test_proxy_entry_point():
    found = rendered("traefik", PROXY)
    main = container(found["Deployment", "traefik"])
    assert main["image"] == "docker.io/traefik:v3.7.15"
    wanted = {
        "--entryPoints.riva-grpc.address=:50051/tcp",
        # 0 is a value, not "not set": it turns the 60 s cut of a stream off.
        "--entryPoints.riva-grpc.transport.respondingTimeouts.readTimeout=0",
        "--entryPoints.riva-grpc.transport.respondingTimeouts.writeTimeout=0",
        "--entryPoints.riva-grpc.transport.respondingTimeouts.idleTimeout=180s",
        "--entryPoints.riva-grpc.transport.lifeCycle.requestAcceptGraceTimeout=5",
        "--entryPoints.riva-grpc.transport.lifeCycle.graceTimeOut=60",
        "--entryPoints.riva-grpc.transport.keepAliveMaxTime=0",
        "--entryPoints.riva-grpc.http2.maxConcurrentStreams=250",
        "--providers.kubernetescrd",
        "--providers.kubernetescrd.ingressClass=riva",
        "--providers.kubernetescrd.namespaces=riva,traefik",
        "--metrics.prometheus.entrypoint=metrics",
        "--ping=true",
        "--log.level=DEBUG",
    }
    assert wanted <= set(main["args"])
    assert not [argument for argument in main["args"] if "websecure" in argument or "kubernetesingress" in argument]
    assert len(main["args"]) == len(set(main["args"]))


def test_proxy_service_exposes_what_is_asked_for():
    service = rendered("traefik", PROXY)["Service", "traefik"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    assert service["metadata"]["annotations"] == {"a": "b"}
    port = {"name": "riva-grpc", "port": 50051, "targetPort": "riva-grpc", "protocol": "TCP"}
    assert service["spec"]["ports"] == [port]


def test_proxy_pods_grace_class_and_monitor():
    found = rendered("traefik", PROXY)
    deployment = found["Deployment", "traefik"]["spec"]
    assert deployment["replicas"] == 2
    assert deployment["template"]["spec"]["terminationGracePeriodSeconds"] == 75
    assert container(found["Deployment", "traefik"])["readinessProbe"]["httpGet"]["port"] == 8080
    assert found["IngressClass", "riva"]["spec"]["controller"] == "traefik.io/ingress-controller"
    monitor = found["ServiceMonitor", "traefik"]["spec"]
    labels = found["Service", "traefik-metrics"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    # Only one of the two Services is scraped.
    assert not monitor["selector"]["matchLabels"].items() <= found["Service", "traefik"]["metadata"]["labels"].items()


def test_proxy_cuts_names_of_ports_to_15_characters():
    name = "a-very-long-entry-point"
    found = rendered("traefik", {"ports": {name: {"port": 1234, "expose": {"default": True}}}})
    ports = {port["name"]: port for port in container(found["Deployment", "traefik"])["ports"]}
    assert ports["a-very-long-ent"]["containerPort"] == 1234
    service = {port["port"]: port["targetPort"] for port in found["Service", "traefik"]["spec"]["ports"]}
    assert service[1234] == "a-very-long-ent"


def test_proxy_wants_an_exposed_entry_point():
    ports = {name: {"expose": {"default": False}} for name in ("web", "websecure")}
    assert "no entry point is exposed: set ports.<name>.expose.default" in refusal("traefik", {"ports": ports})


GUARDED = {
    **PROXY,
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": 1},
    "tlsOptions": {"default": {"minVersion": "VersionTLS12", "clientAuth": {"secretNames": ["ca"]}}},
    "tlsStore": {"default": {"defaultCertificate": {"secretName": "tls"}}},
    "resources": {"limits": {"memory": "1Gi"}},
    "accessLog": {"enabled": True, "format": "json", "fields": {"defaultMode": "drop", "names": {"Duration": "keep"}}},
}


def test_proxy_tls_budget_and_log():
    found = rendered("traefik", GUARDED)
    assert found["TLSOption", "default"]["spec"] == GUARDED["tlsOptions"]["default"]
    assert found["TLSStore", "default"]["spec"] == GUARDED["tlsStore"]["default"]
    budget = found["PodDisruptionBudget", "traefik"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == found["Deployment", "traefik"]["spec"]["selector"]
    main = container(found["Deployment", "traefik"])
    assert main["env"] == [{"name": "GOMEMLIMIT", "value": "921MiB"}]
    wanted = {
        "--accesslog.fields.defaultMode=drop",
        "--accesslog.fields.names.Duration=keep",
        "--accesslog.fields.headers.defaultMode=drop",
    }
    assert wanted <= set(main["args"])
    assert ("ConfigMap", "traefik-file-provider") not in found


def test_proxy_reads_a_file_that_its_values_hold():
    found = rendered(
        "traefik", {**PROXY, "providers": {"file": {"enabled": True, "content": {"tcp": {"routers": {}}}}}}
    )
    assert yaml.safe_load(found["ConfigMap", "traefik-file-provider"]["data"]["config.yml"]) == {"tcp": {"routers": {}}}
    main = container(found["Deployment", "traefik"])
    assert "--providers.file.directory=/etc/traefik/dynamic" in main["args"]
    assert {"name": "file-provider", "mountPath": "/etc/traefik/dynamic"} in main["volumeMounts"]


# --- gpu-operator


GATEWAY = {
    **PROXY,
    "providers": {**PROXY["providers"], "kubernetesGateway": {"enabled": True}},
    "gateway": {
        "listeners": {"web": None, "speech": {"port": 50051, "protocol": "HTTP", "namespacePolicy": {"from": "All"}}}
    },
}


def test_traefik_as_a_gateway():
    found = rendered("traefik", GATEWAY)
    assert found["GatewayClass", "traefik"]["spec"]["controllerName"] == "traefik.io/gateway-controller"
    (listener,) = found["Gateway", "traefik-gateway"]["spec"]["listeners"]
    assert listener == {
        "name": "speech",
        "port": 50051,
        "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    arguments = container(found["Deployment", "traefik"])["args"]
    assert "--providers.kubernetesgateway" in arguments
    assert "--providers.kubernetesgateway.statusaddress.service.name=traefik" in arguments
    (role,) = [item for (kind, _name), item in found.items() if kind == "ClusterRole"]
    resources = [name for rule in role["rules"] for name in rule["resources"]]
    assert {"grpcroutes", "grpcroutes/status", "gateways/status"} <= set(resources)
    assert "referencegrants/status" not in resources
    lost = {**GATEWAY, "gateway": {"listeners": {"speech": {"port": 1, "protocol": "HTTP"}}}}
    assert "gateway.listeners.speech: no entry point has port 1" in refusal("traefik", lost)
    assert ("Gateway", "traefik-gateway") not in rendered("traefik", PROXY)


def test_operator_starts_as_upstream_starts_it():
    found = rendered("gpu-operator", {}, namespace="gpu")
    main = container(found["Deployment", "gpu-operator"])
    assert main["image"] == "nvcr.io/nvidia/gpu-operator:v26.7.0"
    assert main["command"] == ["gpu-operator"]
    assert "--leader-elect" in main["args"]
    assert "OPERATOR_NAMESPACE" in {variable["name"] for variable in main["env"]}
    assert found["CustomResourceDefinition", "clusterpolicies.nvidia.com"]["spec"]["versions"][0]["name"] == "v1"


def test_operator_values_reach_the_policy():
    values = {
        "driver": {"enabled": False, "version": "580.159.04"},
        "toolkit": {"enabled": False},
        "mig": {"strategy": "mixed"},
        "devicePlugin": {"version": "v9", "env": [{"name": "A", "value": "b"}]},
        "dcgmExporter": {"enabled": False},
        "validator": {"version": "v8"},
    }
    spec = rendered("gpu-operator", values)["ClusterPolicy", "cluster-policy"]["spec"]
    assert spec["driver"] == {"enabled": False, "version": "580.159.04"}
    assert spec["mig"]["strategy"] == "mixed"
    assert spec["devicePlugin"]["version"] == "v9"
    assert spec["devicePlugin"]["repository"] == "nvcr.io/nvidia"
    assert spec["validator"]["version"] == "v8"
    assert spec["daemonsets"]["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_operator_version_can_be_set_and_the_validator_follows_the_chart():
    found = rendered("gpu-operator", {"operator": {"version": "v1"}})
    assert container(found["Deployment", "gpu-operator"])["image"].endswith(":v1")
    assert found["ClusterPolicy", "cluster-policy"]["spec"]["validator"]["version"] == "v26.7.0"


@pytest.mark.parametrize("enabled", [True, False])
def test_operator_brings_nfd_if_asked(enabled):
    found = rendered("gpu-operator", {"nfd": {"enabled": enabled}})
    assert (("DaemonSet", "gpu-operator-node-feature-discovery-worker") in found) is enabled


def test_operator_holds_every_right_that_it_grants():
    from standins.gpu_operator.policy import OPERANDS_RUN

    role = rendered("gpu-operator", {})["ClusterRole", "gpu-operator"]
    held = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    granted = {
        (group, resource, verb)
        for operand in OPERANDS_RUN
        for rule in operand.rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted <= held


# --- staging


@pytest.fixture
def module_cache(tmp_path):
    cache = tmp_path / "cache"
    for module, pattern, _ in DEFINITIONS:
        file = cache / module / pattern.replace("*", "things")
        file.parent.mkdir(parents=True)
        file.write_text("kind: CustomResourceDefinition\n")
        file.chmod(0o444)
    return cache


def test_staging_adds_the_definitions_and_can_be_repeated(tmp_path, module_cache):
    for _ in range(2):
        staged = stage(tmp_path / "made" / "charts", module_cache)
    assert sorted(path.name for path in staged.iterdir()) == sorted(CHARTS)
    assert (staged / "kube-prometheus-stack/charts/crds/crds/monitoring.coreos.com_things.yaml").exists()
    assert (staged / "traefik/crds/traefik.io_things.yaml").exists()
    assert [path.name for path in staged.parent.iterdir()] == ["charts"], "nothing else is left"


def test_staging_names_the_missing_module_and_changes_nothing(tmp_path, module_cache):
    staged = stage(tmp_path / "charts", module_cache)
    marker = staged / "marker"
    marker.touch()
    with pytest.raises(ModuleMissingError, match=f"go mod download {GO_MODULES[0]}"):
        stage(staged, tmp_path / "empty")
    assert marker.exists()


# --- upstream's keys


@pytest.mark.parametrize(
    ("chart", "values", "unknown"),
    [
        ("traefik", {"service": {"type": "LoadBalancer"}}, ["service.type"]),
        ("traefik", {"service": {"spec": {"type": "LoadBalancer", "anything": {"a": 1}}}}, []),
        ("traefik", {"ports": {"own": {"port": 1, "expse": {}}}}, ["ports.own.expse"]),
        ("traefik", {"ports": {"web": None}}, []),
        ("traefik", {"log": {"level": {"deep": 1}}}, ["log.level.deep"]),
        ("traefik", {"deployment": {"podAnnotations": {"a.b/c": "d"}}}, []),
        ("kube-prometheus-stack", {"prometheus": {"prometheusSpec": {"scrapeintervall": "1s"}}}, None),
        ("kube-prometheus-stack", {"grafana": {"sidecar": {"dashboards": {"enabled": True}}}}, []),
        ("kube-prometheus-stack", {"prometheus": {"prometheusSpec": {"storageSpec": {"emptyDir": {}}}}}, []),
        ("kube-prometheus-stack", {"prometheusOperator": {"admissionWebhooks": {"enabled": False}}}, []),
        ("prometheus-adapter", {"rules": {"custom": [{"any": 1}], "resource": {"cpu": {}}}}, []),
        ("prometheus-adapter", {"rules": {"customs": []}, "promethesu": {}}, ["rules.customs", "promethesu"]),
        ("gpu-operator", {"operator": {"version": "v26.7.0"}, "validator": {"version": "v26.7.0"}}, []),
        ("gpu-operator", {"driver": {"enable": True}}, ["driver.enable"]),
        ("nvidia-device-plugin", {"gfd": {"enabled": True}, "nfd": {"worker": {"x": 1}}}, []),
    ],
)
def test_unknown_keys(chart, values, unknown):
    expected = ["prometheus.prometheusSpec.scrapeintervall"] if unknown is None else unknown
    assert unknown_keys(values, chart) == expected


def test_a_chart_without_a_fixture_is_an_error():
    with pytest.raises(LookupError, match="no-such-chart"):
        known_keys("no-such-chart")


def test_trees_of_values():
    text = """
# topLevel: 1
part:
  enabled: true
  # Note: this is prose
  # version: ""
  #other:
  #  below: 1
  empty: {}
  # example: inside of empty
  # size: 1
  labels:
    app: x
  list:
    - name: x
"""
    assert tree_of_values(text) == {
        "part": {
            "enabled": "value",
            "empty": "free",
            "labels": "free",
            "list": "list",
            "version": "free",
            "other": "free",
        },
        "topLevel": "free",
    }
