"""kubeconform on our chart, as each preset, engine and autoscaler renders it, for the oldest Kubernetes and the lab's.

``python -m tests.conform`` fails where an object has a field that its kind does not have, lacks one that it needs, or
has one of another type. The schemas are made here, since they are published nowhere that a mirror has: Kubernetes' own
from the OpenAPI documents in its Go module, those of other kinds from the CRDs in their projects' Go modules. A field
that is not in a schema is refused, but for where Kubernetes keeps any.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.speechops.riva.plugins.module_utils import riva_values

from lab.binaries import KUBERNETES_VERSION, install_program, module_sources
from lab.charts.stage import DEFINITIONS
from lab.extras import GATEWAY_API_SOURCES
from lab.settings import CACHE
from tests.unit import charts

KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
# The oldest that the chart takes (kubeVersion in its Chart.yaml), in its last release.
OLDEST = "1.30.14"
VERSIONS = (OLDEST, KUBERNETES_VERSION)
BIN = Path(sys.executable).parent
FOLDER = CACHE / "conform"
GATEWAY = (GATEWAY_API_SOURCES, "config/crd/standard/*.yaml", "")
# What says nothing about whether an object is right.
WORDS = {"description", "title", "example", "externalDocs", "format"}


FASTEST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(FASTEST):
    """YAML 1.1 has a type for the plain word ``=``, which PyYAML cannot make; in a CRD it is text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: node.value)


def strict(schema):
    """An OpenAPI schema as a JSON schema that takes no field it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    made = {}
    for key, value in schema.items():
        if key == "$ref":
            made[key] = value.replace("#/components/schemas/", "#/$defs/")
        elif key == "properties":
            made[key] = {name: strict(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"):
            made[key] = strict(value)
        elif key not in WORDS and key != "default" and not key.startswith("x-"):
            made[key] = value
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def needed(schema, definitions):
    """The names of the definitions that a schema leads to, directly or by others."""
    found, waiting = set(), [schema]
    while waiting:
        for name in set(_references(waiting.pop())) - found:
            found.add(name)
            waiting.append(definitions[name])
    return found


def _references(schema):
    if isinstance(schema, dict):
        # There are properties of that name too.
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix("#/$defs/")
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def of_documents(documents):
    """(group, version, kind) to schema, of Kubernetes' own OpenAPI documents."""
    schemas = {}
    for document in documents:
        parts = document.get("components", {}).get("schemas", {})
        definitions = {name: strict(part) for name, part in parts.items()}
        for name, part in parts.items():
            for about in part.get("x-kubernetes-group-version-kind", []):
                wanted = {key: definitions[key] for key in needed(definitions[name], definitions)}
                schemas[about["group"], about["version"], about["kind"]] = {**definitions[name], "$defs": wanted}
    return schemas


def of_definition(crd, metadata):
    """(group, version, kind) to schema, of a CustomResourceDefinition; its objects have the metadata of all objects."""
    spec = crd["spec"]
    schemas = {}
    for version in spec["versions"]:
        made = strict(version["schema"]["openAPIV3Schema"])
        made["properties"] |= {"metadata": {"$ref": metadata["$ref"]}}
        made["properties"].setdefault("apiVersion", {"type": "string"})
        made["properties"].setdefault("kind", {"type": "string"})
        schemas[spec["group"], version["name"], spec["names"]["kind"]] = {**made, "$defs": metadata["$defs"]}
    return schemas


