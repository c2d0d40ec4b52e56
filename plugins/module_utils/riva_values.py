# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a speech service of the inventory to the values of its release, and to NGC's secrets. Pure rules."""

from __future__ import annotations

import base64
import json

from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan
from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding
from ansible_collections.speechops.riva.plugins.module_utils.way_in import route_values

SPEECH = ("asr", "nlp", "nmt", "tts")
# NVIDIA's support matrix of Speech NIM begins with compute capability 8.0.
MIN_COMPUTE_MAJOR = 8
MODEL_STORE = {
    "type": "type",
    "host_path": "hostPath",
    "existing_claim": "existingClaim",
    "size": "size",
    "storage_class": "storageClass",
    "access_modes": "accessModes",
}
BUCKET = {"path": "path", "endpoint": "endpoint", "region": "region", "secret": "secretName"}


def merged(base, extra):
    """Both mappings, the second one's leaves winning; lists are replaced."""
    result = dict(base)
    for key, value in (extra or {}).items():
        both = isinstance(result.get(key), dict) and isinstance(value, dict)
        result[key] = merged(result[key], value) if both else value
    return result


def number(value):
    """A whole number stays whole: 10, 10.0 and "10" are 10, 1.5 is 1.5."""
    given = float(value)
    return int(given) if given == int(given) else given


def engine_of(service, settings):
    """`sdk` or `nim`: the service's own, else the one of all."""
    return service.get("engine") or settings.get("engine") or "sdk"


def engine_values(service, settings):
    """The part of the chart's values that depends on the engine: image, and what only a NIM has."""
    if engine_of(service, settings) == "sdk":
        return {"image": {"repository": settings["image_repository"], "tag": str(settings["image_tag"])}}
    nim = settings["nim"]
    container = service.get("container_id") or nim["container_id"]
    return {
        "engine": "nim",
        "image": {
            "repository": f"{nim['registry'].rstrip('/')}/{container}",
            "tag": str(service.get("image_tag") or nim["image_tag"]),
        },
        "nim": {
            "tagsSelector": service.get("tags_selector") or nim.get("tags_selector") or "",
            "offline": bool(nim.get("offline")),
            "metricsPort": number(nim["metrics_port"]),
            "metricsPath": nim["metrics_path"],
            "minComputeMajor": MIN_COMPUTE_MAJOR,
        },
    }


def bucket_values(bucket):
    """`modelInit.s3` of riva_model_bucket."""
    return {BUCKET[key]: value for key, value in bucket.items() if value}


def fetches_models(service, settings):
    """Whether an init container of the service fills its store, from NGC or from a bucket."""
    return engine_of(service, settings) == "sdk" and bool(service.get("models") or settings.get("model_bucket"))


def cache_filled(service, settings):
    """Whether a pod that the autoscaler adds finds its models, wherever it comes up.

    A claim is the same for all pods. A folder of the node is filled by the pre-seed Jobs or, where nothing fetches,
    was filled by hand; else a node that never had a pod has an empty one. An emptyDir always begins empty.
    """
    kind = (settings.get("model_store") or {}).get("type", "hostPath")
    if kind != "hostPath":
        return kind == "pvc"
    if engine_of(service, settings) == "nim":
        return bool((settings.get("nim") or {}).get("offline"))
    return bool(settings.get("pre_seed_nodes")) or not fetches_models(service, settings)


def scc_for(engine, store_type):
    """The tightest SCC of OpenShift's own under which a speech pod starts.

    A node's folder takes hostPath. The SDK's server runs as root; a NIM as uid 1000, which `restricted-v2` refuses, as
    it is not of the namespace's range.
    """
    if store_type == "hostPath":
        return "hostmount-anyuid"
    return "nonroot-v2" if engine == "nim" else "anyuid"


def autoscaler_values(settings):
    """The part of `autoscaling` that says who scales."""
    if settings.get("autoscaler", "hpa") == "hpa":
        return {"kind": "hpa"}
    keda = settings["keda"]
    return {
        "kind": "keda",
        "keda": {
            "prometheusUrl": keda["prometheus_url"],
            "zeroAfterSeconds": number(keda["zero_after_seconds"]),
            "traefikNamespace": settings["route"]["traefik_namespace"],
        },
    }


