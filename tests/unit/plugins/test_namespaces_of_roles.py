# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Namespaces that are not a role's own: those of Kubernetes and of the other roles, as their variables have them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.lookup.namespaces_of_roles import DEFAULTS

ROOT = Path(__file__).resolve().parents[3]
WHOLE = ["default", "kube-system", "gpu-operator", "keda", "monitoring", "metallb-system", "nvidia-device-plugin"]


def defaults_of(role):
    return yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()) or {}


def test_each_role_with_a_namespace_is_among_them_by_its_own_default():
    roles = {path.parents[1].name for path in ROOT.glob("roles/*/defaults/main.yml")} - {"riva", "traefik"}
    there = {f"{role}_namespace": defaults_of(role).get(f"{role}_namespace") for role in roles}
    assert {name: value for name, value in there.items() if value} == DEFAULTS


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, WHOLE),
        ({"keda_namespace": "scaling"}, [name if name != "keda" else "scaling" for name in WHOLE]),
        ({"company": "acme", "metallb_namespace": "{{ company }}-lb"}, [*WHOLE[:5], "acme-lb", WHOLE[6]]),
    ],
)
def test_the_variables_count(variables, found):
    words = ["localhost", "-m", "debug", "-a", "msg={{ query('speechops.riva.namespaces_of_roles') }}"]
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible"), *words, "-e", json.dumps(variables)],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
            "ANSIBLE_STDOUT_CALLBACK": "json",
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]["msg"] == found


@pytest.mark.parametrize("role", ["riva", "traefik"])
def test_the_roles_ask_for_it(role):
    name = {"riva": "riva_network_policy_namespace", "traefik": "traefik_network_policy"}[role]
    assert defaults_of(role)[name] == f"{{{{ {role}_namespace not in query('speechops.riva.namespaces_of_roles') }}}}"
