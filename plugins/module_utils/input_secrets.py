# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that the variables lead to: which have to be there before anything is changed, and what is wrong with one.
Pure rules.
"""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding, readers, services_of, truth


def check_keys(given, was_set):
    """The roles make their Secrets only where there is an API key."""
    if given("riva_model_deploy_key") and not given("riva_ngc_api_key") and _fetching(given):
        return [
            finding(
                "riva_ngc_api_key",
                "riva_model_deploy_key is set and riva_ngc_api_key is not: no Secret would be made of it",
                "Set riva_ngc_api_key from a vault too. Where the Secrets exist already, remove riva_model_deploy_key.",
            )
        ]
    return []


def _fetching(given):
    """The services that fetch models from NGC before they start."""
    return [item for item in services_of(given) if item.get("models")]


def _value_of(given, service, *path):
    """A free value of a service's chart: its own, else that of riva_values."""
    for values in (service.get("values"), given("riva_values")):
        for key in path:
            values = values.get(key) if isinstance(values, dict) else None
        if values:
            return values
    return None


def secrets_needed(options: dict, variables: dict) -> list[dict]:
    """The Secrets that have to be there before anything is changed, since no role makes them.

    Each as {name, namespace, keys, variable, why}: `variable` names the Secret, or is what would have it made.
    """
    given, _was_set = readers(options, variables)
    found: dict[tuple[str, str], dict] = {}

    def need(namespace, name, keys, variable, why):
        secret = {"name": str(name), "namespace": namespace, "keys": keys, "variable": variable, "why": why}
        found.setdefault((namespace, str(name)), secret)

    namespace = given("riva_namespace")
    for item in _fetching(given):
        why = f"{item.get('name')} fetches models"
        own = _value_of(given, item, "modelInit", "apiKeySecret")
        if own or not given("riva_ngc_api_key"):
            need(namespace, own or "modelpullsecret", ["apikey"], "riva_ngc_api_key", why)
        own = _value_of(given, item, "modelInit", "deployKeySecret")
        if own or not given("riva_model_deploy_key"):
            need(namespace, own or "riva-model-deploy-key", ["key"], "riva_model_deploy_key", why)
    bucket = given("riva_model_bucket") or {}
    if isinstance(bucket, dict) and bucket.get("secret"):
        need(
            namespace,
            bucket["secret"],
            ["access_key_id", "secret_access_key"],
            "riva_model_bucket",
            "models are copied with it",
        )
    for name in given("riva_image_pull_secrets") or []:
        if name != "imagepullsecret" or not given("riva_ngc_api_key"):
            need(namespace, name, [".dockerconfigjson"], "riva_image_pull_secrets", "images are pulled with it")
    for item in services_of(given):
        if item.get("tls_secret"):
            need(
                namespace, item["tls_secret"], ["tls.crt", "tls.key"], "riva_services", f"{item.get('name')} serves it"
            )
    tls, front = given("traefik_tls"), given("traefik_namespace")
    if tls == "secret":
        need(front, given("traefik_tls_secret"), ["tls.crt", "tls.key"], "traefik_tls_secret", "traefik_tls is secret")
    if truth(given("traefik_mtls")) and tls in ("secret", "cert_manager"):
        need(front, given("traefik_mtls_ca_secret"), ["ca.crt"], "traefik_mtls_ca_secret", "traefik_mtls is true")
    if given("riva_exposure") == "metallb":
        for peer in given("metallb_bgp_peers") or []:
            if isinstance(peer, dict) and peer.get("password_secret"):
                why = f"peer {peer.get('name')} asks for it"
                need(given("metallb_namespace"), peer["password_secret"], ["password"], "metallb_bgp_peers", why)
    return list(found.values())


def check_secret(secret: dict, keys: set[str] | None, maker: str = "") -> list[dict]:
    """Findings of one of `secrets_needed`.

    keys: those that it has with a value, None where there is no such Secret; maker: the ExternalSecret that is to
    make it, in words.
    """
    name, namespace, variable = secret["name"], secret["namespace"], secret["variable"]
    wanted = ", ".join(secret["keys"])
    made = variable in ("riva_ngc_api_key", "riva_model_deploy_key")
    if keys is None and maker:
        message = f"Secret {namespace}/{name} is not there yet ({secret['why']}); {maker} is to make it"
        remedy = f"Look why it has not: kubectl -n {namespace} describe externalsecret."
        return [finding(variable, message, remedy, "warning")]
    if keys is None:
        remedy = f"Set {variable} from a vault, or make" if made else "Make"
        remedy += f" the Secret {name} in namespace {namespace} with {wanted}"
        remedy += "." if made else f", or correct {variable}."
        return [finding(variable, f"there is no Secret {namespace}/{name}, but {secret['why']}", remedy)]
    lacking = [key for key in secret["keys"] if key not in keys]
    if lacking:
        message = f"Secret {namespace}/{name} lacks {', '.join(lacking)}, but {secret['why']}"
        return [finding(variable, message, f"Make it anew, with {wanted}.")]
    return []
