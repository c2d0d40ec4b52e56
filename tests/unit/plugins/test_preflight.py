# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The look at the cluster before the first change: Secrets that no role makes have to be there."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.action.preflight import specs
from ansible_collections.speechops.riva.plugins.module_utils import input_secrets

NODE = {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "1"}}}
NONE = (404, {"kind": "Status", "code": 404, "message": "not found"})
DENIED = (403, {"kind": "Status", "code": 403, "message": "forbidden"})
MODELS = {"riva_services": [{"name": "asr", "models": ["nvidia/a:1"]}]}
SECRETS = "/api/v1/namespaces/riva/secrets"
EXTERNAL = "/apis/external-secrets.io/v1/namespaces/riva/externalsecrets"


def secret(*keys):
    return {"kind": "Secret", "data": dict.fromkeys(keys, "YQ==")}


@pytest.fixture
def looked_at(api, run_module):
    """Findings that are about Secrets, with these variables and these routes of the API server."""
    options, _roles = specs()

    def look(variables, routes):
        api.routes = {
            "/version": {"gitVersion": "v1.36.3"},
            "/apis": {"groups": [{"name": "apps"}, {"name": "autoscaling"}]},
            "/api/v1/nodes": {"kind": "NodeList", "metadata": {}, "items": [NODE]},
            **routes,
        }
        needed = input_secrets.secrets_needed(options, variables)
        told = run_module("preflight", api, secrets=needed)
        return [(item["status"], item["subject"], item["message"], item["remedy"]) for item in told["findings"]]

    return look


def test_models_without_keys_and_without_secrets_are_refused(looked_at):
    (first, second) = looked_at(MODELS, {})
    assert first[:2] == ("failed", "riva_ngc_api_key")
    assert "there is no Secret riva/modelpullsecret, but asr fetches models" in first[2]
    assert "Set riva_ngc_api_key from a vault, or make the Secret modelpullsecret" in first[3]
    assert second[:2] == ("failed", "riva_model_deploy_key")


def test_secrets_that_exist_are_as_good(looked_at):
    routes = {
        f"{SECRETS}/modelpullsecret": secret("apikey"),
        f"{SECRETS}/riva-model-deploy-key": secret("key"),
    }
    assert looked_at(MODELS, routes) == []


def test_a_secret_with_other_keys_is_not(looked_at):
    routes = {
        f"{SECRETS}/modelpullsecret": secret("api-key"),
        f"{SECRETS}/riva-model-deploy-key": secret("key"),
    }
    ((status, _variable, message, remedy),) = looked_at(MODELS, routes)
    assert status == "failed"
    assert "Secret riva/modelpullsecret lacks apikey" in message
    assert "with apikey" in remedy


def test_one_key_alone_is_said_too(looked_at):
    ((status, variable, _message, _remedy),) = looked_at({**MODELS, "riva_ngc_api_key": "nvapi-1"}, {})
    assert (status, variable) == ("failed", "riva_model_deploy_key")


def test_both_keys_make_the_secrets(looked_at):
    assert looked_at({**MODELS, "riva_ngc_api_key": "nvapi-1", "riva_model_deploy_key": "k"}, {}) == []


def test_other_names_in_the_chart_s_values_hold(looked_at):
    given = {**MODELS, "riva_values": {"modelInit": {"apiKeySecret": "mine", "deployKeySecret": "mine"}}}
    ((_status, _variable, message, _remedy),) = looked_at(given, {f"{SECRETS}/other": secret("apikey")})
    assert "riva/mine" in message


@pytest.mark.parametrize(("target", "words"), [({"name": "modelpullsecret"}, 1), ({}, 0)])
def test_an_external_secret_that_is_to_make_it_is_a_warning(looked_at, target, words):
    item = {"metadata": {"name": "ngc" if target else "modelpullsecret"}, "spec": {"target": target}}
    routes = {
        EXTERNAL: {"kind": "ExternalSecretList", "metadata": {}, "items": [item]},
        f"{SECRETS}/riva-model-deploy-key": secret("key"),
    }
    ((status, _variable, message, remedy),) = looked_at(MODELS, routes)
    assert status == "warning"
    assert f"ExternalSecret {item['metadata']['name']} is to make it" in message
    assert "describe externalsecret" in remedy


def test_an_external_secret_for_something_else_is_no_excuse(looked_at):
    item = {"metadata": {"name": "other"}, "spec": {}}
    routes = {
        EXTERNAL: {"kind": "ExternalSecretList", "metadata": {}, "items": [item]},
        f"{SECRETS}/riva-model-deploy-key": secret("key"),
    }
    ((status, *_rest),) = looked_at(MODELS, routes)
    assert status == "failed"


def test_who_may_not_see_secrets_is_not_told_that_they_are_missing(looked_at):
    routes = {f"{SECRETS}/modelpullsecret": DENIED, f"{SECRETS}/riva-model-deploy-key": DENIED}
    assert looked_at(MODELS, routes) == []


GIVEN = [
    ({"riva_model_bucket": {"path": "speech/a100", "secret": "bucket"}}, "riva", "bucket", "riva_model_bucket"),
    ({"riva_image_pull_secrets": ["mine"]}, "riva", "mine", "riva_image_pull_secrets"),
    ({"traefik_tls": "secret"}, "traefik", "riva-tls", "traefik_tls_secret"),
    (
        {"traefik_tls": "cert_manager", "traefik_mtls": True, "traefik_mtls_ca_secret": "ca"},
        "traefik",
        "ca",
        "traefik_mtls_ca_secret",
    ),
    ({"riva_services": [{"name": "a", "tls_secret": "own"}]}, "riva", "own", "riva_services"),
    (
        {
            "riva_exposure": "metallb",
            "metallb_bgp_peers": [{"name": "tor", "password_secret": "bgp"}],
        },
        "metallb-system",
        "bgp",
        "metallb_bgp_peers",
    ),
]


@pytest.mark.parametrize(("variables", "namespace", "name", "variable"), GIVEN)
def test_each_secret_that_a_variable_names_is_looked_for(looked_at, variables, namespace, name, variable):
    ((status, subject, message, _remedy),) = looked_at(variables, {})
    assert (status, subject) == ("failed", variable)
    assert f"{namespace}/{name}" in message


def test_both_keys_of_a_bucket_are_looked_for(looked_at):
    bucket = {"riva_model_bucket": {"path": "speech/a100", "secret": "bucket"}}
    ((status, _variable, message, _remedy),) = looked_at(bucket, {f"{SECRETS}/bucket": secret("access_key_id")})
    assert status == "failed"
    assert "Secret riva/bucket lacks secret_access_key" in message
    keys = secret("access_key_id", "secret_access_key")
    assert looked_at(bucket, {f"{SECRETS}/bucket": keys}) == []


def test_what_is_in_a_secret_is_not_told(api, run_module, capsys):
    api.routes = {
        "/version": {"gitVersion": "v1.36.3"},
        "/apis": {"groups": [{"name": "apps"}]},
        "/api/v1/nodes": {"kind": "NodeList", "metadata": {}, "items": [NODE]},
        f"{SECRETS}/mine": {"kind": "Secret", "data": {"other": "aHVzaA=="}},
    }
    needed = [{"name": "mine", "namespace": "riva", "keys": ["key"], "variable": "x", "why": "y"}]
    told = run_module("preflight", api, secrets=needed)
    assert told["api_groups"] == ["apps"]
    assert told["findings"]
    assert "aHVzaA" not in str(told)
