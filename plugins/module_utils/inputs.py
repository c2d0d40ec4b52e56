# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the variables that a user set known, of the right type and free of contradiction. Pure rules."""

from __future__ import annotations

import difflib
import math
import re

from ansible_collections.speechops.riva.plugins.module_utils import input_rules

CHECK = "inputs"

_TYPES = {
    "str": "a text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
}


# Empty is an answer of its own here, other than the default.
MAY_BE_EMPTY = {"nvidia_device_plugin_runtime_class"}


def finding(subject, message, remedy, status="failed"):
    return {"check": CHECK, "subject": subject, "status": status, "message": message, "remedy": remedy}


def nearest(name, known):
    """The known name most like this one, or None where none is like it."""
    close = difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=0.75)
    return close[0] if close else None


def _shown(value):
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _is(kind, value):
    if kind in ("str", "path"):
        # 2.20 is 2.2 by the time it is seen, and no is False: such texts need their quotes.
        return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in ("true", "false", "yes", "no")
    if kind == "int":
        # As Ansible itself takes it: 3 and "3", but neither 3.0 nor "1e3".
        if isinstance(value, str):
            return bool(re.fullmatch(r"[+-]?[0-9]+", value))
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        try:
            return not isinstance(value, bool) and "_" not in str(value) and math.isfinite(float(value))
        except (TypeError, ValueError, OverflowError):
            return False
    if kind == "list":
        return isinstance(value, list)
    if kind == "dict":
        return isinstance(value, dict)
    return True


def _secret(option):
    return bool(option.get("no_log"))


def check_value(name, option, value):
    """Findings of one variable against its entry in an argument spec; goes into lists and mappings."""
    if value is None or value == "":
        if option.get("required"):
            return [finding(name, f"{name} is empty", f"Set {name}: {_about(option)}")]
        default = option.get("default")
        if default not in (None, "") and name not in MAY_BE_EMPTY and not (value == "" and name.endswith("_version")):
            right = "nothing" if default in ([], {}) else _shown(default)
            return [
                finding(name, f"{name} is empty", f"Remove {name}, which then is {right}, or set it: {_about(option)}")
            ]
        return []
    kind = option.get("type", "str")
    shown = "a secret value" if _secret(option) else "something" if name.endswith(".env") else _shown(value)
    if not _is(kind, value):
        quotes = " Put it in quotes." if kind in ("str", "path") and isinstance(value, bool | float) else ""
        return [
            finding(
                name,
                f"{name} is {shown}, which is not {_TYPES.get(kind, kind)}",
                f"Set {name} to {_TYPES.get(kind, kind)}: {_about(option)}{quotes}",
            )
        ]
    choices = option.get("choices")
    if choices and kind != "list" and value not in choices:
        return [_not_a_choice(name, shown, choices)]
    if kind == "list":
        return _check_list(name, option, value)
    if kind == "dict" and option.get("options"):
        return _check_mapping(name, option["options"], value)
    wrong = input_rules.problem(name, value)
    if not wrong:
        return []
    # What a mapping holds is not shown: there may be a secret in it, and that may be what is wrong.
    what = f"{name} {wrong[0]}" if kind == "dict" else f"{name} is {shown}, which {wrong[0]}"
    return [finding(name, what, wrong[1])]


def _about(option):
    words = option.get("description", "")
    words = words[0] if isinstance(words, list) and words else words
    return " ".join(str(words).split())


def _not_a_choice(name, shown, choices):
    allowed = ", ".join(str(c) for c in choices)
    return finding(name, f"{name} is {shown}", f"Set {name} to one of: {allowed}")


def _check_list(name, option, value):
    found = []
    for position, element in enumerate(value):
        place = f"{name}[{position}]"
        entry = {key: option[key] for key in ("options", "choices", "no_log") if key in option}
        entry["type"] = option.get("elements", "raw")
        entry["required"] = True
        found.extend(check_value(place, entry, element))
    return found


def _check_mapping(name, options, value):
    found = []
    for key, inner in value.items():
        if key not in options:
            found.append(_unknown(f"{name}.{key}", key, options, f"key of {name}"))
            continue
        found.extend(check_value(f"{name}.{key}", options[key], inner))
    for key, option in options.items():
        if option.get("required") and key not in value:
            found.append(
                finding(
                    f"{name}.{key}",
                    f"{name} lacks {key}",
                    f"Add {key}: {_about(option)}",
                )
            )
    return found


def _unknown(subject, name, known, what):
    like = nearest(name, known)
    remedy = f"Did you mean {like}? " if like else ""
    remedy += "" if like else "Remove it, or take one of: {}. ".format(", ".join(sorted(known)))
    return finding(subject, f"{subject} is not a known {what}", remedy.strip())


def _looks_ours(name, options, prefixes):
    if any(name.startswith(prefix + "_") for prefix in prefixes):
        return True
    return bool(difflib.get_close_matches(name, sorted(options), n=1, cutoff=0.9))


