# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation of each validator says exactly what its argument spec does."""

import importlib
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.doc_fragments.validation import ModuleDocFragment
from ansible_collections.speechops.riva.plugins.module_utils.cluster import auth_argument_spec

MODULES = ("validate_gpu_nodes", "validate_aggregation_layer", "validate_custom_metric")


class Caught(Exception):
    pass


def load(name, monkeypatch):
    """(module, its argument spec without the authentication options)."""
    module = importlib.import_module(f"ansible_collections.speechops.riva.plugins.modules.{name}")

    def catch(argument_spec, **settings):
        raise Caught(argument_spec, settings)

    monkeypatch.setattr(module, "AnsibleModule", catch)
    with pytest.raises(Caught) as caught:
        module.main()
    spec, settings = caught.value.args
    assert settings["supports_check_mode"]
    return module, {key: value for key, value in spec.items() if key not in auth_argument_spec()}


def comparable(options, suboptions):
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "default": option.get("default"),
            "choices": option.get("choices"),
            "required": option.get("required", False),
            "options": comparable(option.get(suboptions) or {}, suboptions),
        }
        for name, option in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_documentation_and_argument_spec_agree(name, monkeypatch):
    module, spec = load(name, monkeypatch)
    documentation = yaml.safe_load(module.DOCUMENTATION)
    shared = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert documentation["module"] == name
    assert comparable(documentation["options"] | shared, "suboptions") == comparable(spec, "options")
    assert "kubernetes.core.k8s_auth_options" in documentation["extends_documentation_fragment"]


@pytest.mark.parametrize("name", MODULES)
def test_every_option_of_an_example_exists(name, monkeypatch):
    module, spec = load(name, monkeypatch)
    known = {*spec, *auth_argument_spec()}
    for task in yaml.safe_load(module.EXAMPLES):
        assert set(task[f"speechops.riva.{name}"]) <= known
    assert {"ok", "status", "findings", "table"} <= set(yaml.safe_load(module.RETURN))


def test_the_action_group_names_every_module_that_takes_a_kubeconfig():
    root = Path(__file__).parents[3]
    group = yaml.safe_load((root / "meta" / "runtime.yml").read_text())["action_groups"]["cluster"]
    signs = ("auth_argument_spec", "module_utils.validation import")
    modules = (root / "plugins" / "modules").glob("*.py")
    assert group == sorted(path.stem for path in modules if any(sign in path.read_text() for sign in signs))
