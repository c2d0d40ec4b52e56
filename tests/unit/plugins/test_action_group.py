# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""module_defaults of the action group name the cluster once for all modules."""

from pathlib import Path

import yaml


def test_the_action_group_names_every_module_that_takes_a_kubeconfig():
    root = Path(__file__).parents[3]
    group = yaml.safe_load((root / "meta" / "runtime.yml").read_text())["action_groups"]["cluster"]
    signs = ("auth_argument_spec", "module_utils.validation import")
    modules = (root / "plugins" / "modules").glob("*.py")
    assert group == sorted(path.stem for path in modules if any(sign in path.read_text() for sign in signs))
