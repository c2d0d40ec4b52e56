# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every molecule scenario goes through the same steps, and every role has one."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MOLECULE = ROOT / "extensions" / "molecule"
ROLES = {path.name for path in (ROOT / "roles").iterdir() if not path.name.startswith("_")}
SCENARIOS = {path.parent.name for path in MOLECULE.glob("*/molecule.yml")} - {"default"}
STEPS = ["prepare", "check", "converge", "idempotence", "verify", "side_effect", "verify", "cleanup"]
# check and idempotence are converge.yml again; prepare is for roles that need another one first.
FILES = {f"{step}.yml" for step in STEPS} - {"check.yml", "idempotence.yml", "prepare.yml"}


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_each_role_has_a_scenario():
    assert SCENARIOS == ROLES


def test_the_frame_has_all_steps():
    assert load(MOLECULE / "config.yml")["scenario"]["test_sequence"] == STEPS


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_a_scenario_has_a_playbook_for_each_step(scenario):
    folder = MOLECULE / scenario
    # A sequence of its own would leave out steps of the frame.
    own = load(folder / "molecule.yml").get("scenario", {}).get("test_sequence", STEPS)
    assert [step for step in own if step != "destroy"] == STEPS
    assert {path.name for path in folder.glob("*.yml")} >= FILES


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_after_the_harm_the_role_runs_again(scenario):
    plays = load(MOLECULE / scenario / "side_effect.yml")
    assert len(plays) > 1
    assert plays[-1]["ansible.builtin.import_playbook"] == "converge.yml"
