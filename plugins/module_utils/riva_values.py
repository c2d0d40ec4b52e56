# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a speech service of the inventory to the values of its release, and to NGC's secrets. Pure rules."""

from __future__ import annotations

import base64
import json

from ansible_collections.speechops.riva.plugins.module_utils import scaling_plan
from ansible_collections.speechops.riva.plugins.module_utils.way_in import route_values

SPEECH = ("asr", "nlp", "nmt", "tts")
MODEL_STORE = {
    "type": "type",
    "host_path": "hostPath",
    "existing_claim": "existingClaim",
    "size": "size",
    "storage_class": "storageClass",
    "access_modes": "accessModes",
}


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


def chart_values(service, settings, extra=None):
    """Values of one speech service: the role's settings, over them the service's own, over them free values."""
    scaling = scaling_plan.chart_values(scaling_plan.plan(service, settings.get("calibration"), settings))
    values = {
        "image": {"repository": settings["image_repository"], "tag": str(settings["image_tag"])},
        "imagePullSecrets": list(settings.get("image_pull_secrets") or []),
        "speechServices": {name: name in (service.get("speech") or ["asr"]) for name in SPEECH},
        "env": dict(service.get("env") or {}),
        "gpus": number(service.get("gpus", 1)),
        "modelStore": {MODEL_STORE[key]: value for key, value in settings["model_store"].items()},
        "modelLoadSeconds": number(settings["model_load_seconds"]),
        "serviceMonitor": {"interval": f"{number(settings['scrape_interval'])}s"},
        **scaling,
        **route_values(service, settings),
    }
    if service.get("models"):
        values["modelInit"] = {"enabled": True, "models": list(service["models"])}
    return merged(merged(values, extra), service.get("values"))


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
