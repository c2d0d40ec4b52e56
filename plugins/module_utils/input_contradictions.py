# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Variables that are right alone and wrong together, also across roles. Pure rules.

Each check takes `given`, a function from a variable's name to its value (what was set, else the role's default), and
`was_set`, the names that the inventory or the command line set. Types and single values are checked before.
"""

from __future__ import annotations

import re

from ansible_collections.speechops.riva.plugins.module_utils import chart_sources, device_plugin, input_shapes
from ansible_collections.speechops.riva.plugins.module_utils.input_secrets import check_keys
from ansible_collections.speechops.riva.plugins.module_utils.inputs import finding, readers, services_of, truth

ADAPTER_URL = "prometheus_adapter_prometheus_url"
RELEASES = (
    "gpu_operator",
    "keda",
    "kube_prometheus_stack",
    "metallb",
    "nvidia_device_plugin",
    "prometheus_adapter",
    "traefik",
)
# What a GRPCRoute of the Gateway API can't express.
ROUTE_LIMITS = (
    "riva_allowed_sources",
    "riva_streams_per_client",
    "riva_streams_at_once",
    "riva_new_streams_per_second",
    "riva_auth_address",
)
# What counts or lists clients by their address, which Traefik then has to see.
BY_ADDRESS = (
    "riva_allowed_sources",
    "riva_streams_per_client",
    "riva_new_streams_per_second",
    "traefik_connections_per_client",
)


def check_together(options: dict, variables: dict) -> list[dict]:
    """Findings of all variables of one cluster, taken together.

    options: {variable: entry of an argument spec}; variables: what the inventory and the command line set.
    """
    given, was_set = readers(options, variables)
    found = [item for check in CHECKS for item in check(given, was_set)]
    return found + check_chart_digests(options, variables)


def check_waits(given, was_set):
    """A wait that ends before what it waits for may."""
    found = []
    load, wait = int(given("riva_model_load_seconds")), int(given("riva_timeout"))
    if wait <= load:
        found.append(
            finding(
                "riva_timeout",
                f"riva_timeout is {wait}, and riva_model_load_seconds lets a pod load its models for {load} s: the "
                "role "
                "would give up first",
                f"Set riva_timeout to {load + 300} or more.",
            )
        )
    for item in services_of(given):
        measured = float(item.get("model_load_seconds") or 0)
        if measured > load:
            found.append(
                finding(
                    "riva_services",
                    f"{item.get('name')}: model_load_seconds is {measured:g}, more than riva_model_load_seconds "
                    f"({load}): "
                    "its pods would be started anew before they are ready",
                    f"Set riva_model_load_seconds to {int(measured * 2)} or more.",
                )
            )
    days, renew = int(given("traefik_tls_days")), int(given("traefik_tls_renew_days"))
    if renew >= days:
        found.append(
            finding(
                "traefik_tls_renew_days",
                f"traefik_tls_renew_days is {renew}, and a certificate lasts traefik_tls_days ({days}): it would be "
                "made "
                "anew by each run",
                f"Set traefik_tls_renew_days to {max(days // 3, 1)}, a third of traefik_tls_days.",
            )
        )
    return found


def check_gpu_stack(given, was_set):
    found = []
    if given("gpu_stack") == "operator" and not truth(given("gpu_operator_enabled")):
        found.append(
            finding(
                "gpu_operator_enabled",
                "gpu_stack is operator and gpu_operator_enabled is false",
                "Remove gpu_operator_enabled, or set gpu_stack to preinstalled.",
            )
        )
    for role in ("gpu_operator", "nvidia_device_plugin"):
        settings = {
            "sharing": given(f"{role}_sharing"),
            "replicas": given(f"{role}_replicas"),
            "mig_strategy": given(f"{role}_mig_strategy") if f"{role}_mig_strategy" in was_set else "none",
        }
        groups = given("nvidia_device_plugin_groups") if role == "nvidia_device_plugin" else []
        for words in device_plugin.problems(settings, groups or []):
            what, _semicolon, right = words.replace("nvidia_device_plugin", role, 1).partition("; ")
            subject = f"{role}_groups" if "_groups" in what else f"{role}_replicas"
            remedy = f"{right[:1].upper()}{right[1:]}." if right else f"Correct {subject}."
            found.append(finding(subject, what, remedy))
        nodes, gpus = given(f"{role}_expected_nodes"), given(f"{role}_expected_gpus")
        if int(gpus) < int(nodes):
            found.append(
                finding(
                    f"{role}_expected_gpus",
                    f"{role}_expected_gpus is {gpus}, less than {role}_expected_nodes ({nodes})",
                    f"Count GPUs, not nodes: set {role}_expected_gpus to {nodes} or more.",
                )
            )
    if str(given("nvidia_device_plugin_namespace")) == "default":
        found.append(
            finding(
                "nvidia_device_plugin_namespace",
                "nvidia_device_plugin_namespace is default, which the chart refuses",
                "Leave it out, or name a namespace of its own.",
            )
        )
    return found


def check_enterprise(given, was_set):
    if given("gpu_operator_edition") != "enterprise" or given("gpu_stack") in ("manual", "preinstalled"):
        return []
    found = []
    if not given("gpu_operator_ngc_api_key") and not given("riva_ngc_api_key"):
        found.append(
            finding(
                "gpu_operator_ngc_api_key",
                "gpu_operator_edition is enterprise, and neither gpu_operator_ngc_api_key nor riva_ngc_api_key is "
                "set: its "
                "images could not be pulled",
                "Set gpu_operator_ngc_api_key from a vault.",
            )
        )
    return found


def check_driver(given, was_set):
    found = []
    version, branch = str(given("nvidia_driver_version") or ""), given("nvidia_driver_branch")
    if version and "nvidia_driver_branch" in was_set and version.split(".")[0] != str(branch):
        found.append(
            finding(
                "nvidia_driver_branch",
                f"nvidia_driver_branch is {branch} and nvidia_driver_version is {version}",
                "Leave nvidia_driver_branch out: the version decides it.",
            )
        )
    key, certificate = given("nvidia_driver_mok_key"), given("nvidia_driver_mok_certificate")
    if bool(key) != bool(certificate):
        there, missing = ("key", "certificate") if key else ("certificate", "key")
        found.append(
            finding(
                f"nvidia_driver_mok_{missing}",
                f"nvidia_driver_mok_{there} is set and nvidia_driver_mok_{missing} is not",
                "DKMS signs with both: set the other one too.",
            )
        )
    return found


def check_monitoring(given, was_set):
    """The adapter asks the Prometheus that kube_prometheus_stack installs, and as often as it scrapes."""
    found = []
    namespace = given("kube_prometheus_stack_namespace")
    if namespace != "monitoring" and ADAPTER_URL not in was_set:
        found.append(
            finding(
                ADAPTER_URL,
                f"kube_prometheus_stack_namespace is {namespace}, but {ADAPTER_URL} still names the namespace "
                "monitoring",
                f"Set {ADAPTER_URL} to http://kube-prometheus-stack-prometheus.{namespace}.svc.",
            )
        )
    scrape, looks = given("riva_scrape_interval"), given("prometheus_adapter_scrape_interval")
    if looks is not None and int(looks) < int(scrape):
        found.append(
            finding(
                "prometheus_adapter_scrape_interval",
                f"prometheus_adapter_scrape_interval is {looks}, but the services are scraped every {scrape} s "
                "(riva_scrape_interval): rates over four scrapes would often have none to look at",
                "Leave prometheus_adapter_scrape_interval out; it follows riva_scrape_interval.",
            )
        )
    return found


def check_routes(given, was_set):
    """A route reaches clients only where the Traefik that is installed looks for it."""
    found = []
    kind, namespace = given("riva_route_kind"), given("riva_namespace")
    watched = given("traefik_watched_namespaces")
    if kind == "IngressRoute" and watched is not None and namespace not in watched:
        found.append(
            finding(
                "traefik_watched_namespaces",
                f"traefik_watched_namespaces is {watched}, without riva_namespace ({namespace}): Traefik would not "
                "see the "
                "routes",
                f"Add {namespace} to it, or leave it out.",
            )
        )
    mine, served = given("riva_ingress_class"), given("traefik_ingress_class")
    if kind == "IngressRoute" and mine is not None and mine != served:
        found.append(
            finding(
                "riva_ingress_class",
                f"riva_ingress_class is {mine}, but the Traefik that is installed serves traefik_ingress_class "
                f"({served})",
                "Leave riva_ingress_class out; it follows traefik_ingress_class.",
            )
        )
    limits = [name for name in ROUTE_LIMITS if given(name)]
    if kind == "GRPCRoute" and limits:
        found.append(
            finding(
                limits[0],
                f"riva_route_kind is GRPCRoute, which has no place for {', '.join(limits)}: calls would not be limited",
                "Take riva_route_kind IngressRoute, or limit calls at your Gateway and remove "
                f"{'it' if len(limits) == 1 else 'them'} here.",
            )
        )
    by_address = [name for name in BY_ADDRESS if given(name)]
    seen = given("traefik_client_addresses")
    if by_address and seen is not None and not truth(seen):
        found.append(
            finding(
                "traefik_client_addresses",
                f"traefik_client_addresses is false, and {', '.join(by_address)} goes by addresses: Traefik would see "
                "those "
                "of nodes",
                "Leave traefik_client_addresses out; it is true then.",
            )
        )
    return found


def check_exposure(given, was_set):
    found = []
    exposure = given("riva_exposure")
    if exposure in ("nodeport", "hostport") and given("traefik_address"):
        found.append(
            finding(
                "traefik_address",
                f"traefik_address is {given('traefik_address')}, but with riva_exposure {exposure} there is no load "
                "balancer "
                "to give it",
                "Remove traefik_address, or take another riva_exposure.",
            )
        )
    if exposure == "hostport" and int(given("traefik_node_port") or 0):
        found.append(
            finding(
                "traefik_node_port",
                f"traefik_node_port is {given('traefik_node_port')}, but riva_exposure hostport has no node port",
                "Remove traefik_node_port; clients connect to traefik_grpc_port of the nodes.",
            )
        )
    port = int(given("traefik_node_port") or 0)
    low, high = input_shapes.NODE_PORTS
    if port and not low <= port <= high:
        found.append(
            finding(
                "traefik_node_port",
                f"traefik_node_port is {port}, outside of {low} to {high}, Kubernetes' own range",
                "Take a port of that range, unless the API server has another --service-node-port-range.",
                "warning",
            )
        )
    if given("metallb_mode") == "bgp" and exposure == "metallb" and not given("metallb_bgp_peers"):
        found.append(
            finding(
                "metallb_bgp_peers",
                "metallb_mode is bgp and metallb_bgp_peers is empty: nobody would learn of the addresses",
                "Set metallb_bgp_peers to a list such as "
                "[{name: tor, address: 192.0.2.1, asn: 64512, own_asn: 64513}].",
            )
        )
    if given("metallb_mode") == "l2" and given("metallb_bgp_peers"):
        found.append(
            finding(
                "metallb_mode",
                "metallb_bgp_peers is set and metallb_mode is l2, which has no peers",
                "Set metallb_mode to bgp, or remove metallb_bgp_peers.",
            )
        )
    return found


def check_model_store(given, was_set):
    store = given("riva_model_store")
    if not isinstance(store, dict):
        return []
    found, kind = [], store.get("type")
    belongs = {
        "host_path": "hostPath",
        "existing_claim": "pvc",
        "size": "pvc",
        "storage_class": "pvc",
        "access_modes": "pvc",
    }
    for key, home in belongs.items():
        if store.get(key) and kind != home:
            found.append(
                finding(
                    f"riva_model_store.{key}",
                    f"riva_model_store has {key}, but its type is {kind}",
                    f"Set type to {home}, or remove {key}.",
                )
            )
    if kind == "hostPath" and "riva_model_store" in was_set and not store.get("host_path"):
        found.append(
            finding(
                "riva_model_store.host_path",
                "riva_model_store is of type hostPath and lacks host_path",
                "Add host_path, such as /var/lib/riva.",
            )
        )
    if store.get("existing_claim") and (store.get("size") or store.get("storage_class")):
        found.append(
            finding(
                "riva_model_store.existing_claim",
                "riva_model_store names existing_claim, and size or storage_class of a claim that would be made",
                "Remove existing_claim to have a claim made, or the others to use the one that is there.",
            )
        )
    modes = store.get("access_modes") or []
    known = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
    for mode in modes:
        if mode not in known:
            found.append(
                finding(
                    "riva_model_store.access_modes",
                    f"riva_model_store.access_modes has {mode!r}",
                    f"Take one of: {', '.join(known)}.",
                )
            )
    most = max([int(item.get("max_replicas") or 3) for item in services_of(given)] or [0])
    if modes and not {"ReadWriteMany", "ReadOnlyMany"} & set(modes) and most > 1:
        found.append(
            finding(
                "riva_model_store.access_modes",
                f"riva_model_store.access_modes is {', '.join(map(str, modes))}, and a service may grow to {most} "
                "pods: a "
                "second one could not run on another node",
                "Take ReadWriteMany, or hostPath, or a max_replicas of 1.",
                "warning",
            )
        )
    return found


def check_model_bucket(given, was_set):
    """A bucket without a name, or one that no service would take its models from."""
    bucket = given("riva_model_bucket")
    if not bucket or not isinstance(bucket, dict):
        return []
    if not bucket.get("path"):
        remedy = "Add path, the bucket and its folder, such as speech/a100."
        return [finding("riva_model_bucket.path", "riva_model_bucket lacks path", remedy)]
    services = services_of(given)
    if any((item.get("engine") or given("riva_engine")) != "nim" and not item.get("models") for item in services):
        return []
    return [
        finding(
            "riva_model_bucket",
            "riva_model_bucket is set, and no service takes its models from there: each is a NIM or names models",
            "Remove riva_model_bucket, or models of the services whose models the bucket has.",
        )
    ]


def check_helm(given, was_set):
    found = []
    if given("helm_download_url") and "helm_mirror" in was_set:
        found.append(
            finding(
                "helm_download_url",
                "helm_download_url and helm_mirror are both set, and only the first would be used",
                "Remove one of them.",
            )
        )
    for name in sorted(was_set):
        if not name.endswith("_chart_version") or given(name):
            continue
        reference = str(given(name.replace("_version", "_ref")) or "")
        if reference and not chart_sources.is_path(reference):
            found.append(
                finding(
                    name,
                    f"{name} is empty, and the chart {reference} comes from a repository: any version would do",
                    f"Set {name} to an exact version, or leave it out for the one that was tested.",
                )
            )
    return found


def check_chart_digests(options: dict, variables: dict) -> list[dict]:
    """A chart from elsewhere of which nothing says what bytes it has, or only what those of another version were."""
    given, was_set = readers(options, variables)
    found = []
    for prefix in sorted(
        {name.partition("_chart_")[0] for name in was_set if re.search("_chart_(ref|version|digest)$", name)}
    ):
        version, digest = f"{prefix}_chart_version", f"{prefix}_chart_digest"
        reference = str(given(f"{prefix}_chart_ref") or "")
        if not reference or chart_sources.is_path(reference):
            continue
        tested = options.get(version, {}).get("default")
        source = chart_sources.Source(reference, str(given(version) or ""), "", str(given(digest) or ""), digest)
        wrong = chart_sources.problem(source)
        if not wrong and digest not in was_set and given(version) and given(version) != tested:
            wrong = (
                f"{version} is {given(version)}, and {digest} is still the one of {tested}",
                f"Set {digest} beside it, to the SHA-256 of the chart's tgz file ({chart_sources.HOW_TO_PIN}).",
            )
        if wrong:
            found.append(finding(digest, *wrong))
    return found


def check_releases(given, was_set):
    """Two releases of one name in one namespace would overwrite each other."""
    taken: dict[tuple, str] = {}
    found = []
    named = [(given(f"{r}_namespace"), given(f"{r}_release_name"), f"{r}_release_name") for r in RELEASES]
    named += [(given("riva_namespace"), item.get("name"), "riva_services") for item in services_of(given)]
    for namespace, name, variable in named:
        other = taken.setdefault((namespace, name), variable)
        if other != variable:
            found.append(
                finding(
                    variable,
                    f"{variable} and {other} both name release {name} in namespace {namespace}",
                    f"Give one of them another name or another namespace: "
                    f"{variable.replace('_release_name', '_namespace')}.",
                )
            )
    return found


CHECKS = (
    check_waits,
    check_gpu_stack,
    check_enterprise,
    check_driver,
    check_monitoring,
    check_routes,
    check_exposure,
    check_model_store,
    check_model_bucket,
    check_helm,
    check_releases,
    check_keys,
)
