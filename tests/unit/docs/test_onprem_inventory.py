# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The example inventory that a stranger copies: valid as it is, and with any of its comments made real."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.action.preflight import specs
from ansible_collections.speechops.riva.plugins.module_utils import inputs

ROOT = Path(__file__).resolve().parents[3]
ONPREM = ROOT / "inventories" / "onprem"
VARIABLES = ONPREM / "group_vars" / "riva_clusters" / "main.yml"
OPTIONS, ROLES = specs()


def problems(variables):
    return inputs.as_text(
        inputs.check_variables(OPTIONS, ROLES, {"cluster_kubeconfig": "/k", **variables})
        + inputs.check_services(variables.get("riva_services"))
    )


def uncommented():
    """The example with every commented line that is YAML made real, its indentation kept."""
    lines = VARIABLES.read_text(encoding="utf-8").splitlines()
    return yaml.safe_load("\n".join(re.sub(r"^(\s*)# ([a-z_]+: \S.*)$", r"\1\2", line) for line in lines))


def test_a_copy_with_a_vault_is_read_by_ansible(tmp_path):
    copy = tmp_path / "mine"
    shutil.copytree(ONPREM, copy)
    folder = copy / "group_vars" / "riva_clusters"
    (folder / "vault.yml.example").rename(folder / "vault.yml")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", copy, "--list"],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    (cluster,) = json.loads(done.stdout)["_meta"]["hostvars"].values()
    assert cluster["ansible_connection"] == "local"
    assert problems({name: value for name, value in cluster.items() if not name.startswith("ansible_")}) == ""
    # Models are fetched, so both keys have to have a place.
    assert {"riva_ngc_api_key", "riva_model_deploy_key"} <= set(cluster)


def test_the_example_of_a_vault_is_not_read_before_it_is_filled_in():
    assert [path.name for path in ONPREM.rglob("*.yml")].count("vault.yml") == 0
    assert problems(yaml.safe_load(VARIABLES.with_name("vault.yml.example").read_text(encoding="utf-8"))) == ""


def test_every_comment_could_be_made_real():
    real = uncommented()
    assert len(real) > len(yaml.safe_load(VARIABLES.read_text(encoding="utf-8"))) + 8
    assert problems(real) == ""


def test_comments_that_show_a_default_show_the_right_one():
    shown = re.findall(r"^# (\w+): (\S.*)$", VARIABLES.read_text(encoding="utf-8"), re.MULTILINE)
    for name, text in shown:
        value = yaml.safe_load(text)
        if isinstance(value, (bool, int)) and "default" in OPTIONS[name]:
            assert value == OPTIONS[name]["default"], name


@pytest.mark.parametrize("name", [name for name in uncommented() if name.startswith(tuple(ROLES))])
def test_every_variable_is_explained_where_it_stands(name):
    """A comment stands above it, or above the group of lines that it belongs to."""
    lines = VARIABLES.read_text(encoding="utf-8").splitlines()
    (place,) = (index for index, line in enumerate(lines) if re.match(rf"(# )?{name}:", line))
    while re.match(r"(# )?[a-z_]+: ?\S*", lines[place]) and not re.match(r"# [A-Z]", lines[place]):
        place -= 1
    assert re.match(r"# \S", lines[place]), name
