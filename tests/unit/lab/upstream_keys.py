# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which value keys the pinned upstream charts know, and which keys of ours they do not know.

The fixtures in ``tests/fixtures/upstream_keys`` hold key names only. They are made from a chart's default values (and
its JSON schema, where it has one):

    python tests/unit/lab/upstream_keys.py FOLDER   # FOLDER holds <chart>-<version>.values.yaml

A fixture is a tree. A mapping holds the keys that upstream knows; ``*`` stands for any name. A leaf is one of

* ``value``: one single value, nothing below it;
* ``list``: a list; its entries are not looked at;
* ``free``: an empty or unset default, so upstream passes on whatever is given.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "upstream_keys"

# Maps that charts hand to Kubernetes as they are: their default keys are examples, not a list of what is allowed.
PASSED_ON = frozenset({
    "affinity", "annotations", "containerSecurityContext", "dnsConfig", "labels", "lifecycle", "livenessProbe",
    "matchLabels", "nodeSelector", "podAnnotations", "podLabels", "podSecurityContext", "readinessProbe", "resources",
    "rollingUpdate", "securityContext", "startupProbe", "strategy", "updateStrategy",
})  # fmt: skip

# Values of sub-charts, whose defaults name only what the parent changes, and specs passed on whole.
FREE = {
    "gpu-operator": {"node-feature-discovery"},
    "kube-prometheus-stack": {
        "crds", "grafana", "kube-state-metrics", "prometheus-node-exporter", "prometheus-windows-exporter",
    },
    "nvidia-device-plugin": {"nfd"},
    "traefik": {"service.spec"},
}  # fmt: skip

_LIVE_KEY = re.compile(r"^(\s*)(?:\"([^\"]+)\"|'([^']+)'|([^\s#'\"][^:#]*)):(?:\s|$)")
_COMMENTED_KEY = re.compile(r"^(\s*)#+ ?(\s*)([a-z][A-Za-z0-9]*):(?:\s|$)")
_EMPTY_DEFAULT = re.compile(r":\s*(\{\}|\[\])\s*$")
_PROSE = frozenset({"default", "e", "eg", "example", "examples", "http", "https", "ie", "note", "ref", "see"})


def tree_of_values(text: str) -> dict[str, Any]:
    """Make the key tree of a values file, with the keys that stand in it as comments."""
    tree = {name: _leaf_or_tree(name, value) for name, value in (yaml.safe_load(text) or {}).items()}
    _add_commented_keys(tree, text)
    return tree


def _leaf_or_tree(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return "list"
    if value is None or value == {} or name in PASSED_ON:
        return "free"
    if isinstance(value, dict):
        return {str(key): _leaf_or_tree(str(key), below) for key, below in value.items()}
    return "value"


def _add_commented_keys(tree: dict[str, Any], text: str) -> None:
    """Charts write optional keys as comments (``# version: ""``): add them beside their live neighbours.

    A comment right below an empty default is an example of what could stand in it: no key of its own.
    """
    above: list[tuple[int, str]] = []
    example = False
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            example = bool(_EMPTY_DEFAULT.search(line))
        if example and line.lstrip().startswith("#"):
            continue
        live = _LIVE_KEY.match(line)
        if live:
            indent = len(live[1])
            above = [(i, k) for i, k in above if i < indent]
            above.append((indent, (live[2] or live[3] or live[4]).strip()))
            continue
        commented = _COMMENTED_KEY.match(line)
        if not commented or commented[3] in _PROSE:
            continue
        indent = len(commented[1]) + len(commented[2])
        node: Any = tree
        for _, key in [(i, k) for i, k in above if i < indent]:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(commented[3], "free")


def tree_of_schema(schema: dict[str, Any]) -> Any:
    """Make the key tree of a JSON schema."""
    kinds = schema.get("type", "object" if "properties" in schema else "free")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "object" in kinds:
        tree = {name: tree_of_schema(below) for name, below in schema.get("properties", {}).items()}
        others = schema.get("additionalProperties")
        if isinstance(others, dict) and others:
            tree["*"] = tree_of_schema(others)
        elif not tree:
            return "free"
        return tree
    if "array" in kinds:
        return "list"
    return "free" if "free" in kinds else "value"


def merged(first: Any, second: Any) -> Any:
    """Join two trees: what either knows is known."""
    if isinstance(first, dict) and isinstance(second, dict):
        return {
            key: merged(first[key], second[key]) if key in first and key in second else first.get(key, second.get(key))
            for key in first | second
        }
    if "free" in (first, second):
        return "free"
    return first if isinstance(first, dict) else second


@cache
def known_keys(chart: str) -> dict[str, Any]:
    """Return the key tree of the pinned upstream chart."""
    found = sorted(FIXTURES.glob(f"{chart}-[0-9]*.json"))
    if len(found) != 1:
        raise LookupError(f"{len(found)} fixtures for the chart {chart!r} in {FIXTURES}, there must be one")
    return json.loads(found[0].read_text())["keys"]


def unknown_keys(values: dict[str, Any], chart: str) -> list[str]:
    """Return the dotted paths in ``values`` that the pinned upstream chart does not know."""
    return _unknown(values, known_keys(chart), ())


def _unknown(values: Any, known: Any, path: tuple[str, ...]) -> list[str]:
    if not isinstance(values, dict) or known in ("free", "list"):
        return []
    found = []
    for key, value in values.items():
        here = (*path, str(key))
        below = known.get(str(key), known.get("*")) if isinstance(known, dict) else None
        if below is None:
            found.append(".".join(here))
        else:
            found.extend(_unknown(value, below, here))
    return found


def write_fixtures(folder: Path, destination: Path = FIXTURES) -> list[Path]:
    """Write one fixture for each ``<chart>-<version>.values.yaml`` of a folder."""
    written = []
    for source in sorted(folder.glob("*.values.yaml")):
        chart, version = re.fullmatch(r"(.+?)-(\d.*)\.values\.yaml", source.name).groups()
        tree = tree_of_values(source.read_text())
        schema = source.with_name(source.name.replace(".values.yaml", ".values.schema.json"))
        if schema.exists():
            tree = merged(tree_of_schema(json.loads(schema.read_text())), tree)
        for dotted in FREE.get(chart, ()):
            *parents, name = dotted.split(".")
            node = tree
            for parent in parents:
                node = node[parent]
            node[name] = "free"
        target = destination / f"{chart}-{version}.json"
        target.write_text(json.dumps({"chart": chart, "version": version, "keys": tree}, indent=1) + "\n")
        written.append(target)
    return written


if __name__ == "__main__":
    for path in write_fixtures(Path(sys.argv[1])):
        print(path)
