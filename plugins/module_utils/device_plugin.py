# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Sharing and MIG of groups of nodes, as configurations of NVIDIA's device plugin and labels of nodes."""

import json
from collections.abc import Mapping, Sequence

DEFAULT = "default"
LABEL = "nvidia.com/device-plugin.config"
RESOURCE = "nvidia.com/gpu"


def configuration(group: Mapping) -> dict:
    """One configuration in the plugin's own form (config version v1)."""
    made: dict = {"version": "v1", "flags": {"migStrategy": group.get("mig_strategy") or "none"}}
    sharing, replicas = group.get("sharing") or "none", int(group.get("replicas") or 1)
    if sharing == "none":
        return made
    resources = [{"name": name, "replicas": replicas} for name in group.get("resources") or [RESOURCE]]
    kind = "mps" if sharing == "mps" else "timeSlicing"
    made["sharing"] = {kind: {"resources": resources}}
    if kind == "timeSlicing":
        made["sharing"][kind]["renameByDefault"] = bool(group.get("rename"))
        made["sharing"][kind]["failRequestsGreaterThanOne"] = True
    return made


def configurations(default: Mapping, groups: Sequence[Mapping]) -> dict[str, str]:
    """The chart's config.map: text by name. JSON is YAML, and the same each time."""
    named = {DEFAULT: default, **{str(group["name"]): group for group in groups}}
    return {name: json.dumps(configuration(group), indent=2, sort_keys=True) for name, group in named.items()}


def node_labels(groups: Sequence[Mapping]) -> dict[str, str]:
    """The configuration of each node that has one of its own."""
    return {str(node): str(group["name"]) for group in groups for node in group.get("nodes") or []}


def sharing_of(group: Mapping) -> dict:
    """The sharing of a group as gpu_hardware_info takes it."""
    sharing = group.get("sharing") or "none"
    names = group.get("resources") or [RESOURCE]
    replicas = {} if sharing == "none" else {name: int(group.get("replicas") or 1) for name in names}
    return {"strategy": sharing, "resources": replicas, "rename": bool(group.get("rename"))}


def problems(default: Mapping, groups: Sequence[Mapping]) -> list[str]:
    """What can't be, each with the variable."""
    found = []
    for place, group in [("nvidia_device_plugin", default), *enumerated(groups)]:
        sharing, replicas = group.get("sharing") or "none", int(group.get("replicas") or 1)
        if sharing != "none" and replicas < 2:
            found.append(f"{place}: sharing is {sharing} with replicas {replicas}; set replicas to 2 or more")
        if sharing == "none" and replicas > 1:
            found.append(f"{place}: replicas is {replicas} with sharing none; set sharing to time-slicing or mps")
        if sharing == "mps" and (group.get("mig_strategy") or "none") != "none":
            found.append(f"{place}: MPS cannot share MIG slices; set mig_strategy to none or sharing to time-slicing")
        if sharing == "mps" and group.get("rename"):
            found.append(f"{place}: rename is for time-slicing only; leave it out with mps")
    names = [str(group["name"]) for group in groups]
    found += [f"nvidia_device_plugin_groups: two groups are named {name}" for name in twice(names)]
    found += [f"nvidia_device_plugin_groups: no group may be named {DEFAULT}"] if DEFAULT in names else []
    nodes = [str(node) for group in groups for node in group.get("nodes") or []]
    found += [f"nvidia_device_plugin_groups: node {node} is in two groups" for node in twice(nodes)]
    return found


def enumerated(groups: Sequence[Mapping]) -> list[tuple[str, Mapping]]:
    return [(f"nvidia_device_plugin_groups[{index}]", group) for index, group in enumerate(groups)]


def twice(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