def check_variables(options, prefixes, variables):
    """Findings of all variables of one cluster.

    options: {variable: entry of an argument spec}; prefixes: the roles' names; variables: what the inventory
    and the command line set. A variable with a role's prefix that no role knows is a mistake; another one that
    looks like a known name too.
    """
    found = []
    for name in sorted(variables):
        if name in options:
            found.extend(check_value(name, options[name], variables[name]))
        elif _looks_ours(name, options, prefixes):
            found.append(_unknown(name, name, options, "variable of the roles"))
    for name, option in sorted(options.items()):
        if option.get("required") and name not in variables and "default" not in option:
            found.append(finding(name, f"{name} is not set", f"Set {name}: {_about(option)}"))
    return found


def check_services(services):
    """Findings of riva_services taken together: what a type check cannot see."""
    if not isinstance(services, list):
        return []
    found = []
    services = [s for s in services if isinstance(s, dict)]
    names = [s.get("name") or "" for s in services]
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        what = f"{names.count(name)} speech services have the same name ({name})"
        found.append(finding("riva_services", what, "Give each item of riva_services its own name."))
    routes = [_calls(s) for s in services]
    for route in sorted({route for route in routes if routes.count(route) > 1}):
        what = f"{routes.count(route)} speech services answer to the same host ({route})"
        found.append(finding("riva_services", what, "Give each item of riva_services its own host, or header."))
    for service in services:
        low, high = service.get("min_replicas"), service.get("max_replicas")
        if low is not None and high is not None and _is("int", low) and _is("int", high) and int(low) > int(high):
            found.append(
                finding(
                    "riva_services",
                    "{}: min_replicas {} is more than max_replicas {}".format(service.get("name"), low, high),
                    f"Set max_replicas to {low} or more.",
                )
            )
    return found


def _calls(service):
    """Which calls go to a service, in words: by host name, header, or any."""
    header = service.get("header")
    words = f"header {header.get('name')}: {header.get('value')}" if isinstance(header, dict) and header else ""
    return ", ".join(part for part in (str(service.get("host") or ""), words) if part) or "any"


def as_text(findings):
    """The findings as a message: what is wrong, and under it what to do."""
    lines = []
    for item in findings:
        lines.append("{}: {}".format(item["status"], item["message"]))
        if item.get("remedy"):
            lines.append("    {}".format(item["remedy"]))
    return "\n".join(lines)


def truth(value):
    """A boolean that may have come from the command line as text."""
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "on", "1")


def relevant(names, options, prefixes):
    """The names of variables that are the roles' or look as if they were meant to be."""
    return sorted(name for name in names if name in options or _looks_ours(name, options, prefixes))


def chart_problem(reference, exists, is_folder):
    """What is wrong with a chart given as a path; empty for any other form and where nothing is."""
    text = str(reference)
    if text.startswith(("oci://", "http://", "https://")):
        return ""
    if not text.startswith(("/", ".", "~")) and not text.endswith((".tgz", ".tar.gz")):
        return ""
    if not exists(text):
        return "where nothing is"
    if is_folder(text) and not exists(text.rstrip("/") + "/Chart.yaml"):
        return "a folder without a Chart.yaml"
    return ""


# The charts whose role works with no other; riva_chart_ref may name a copy under another name.
CHART_NAMES = {
    "gpu_operator_chart_ref": "gpu-operator",
    "kube_prometheus_stack_chart_ref": "kube-prometheus-stack",
    "metallb_chart_ref": "metallb",
    "nvidia_device_plugin_chart_ref": "nvidia-device-plugin",
    "prometheus_adapter_chart_ref": "prometheus-adapter",
    "traefik_chart_ref": "traefik",
}


def check_chart_file(variable, reference, chart, version=None):
    """Findings of a chart given as a folder or file. chart: its Chart.yaml; version: the one that is asked for."""
    name, own = str(chart.get("name") or ""), str(chart.get("version") or "")
    if not name or not own:
        return [
            finding(
                variable,
                f"{variable} is {reference}, in which there is no Chart.yaml with name and version",
                "Take the chart's folder, or the tgz file that helm pull or helm package made.",
            )
        ]
    wanted = CHART_NAMES.get(variable)
    if wanted and name != wanted:
        return [finding(variable, f"{variable} is {reference}, the chart {name}", f"Set it to the chart {wanted}.")]
    if version and version.removeprefix("v") != own.removeprefix("v"):
        setting = variable.replace("_chart_ref", "_chart_version")
        message = f"{setting} is {version}, but the chart at {reference} has version {own}"
        return [finding(setting, message, f"Remove {setting}, or put that version of the chart there.")]
    return []


OLDEST_KUBERNETES = (1, 30)


def check_kubernetes(version):
    """A finding where the cluster is older than what the charts need."""
    parts = version.lstrip("v").split(".")
    if len(parts) < 2 or not parts[0].isdigit() or not parts[1].isdigit():
        return []
    if (int(parts[0]), int(parts[1])) >= OLDEST_KUBERNETES:
        return []
    oldest = ".".join(str(part) for part in OLDEST_KUBERNETES)
    return [finding("cluster", f"Kubernetes is {version}", f"Upgrade the cluster to Kubernetes {oldest} or newer.")]