def make_schemas(version, folder):
    """Write a file for each kind that Kubernetes of this version and the lab's charts know."""
    kubernetes = f"k8s.io/kubernetes@v{version}"
    cache = module_sources(CACHE / "bin", (kubernetes, *(module for module, *_ in (*DEFINITIONS, GATEWAY))))
    documents = sorted((cache / kubernetes / "api" / "openapi-spec" / "v3").glob("*_openapi.json"))
    schemas = of_documents(json.loads(path.read_text(encoding="utf-8")) for path in documents)
    pod = schemas["", "v1", "Pod"]
    metadata = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    reference = {"$ref": f"#/$defs/{metadata}"}
    of_objects = {**reference, "$defs": {name: pod["$defs"][name] for name in needed(reference, pod["$defs"])}}
    for module, pattern, _folder in (*DEFINITIONS, GATEWAY):
        for path in sorted((cache / module).glob(pattern)):
            for item in yaml.load_all(path.read_text(encoding="utf-8"), Loader=Loader):
                if item and item["kind"] == "CustomResourceDefinition":
                    schemas |= of_definition(item, of_objects)
    for (group, name, kind), schema in schemas.items():
        # Of the core, kubeconform takes the version for the group.
        file = folder / (group or name) / f"{kind.lower()}_{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(schema), encoding="utf-8")


def schemas_folder(version):
    """Where the schemas of a version lie; another one for each form of this file and of what it reads."""
    key = hashlib.sha256(Path(__file__).read_bytes() + repr((DEFINITIONS, GATEWAY)).encode()).hexdigest()[:16]
    return FOLDER / f"{version}-{key}"


def prepare(version):
    """The folder with the schemas of a version, made where it is not there yet."""
    folder = schemas_folder(version)
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        make_schemas(version, partial)
        for old in FOLDER.glob(f"{version}-*"):
            if old != partial:
                shutil.rmtree(old, ignore_errors=True)
        partial.rename(folder)
    return folder


def kubeconform():
    """The program, built once from its Go module."""
    return install_program(FOLDER / KUBECONFORM.rsplit("@", 1)[1], CACHE / "tools", KUBECONFORM)


# As the role's variables are without an inventory, but for what the cases are about.
SETTINGS = {
    "image_repository": "nvcr.io/nvidia/riva/riva-speech",
    "image_tag": "2.19.0",
    "image_pull_secrets": ["imagepullsecret"],
    "model_store": {"type": "hostPath", "host_path": "/var/lib/riva"},
    "model_load_seconds": 3600,
    "longest_stream_seconds": 600,
    "queue_time_target_ms": 0,
    "scaling_preset": "balanced",
    "calibration": {"riva-asr": {"stream_limit": 30, "planned_streams": 29, "model_load_seconds": 30.0}},
    "latency_objective_ms": 300,
    "chunk_ms": 160,
    "scrape_interval": 15,
    "ingress_class": "riva-traefik",
    "keda": {
        "prometheus_url": "http://kube-prometheus-stack-prometheus.monitoring.svc:9090",
        "zero_after_seconds": 900,
    },
    "nim": {
        "registry": "nvcr.io/nim/nvidia",
        "container_id": "parakeet-1-1b-ctc-en-us",
        "image_tag": "1.0.0",
        "metrics_port": 8002,
        "metrics_path": "/metrics",
    },
    "route": {
        "kind": "IngressRoute",
        "gateway": {},
        "allowed_sources": [],
        "streams_per_client": 0,
        "streams_at_once": 0,
        "new_streams_per_second": 0,
        "auth_address": "",
        "auth_headers": ["authorization"],
        "network_policy": True,
        "network_policy_clients": [],
        "network_policy_namespace": True,
        "network_policy_egress": [],
        "traefik_namespace": "traefik",
        "prometheus_namespace": "monitoring",
    },
}
CHOICES = [
    {"scaling_preset": preset, "engine": engine, "autoscaler": autoscaler}
    for preset in ("article", "economy", "balanced", "latency")
    for engine in ("sdk", "nim")
    for autoscaler in ("hpa", "keda")
    # The input check refuses the article's rule with KEDA.
    if (preset, autoscaler) != ("article", "keda")
]
GUARDED = {
    **SETTINGS["route"],
    "allowed_sources": ["10.0.0.0/8"],
    "streams_per_client": 5,
    "streams_at_once": 100,
    "new_streams_per_second": 10,
    "auth_address": "http://auth.auth.svc:8080",
    "network_policy_clients": [{"namespaceSelector": {"matchLabels": {"team": "speech"}}}],
    "network_policy_egress": [{"ports": [{"protocol": "TCP", "port": 3128}]}],
}
GATEWAY_ROUTE = {
    **SETTINGS["route"],
    "kind": "GRPCRoute",
    "gateway": {"name": "public", "namespace": "gateways", "section": "grpc"},
}
# (oldest Kubernetes that has its kinds, settings, service)
CASES: dict[str, tuple[str, dict, dict]] = {
    **{"-".join(choice.values()): (OLDEST, choice, {}) for choice in CHOICES},
    "no calibration": (OLDEST, {"calibration": {}}, {}),
    "models from NGC, caches filled": (OLDEST, {"pre_seed_nodes": ["gpu-1"]}, {"models": ["nvidia/riva/asr:2.19.0"]}),
    "models from a bucket, caches filled": (
        OLDEST,
        {"pre_seed_nodes": ["gpu-1"], "model_bucket": {"path": "speech/a100", "secret": "bucket"}},
        {},
    ),
    "a claim": (OLDEST, {"model_store": {"type": "pvc", "size": "50Gi", "storage_class": "fast"}}, {}),
    "nothing kept": (OLDEST, {"model_store": {"type": "emptyDir"}}, {}),
    "zero pods": (OLDEST, {"autoscaler": "keda"}, {"min_replicas": 0}),
    "guarded": (OLDEST, {"route": GUARDED}, {"host": "asr.example.com", "tls_secret": "asr-tls"}),
    "a header": (OLDEST, {}, {"header": {"name": "x-service", "value": "asr"}}),
    "gateway": (OLDEST, {"route": GATEWAY_ROUTE}, {"host": "asr.example.com"}),
    "openshift": (OLDEST, {"openshift": True}, {}),
    "no autoscaler": (OLDEST, {}, {"values": {"autoscaling": {"enabled": False}, "replicas": 2}}),
    "claimed GPUs": (KUBERNETES_VERSION, {}, {"values": {"resourceClaim": {"deviceClassName": "gpu.nvidia.com"}}}),
}


