# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What holds for the files of every role: specs match defaults, upstream charts know every key that is set."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(p.name for p in (ROOT / "roles").iterdir() if (p / "meta" / "argument_specs.yml").exists())
CHARTS = {
    "gpu_operator": "gpu-operator",
    "kube_prometheus_stack": "kube-prometheus-stack",
    "nvidia_device_plugin": "nvidia-device-plugin",
    "keda": "keda",
    "prometheus_adapter": "prometheus-adapter",
    "traefik": "traefik",
    "metallb": "metallb",
}


def load(*parts):
    path = ROOT.joinpath(*parts)
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


def unknown_keys(values, chart):
    path = ROOT / "tests" / "unit" / "lab" / "upstream_keys.py"
    spec = importlib.util.spec_from_file_location("upstream_keys", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.unknown_keys(values, chart)


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_a_file(role):
    entries = load("roles", role, "meta", "argument_specs.yml")["argument_specs"]
    for entry in entries:
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_described(role):
    entries = load("roles", role, "meta", "argument_specs.yml")["argument_specs"]
    for entry in entries.values():
        for name, option in (entry.get("options") or {}).items():
            assert option.get("description"), name
            assert option.get("type"), name


@pytest.mark.parametrize(("role", "chart"), CHARTS.items())
def test_upstream_knows_every_key_that_a_role_sets(role, chart):
    values = {
        name: value
        for name, value in load("roles", role, "vars", "main.yml").items()
        if name.startswith(f"__{role}") and "_values" in name and isinstance(value, dict)
    }
    assert values
    assert [(name, key) for name, value in values.items() for key in unknown_keys(value, chart)] == []


@pytest.mark.parametrize(("role", "chart"), CHARTS.items())
def test_upstream_knows_every_key_that_the_lab_sets(role, chart):
    for path in (ROOT / "inventories").glob("*/group_vars/**/*.yml"):
        values = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(f"{role}_values") or {}
        assert unknown_keys(values, chart) == [], path


def test_a_key_that_upstream_does_not_know_is_seen():
    assert unknown_keys({"providers": {"kubernetesCRD": {"nmespaces": []}}}, "traefik")