def check_external_metrics(apiservice, namespace, autoscaler="hpa", keda_namespace="keda"):
    """A finding where somebody else serves the external metrics; apiservice is None where nobody does.

    It is one API with one owner: prometheus-adapter in `namespace`, or KEDA in `keda_namespace`, as the autoscaler
    says. From the adapter to KEDA the roles move it themselves.
    """
    service = ((apiservice or {}).get("spec") or {}).get("service") or {}
    place = service.get("namespace")
    if not service or place == (keda_namespace if autoscaler == "keda" else namespace):
        return []
    owner = "{}/{}".format(place, service.get("name"))
    if autoscaler == "keda":
        if place == namespace:
            return []
        return [
            finding(
                "riva_autoscaler",
                f"external.metrics.k8s.io belongs to {owner}, but riva_autoscaler is keda, which needs that API",
                f"Remove the other owner. If it is KEDA itself, set keda_namespace to {place}.",
            )
        ]
    remedy = (
        "Remove the other owner, or, where that is KEDA, set riva_autoscaler to keda. From KEDA back to the adapter: "
        "playbooks/leave_keda.yml. If it is the adapter itself, set "
        f"prometheus_adapter_namespace to {place}."
    )
    return [
        finding(
            "prometheus_adapter_namespace",
            f"external.metrics.k8s.io belongs to {owner}, but the demand for streams comes from prometheus-adapter",
            remedy,
        )
    ]


def check_capability(nodes, wanted):
    """A finding where GPUs are labelled and none is young enough; nothing before they are labelled."""
    known = [node["capability"] for node in nodes if node.get("capability")]
    if not wanted or not known:
        return []
    least = tuple(int(part) for part in wanted.split("."))
    if any(capability >= least for capability in known):
        return []
    best = ".".join(str(part) for part in max(known))
    return [
        finding(
            "riva_engine",
            f"a Speech NIM needs a GPU of compute capability {wanted}, and the youngest of the cluster has {best}",
            "Set riva_engine to sdk, or add a node with a GPU of the Ampere generation or younger.",
        )
    ]


def node_facts(node):
    """What the check of the nodes needs of one node."""
    labels = (node.get("metadata") or {}).get("labels") or {}
    status = node.get("status") or {}
    allocatable = status.get("allocatable") or {}
    gpus = [value for key, value in allocatable.items() if key.startswith("nvidia.com/") and value != "0"]
    return {
        "name": (node.get("metadata") or {}).get("name"),
        "gpu": bool(gpus) or _labelled(labels),
        "capability": _capability(labels),
        "gpus": sum(int(value) for value in gpus if str(value).isdigit()),
    }


def _capability(labels):
    """(major, minor) as GPU Feature Discovery labels it, or None."""
    major, minor = labels.get("nvidia.com/gpu.compute.major"), labels.get("nvidia.com/gpu.compute.minor")
    return (int(major), int(minor or 0)) if str(major).isdigit() and str(minor or 0).isdigit() else None


def _labelled(labels):
    return labels.get("nvidia.com/gpu.present") == "true" or "nvidia.com/gpu.count" in labels


def gpu_stack(variables):
    """The way to usable GPUs that the variables ask for."""
    enabled = truth(variables.get("gpu_operator_enabled", True))
    return variables.get("gpu_stack") or ("operator" if enabled else "preinstalled")


def unused_charts(stack, autoscaler="hpa"):
    """Variables of charts that these ways to GPUs and to scaling do not install: they need not be there."""
    roles = {"operator": "gpu_operator", "manual": "nvidia_device_plugin"}
    unused = {f"{role}_chart_ref" for way, role in roles.items() if way != stack}
    return unused if autoscaler == "keda" else unused | {"keda_chart_ref"}


def check_nodes(nodes, gpus_expected_now):
    """A finding where there is no node, or no GPU although nothing is going to bring it."""
    if not nodes:
        return [finding("cluster", "the cluster has no nodes", "Join nodes to the cluster first.")]
    if gpus_expected_now and not any(node["gpu"] for node in nodes):
        return [
            finding(
                "gpu_stack",
                f"gpu_stack is preinstalled (or gpu_operator_enabled false), and none of the {len(nodes)} nodes has a "
                "GPU (no nvidia.com/gpu label, nothing allocatable)",
                "Set gpu_stack to operator or manual, or install driver, device plugin and feature discovery on "
                "the GPU nodes first.",
            )
        ]
    return []


def readers(options, variables):
    """(given, was_set) as the checks take them."""

    def given(name):
        value = variables.get(name)
        return options.get(name, {}).get("default") if value is None else value

    return given, {name for name, value in variables.items() if value is not None}


def services_of(given):
    """The items of riva_services that are such."""
    services = given("riva_services")
    return [item for item in services if isinstance(item, dict)] if isinstance(services, list) else []