def values_of(case):
    """The values that the role hands to the chart."""
    _oldest, settings, service = CASES[case]
    return riva_values.chart_values({"name": "riva-asr", **service}, {**SETTINGS, **settings})


def render(values):
    """What the chart makes of them, as text."""
    done = charts.helm("template", "riva-asr", charts.RIVA, "--namespace", "riva", values=values)
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


def complaints(text, version):
    """What kubeconform says against objects, a line each; none where all is right."""
    place = f"{prepare(version)}/{{{{ .Group }}}}/{{{{ .ResourceKind }}}}_{{{{ .ResourceAPIVersion }}}}.json"
    words = [kubeconform(), "-strict", "-output=json", f"-kubernetes-version={version}", f"-schema-location={place}"]
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    told = json.loads(done.stdout)
    found = [f"{item['kind']} {item['name']}: {item['msg']}" for item in told.get("resources") or []]
    if done.returncode and not found:
        raise RuntimeError(done.stderr)
    return found


def main():
    wrong = 0
    # A template that no case renders would be held against nothing.
    unseen = {path.name for path in (charts.RIVA / "templates").glob("*.yaml")}
    for case, (oldest, *_rest) in CASES.items():
        text = render(values_of(case))
        unseen = {name for name in unseen if f"/templates/{name}\n" not in text}
        for version in VERSIONS[VERSIONS.index(oldest) :]:
            for line in complaints(text, version):
                wrong += 1
                print(f"{case}, Kubernetes {version}: {line}")
    if unseen:
        sys.exit(f"tests/conform.py has no case for {', '.join(sorted(unseen))} of the riva chart")
    if wrong:
        sys.exit(f"{wrong} objects are not as Kubernetes wants them")
    print(f"kubeconform: {len(CASES)} renderings of the riva chart are right for Kubernetes {' and '.join(VERSIONS)}")


if __name__ == "__main__":
    main()
