# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which rule of `input_shapes` each variable has, by its name. What several variables say together is in
`input_contradictions`.
"""

from __future__ import annotations

import fnmatch
import re

from ansible_collections.speechops.riva.plugins.module_utils.input_shapes import (
    Problem,
    Rule,
    absolute_path,
    address,
    address_range,
    between,
    bucket_path,
    chart_digest,
    chart_version,
    driver_version,
    environment,
    fingerprint,
    header_name,
    helm_version,
    host,
    host_or_address,
    image,
    image_tag,
    label,
    labels,
    license_text,
    model,
    node_port,
    package_version,
    port,
    quantity,
    release,
    resource_name,
    resources,
    secret,
    service_name,
    sha256,
    subdomain,
    url,
)

_LONG = 7 * 24 * 3600
_MINUTES = between(1, _LONG, "seconds")
_repository = url("https", "http")
_any_source = url("https", "http", "file")

# By variable and key, the first that fits; positions in lists are left out.
RULES: tuple[tuple[str, Rule], ...] = (
    ("riva_services.name", service_name),
    ("riva_services.models", model),
    ("riva_services.gpus", between(0, 64)),
    ("riva_services.min_replicas", between(0, 10000)),
    ("riva_services.max_replicas", between(1, 10000)),
    ("riva_services.stream_limit", between(1, 100000)),
    ("riva_services.planned_streams", between(1, 100000)),
    ("riva_services.spare_pods", between(0, 1000)),
    ("riva_services.model_load_seconds", between(0.001, _LONG, "seconds")),
    ("riva_services.cold_start_seconds", between(0.001, _LONG, "seconds")),
    ("riva_services.longest_stream_seconds", between(1, _LONG, "seconds")),
    ("riva_services.latency_objective_ms", between(1, 600000, "milliseconds")),
    ("riva_services.queue_time_target_ms", between(0.001, 600000, "milliseconds")),
    ("riva_services.host", host),
    ("riva_services.header.name", header_name),
    ("riva_services.tls_secret", subdomain),
    ("riva_services.env", environment),
    ("riva_model_store.size", quantity),
    ("riva_model_store.host_path", absolute_path),
    ("riva_model_store.existing_claim", subdomain),
    ("riva_model_store.storage_class", subdomain),
    ("riva_model_bucket.path", bucket_path),
    ("riva_model_bucket.endpoint", url("https", "http", path=False)),
    ("riva_model_bucket.secret", subdomain),
    ("riva_image_repository", image),
    ("riva_image_tag", image_tag),
    ("riva_image_pull_secrets", subdomain),
    ("riva_ngc_api_key", secret),
    ("riva_model_deploy_key", secret),
    ("riva_chunk_ms", between(1, 60000, "milliseconds")),
    ("riva_latency_objective_ms", between(1, 600000, "milliseconds")),
    ("riva_queue_time_target_ms", between(0, 600000, "milliseconds")),
    ("riva_scrape_interval", between(1, 600, "seconds")),
    ("riva_ingress_class", subdomain),
    ("riva_gateway.name", subdomain),
    ("riva_gateway.namespace", label),
    ("riva_gateway.section", label),
    ("riva_streams_per_client", between(0)),
    ("riva_streams_at_once", between(0)),
    ("riva_new_streams_per_second", between(0)),
    ("riva_auth_address", _repository),
    ("riva_auth_headers", header_name),
    ("traefik_ingress_class", subdomain),
    ("traefik_watched_namespaces", label),
    ("traefik_replicas", between(1, 1000)),
    ("traefik_resources", resources),
    ("traefik_address", address),
    ("traefik_grpc_port", port),
    ("traefik_node_port", node_port),
    ("traefik_max_concurrent_streams", between(1, 2**31 - 1)),
    ("traefik_max_header_bytes", between(1024, 2**24, "bytes")),
    ("traefik_connections_per_client", between(0)),
    ("traefik_accept_grace_seconds", between(0, 3600, "seconds")),
    ("traefik_grace_seconds", between(0, _LONG, "seconds")),
    ("traefik_tls_secret", subdomain),
    ("traefik_mtls_ca_secret", subdomain),
    ("traefik_tls_names", host_or_address),
    ("traefik_tls_days", between(1, 3650, "days")),
    ("traefik_tls_renew_days", between(1, 3650, "days")),
    ("metallb_pools.name", subdomain),
    ("metallb_pools.addresses", address_range),
    ("metallb_bgp_peers.name", subdomain),
    ("metallb_bgp_peers.address", address),
    ("metallb_bgp_peers.asn", between(1, 2**32 - 1)),
    ("metallb_bgp_peers.own_asn", between(1, 2**32 - 1)),
    ("metallb_bgp_peers.password_secret", subdomain),
    ("metallb_node_labels", labels),
    ("prometheus_adapter_prometheus_url", url("http", "https", port=False)),
    ("prometheus_adapter_prometheus_port", port),
    ("riva_nim_metrics_port", port),
    ("prometheus_adapter_scrape_interval", between(1, 600, "seconds")),
    ("gpu_operator_licence_token", license_text),
    ("gpu_operator_ngc_api_key", secret),
    ("gpu_operator_driver_version", driver_version),
    ("gpu_operator_pull_secret", subdomain),
    ("gpu_operator_replicas", between(1, 64)),
    ("nvidia_device_plugin_replicas", between(1, 64)),
    ("nvidia_device_plugin_groups.replicas", between(1, 64)),
    ("gpu_operator_groups.replicas", between(1, 64)),
    ("gpu_operator_groups.resources", resource_name),
    ("gpu_operator_groups.nodes", subdomain),
    ("nvidia_device_plugin_groups.resources", resource_name),
    ("nvidia_device_plugin_groups.nodes", subdomain),
    ("nvidia_device_plugin_resource", resource_name),
    ("nvidia_device_plugin_runtime_class", subdomain),
    ("nvidia_driver_branch", between(390, 9999)),
    ("nvidia_driver_version", driver_version),
    ("nvidia_driver_toolkit_version", package_version),
    ("nvidia_driver_*_fingerprint", fingerprint),
    ("nvidia_driver_repository_*", _any_source),
    ("nvidia_driver_toolkit_repository_*", _any_source),
    ("nvidia_driver_proxy", _repository),
    ("nvidia_driver_min_free_mib", between(0)),
    ("nvidia_driver_node_name", subdomain),
    ("helm_version", helm_version),
    ("helm_mirror", _any_source),
    ("helm_download_url", _any_source),
    ("helm_checksum", sha256),
    ("*_expected_nodes", between(0, 100000)),
    ("*_expected_gpus", between(0, 1000000)),
    ("*_namespace", label),
    ("*_release_name", release),
    ("*_chart_version", chart_version),
    ("*_chart_digest", chart_digest),
    ("*_chart_repo_url", _repository),
    ("*_seconds", _MINUTES),
    ("*_timeout", _MINUTES),
)
# Text of several lines is right here.
_LINES = {"gpu_operator_licence_token"}
# Free text: what is in it is the other side's business.
_FREE = ("*.env.*", "*_values*", "*.values*", "nvidia_driver_reboot_command", "gpu_operator_toolkit_environment*")


def place(name: str) -> str:
    """riva_services[0].models[2] is riva_services.models."""
    return re.sub(r"\[\d+\]", "", name)


def rule_of(name: str) -> Rule | None:
    """The rule for a variable, or for a key of one."""
    where = place(name)
    for pattern, rule in RULES:
        if fnmatch.fnmatchcase(where, pattern):
            return rule
    return None


def plain_text(name: str, value: str) -> Problem:
    """What is wrong with any text that is one line: blanks around it, line ends, control characters."""
    where = place(name)
    if where in _LINES or any(fnmatch.fnmatchcase(where, pattern) for pattern in _FREE):
        return None
    if value != value.strip():
        return "has a blank or a line end before or after it", "Remove what is around it."
    control = next((c for c in value if ord(c) < 32 or ord(c) == 127), None)
    return (f"has U+{ord(control):04X} in it", "Remove the control character.") if control else None


def problem(name: str, value: object) -> Problem:
    """What is wrong with a value of the right type, and what would be right; None where nothing is."""
    rule = rule_of(name)
    secretive = rule in (secret, license_text)
    if isinstance(value, str) and not secretive:
        wrong = plain_text(name, value)
        if wrong:
            return wrong
    if rule is None or value is None or value == "" or isinstance(value, list):
        return None
    return rule(value)