def chart_values(service, settings, extra=None):
    """Values of one speech service: the role's settings, over them the service's own, over them free values."""
    reckoned = {**settings, "cache_filled": cache_filled(service, settings)}
    scaling = scaling_plan.chart_values(scaling_plan.plan(service, settings.get("calibration"), reckoned))
    scaling["autoscaling"] = {**autoscaler_values(settings), **scaling["autoscaling"]}
    values = {
        **engine_values(service, settings),
        "imagePullSecrets": list(settings.get("image_pull_secrets") or []),
        "speechServices": {name: name in (service.get("speech") or ["asr"]) for name in SPEECH},
        "env": dict(service.get("env") or {}),
        "gpus": number(service.get("gpus", 1)),
        "modelStore": {MODEL_STORE[key]: value for key, value in settings["model_store"].items()},
        "modelLoadSeconds": scaling_plan.startup_seconds(
            number(settings["model_load_seconds"]),
            scaling_plan.measured_load(service, settings.get("calibration")),
            fetches=engine_of(service, settings) == "nim",
        ),
        "serviceMonitor": {"interval": f"{number(settings['scrape_interval'])}s"},
        **scaling,
        **route_values(service, settings),
    }
    if settings.get("openshift"):
        values["openshift"] = {
            "scc": scc_for(engine_of(service, settings), values["modelStore"].get("type", "hostPath"))
        }
    if fetches_models(service, settings):
        values["modelInit"] = {"enabled": True}
        if service.get("models"):
            values["modelInit"]["models"] = list(service["models"])
        else:
            values["modelInit"]["s3"] = bucket_values(settings["model_bucket"])
        if settings.get("pre_seed_nodes"):
            values["modelInit"]["preSeedNodes"] = sorted(settings["pre_seed_nodes"])
    return merged(merged(values, extra), service.get("values"))


def gpu_floor(services, settings):
    """The least compute capability that the services' engines need, as text; empty where any GPU will do."""
    engines = {engine_of(item, settings) for item in services or [] if isinstance(item, dict)}
    return f"{MIN_COMPUTE_MAJOR}.0" if "nim" in engines else ""


def check_engines(services, settings):
    """Findings of the engines' settings taken together; types are checked before.

    services: riva_services; settings: `engine`, `autoscaler`, `preset`, `nim` (a mapping as the role has it).
    """
    found = []
    for service in services or []:
        if not isinstance(service, dict):
            continue
        name = service.get("name")
        nim = engine_of(service, settings) == "nim"
        if nim and not (service.get("image_tag") or settings["nim"].get("image_tag")):
            message = f"{name}: its engine is nim, and nobody says which version of the container"
            remedy = f"Set riva_nim_image_tag, or image_tag of {name}, to a tag that NVIDIA's registry lists."
            found.append(finding("riva_services", message, remedy))
        if nim and (service.get("models") or [])[:1]:
            message = f"{name}: models is for the engine sdk; a NIM fetches the models of its container"
            remedy = f"Remove models of {name}; tags_selector chooses among what the container offers."
            found.append(finding("riva_services", message, remedy))
        for key in ("container_id", "image_tag", "tags_selector"):
            if not nim and service.get(key):
                message = f"{name}: {key} is for the engine nim, but its engine is sdk"
                found.append(finding("riva_services", message, f"Set engine of {name} to nim, or remove {key}."))
        if nim and len(service.get("speech") or []) > 1:
            message = f"{name}: a NIM serves one kind of speech, not {', '.join(service['speech'])}"
            found.append(finding("riva_services", message, "Make each kind an item of riva_services of its own."))
        found += check_autoscaler(service, settings)
    return found


def check_autoscaler(service, settings):
    name, keda = service.get("name"), settings.get("autoscaler") == "keda"
    found = []
    if service.get("min_replicas") in (0, "0") and not keda:
        message = f"{name}: min_replicas is 0, but an HPA never wakes a service that has no pods"
        remedy = f"Set min_replicas of {name} to 1 or more, or riva_autoscaler to keda."
        found.append(finding("riva_services", message, remedy))
    if keda and (service.get("scaling_preset") or settings.get("preset")) == "article":
        message = f"{name}: the preset article is the article's rule for prometheus-adapter; riva_autoscaler is keda"
        found.append(finding("riva_services", message, "Take another scaling_preset, or set riva_autoscaler to hpa."))
    return found


def _secret(name, kind, data):
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        # uninstall.yml finds by it what no release holds.
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "speechops.riva"}},
        "type": kind,
        "data": encoded,
    }


def ngc_secrets(api_key, deploy_key=""):
    """The Secrets that pull images and models from NGC."""
    login = base64.b64encode(f"$oauthtoken:{api_key}".encode()).decode()
    auths = {"nvcr.io": {"username": "$oauthtoken", "password": api_key, "auth": login}}
    secrets = [
        _secret(
            "imagepullsecret",
            "kubernetes.io/dockerconfigjson",
            {".dockerconfigjson": json.dumps({"auths": auths})},
        ),
        _secret("modelpullsecret", "Opaque", {"apikey": api_key}),
    ]
    if deploy_key:
        secrets.append(_secret("riva-model-deploy-key", "Opaque", {"key": deploy_key}))
    return secrets


def plain_types(value):
    """Booleans and whole numbers that a template turned into text, as what they are.

    ansible-core before 2.19 makes text of everything that passes a filter.
    """
    if isinstance(value, dict):
        return {key: plain_types(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain_types(inner) for inner in value]
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value
