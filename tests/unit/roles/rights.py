# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the pinned upstream charts' ClusterRoles allow beyond reading, with the values that our roles give them.

The fixture ``tests/fixtures/upstream_rights.json`` is made from the unmodified charts, in folders named after them:

    python -m tests.unit.roles.rights FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from tests.unit import charts

ROOT = Path(__file__).resolve().parents[3]
FIXTURE = ROOT / "tests" / "fixtures" / "upstream_rights.json"
READS = {"get", "list", "watch"}


def of_role(role: str, name: str) -> dict:
    """The plain part of a role's own values."""
    return yaml.safe_load((ROOT / "roles" / role / "vars" / "main.yml").read_text())[name]


def values_of_roles() -> dict[str, dict]:
    """By chart; what is a template there is left to the chart, but for what rights depend on."""
    adapter = of_role("prometheus_adapter", "__prometheus_adapter_values")
    stack = of_role("kube_prometheus_stack", "__kube_prometheus_stack_values")
    assert of_role("traefik", "__traefik_values")["rbac"] == {"namespaced": "{{ not __traefik_whole_cluster | bool }}"}
    providers = {"kubernetesIngress": {"enabled": False}, "kubernetesCRD": {"namespaces": ["riva", "traefik"]}}
    return {
        "traefik": {"rbac": {"namespaced": True}, "providers": providers},
        "prometheus-adapter": {
            "rbac": adapter["rbac"],
            "rules": {"default": False, "custom": [{"a": "rule"}], "external": [{"a": "rule"}]},
        },
        "kube-prometheus-stack": {"kube-state-metrics": stack["kube-state-metrics"]},
        "gpu-operator": {},
        "keda": {key: of_role("keda", "__keda_values")[key] for key in ("rbac", "permissions")},
        # With BGP it has one more.
        "metallb": {"frrk8s": {"enabled": True}},
    }


def beyond_reading(rules: list[dict]) -> list[str]:
    """What of a ClusterRole's rules changes something, or reads Secrets; as words that can be compared."""
    found = set()
    for rule in rules:
        verbs = set(rule["verbs"])
        for group in rule.get("apiGroups", []):
            for resource in rule.get("resources", []):
                if verbs - READS or (resource in ("secrets", "*") and group in ("", "*")):
                    found.add(f"{', '.join(sorted(verbs))}: {resource}{'.' if group else ''}{group}")
    return sorted(found)


def rendered(folder: Path) -> dict[str, dict[str, list[str]]]:
    """By chart and ClusterRole; each ClusterRole, also one that only reads."""
    found: dict[str, dict[str, list[str]]] = {}
    for chart, values in values_of_roles().items():
        items = [item for item in charts.rendered(folder / chart, values, chart) if item["kind"] == "ClusterRole"]
        found[chart] = {item["metadata"]["name"]: beyond_reading(item["rules"]) for item in items}
    return found


if __name__ == "__main__":
    made = {"values": values_of_roles(), "rights": rendered(Path(sys.argv[1]))}
    FIXTURE.write_text(json.dumps(made, indent=1) + "\n")
