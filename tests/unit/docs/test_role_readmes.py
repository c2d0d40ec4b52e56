# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each role's README is what docs/generate.py makes of its specs, and the specs are what the defaults say."""

import pytest
import yaml

from docs import generate

# Of the cluster or of another role; only the role that owns a variable gives it a default.
FOREIGN = {"cluster_kubeconfig", "cluster_context", "helm_binary_path", "helm_install_dir", "gpu_stack"}
ROLES = generate.roles()


def entries(role):
    return generate.load(generate.ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]


def defaults(role):
    return generate.load(generate.ROLES / role / "defaults" / "main.yml")


def owned(role):
    """The options that are this role's own variables."""
    options = entries(role)["main"].get("options") or {}
    return {name: option for name, option in options.items() if role == "helm" or name not in FOREIGN}


def computed(value):
    return "{{" in str(value)


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_is_made_from_the_specs(role):
    readme = (generate.ROLES / role / "README.md").read_text(encoding="utf-8")
    assert readme == generate.readme(role), "run: python docs/generate.py"


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_specs_know_the_same_variables(role):
    required = {name for name, option in owned(role).items() if option.get("required")}
    assert set(defaults(role)) == set(owned(role)) - required


@pytest.mark.parametrize("role", ROLES)
def test_each_default_is_documented_as_it_is(role):
    given = {name: value for name, value in defaults(role).items() if not computed(value)}
    documented = {name: option["default"] for name, option in owned(role).items() if "default" in option}
    assert documented == given
    # 3.17 and "3.17" are equal in no sense that a reader of YAML would accept.
    assert {name: type(value) for name, value in documented.items()} == {name: type(given[name]) for name in documented}


@pytest.mark.parametrize("role", ROLES)
def test_a_computed_default_is_described_in_words(role):
    names = [name for name, value in defaults(role).items() if computed(value)]
    missing = [name for name in names if "left out" not in generate.markup(owned(role)[name]["description"])]
    assert missing == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_says_what_it_is_for(role):
    for entry in entries(role).values():
        assert not entry["short_description"].endswith(".")
    main = entries(role)["main"]
    assert main["description"]
    assert set(yaml.safe_load(main.get("examples") or "{}")) <= set(main.get("options") or {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain\n  text.", "Plain text."),
        (["One.", "Two."], "One. Two."),
        ("Set O(helm_mirror) to V(https), see C(a.b)", "Set `helm_mirror` to `https`, see `a.b`"),
        ("With O(riva_x=false)", "With `riva_x: false`"),
        ("a|b", "a\\|b"),
    ],
)
def test_markup(text, expected):
    assert generate.markup(text) == expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"required": True}, "required"),
        ({}, ""),
        ({"default": ""}, "empty"),
        ({"default": 10}, "`10`"),
        ({"default": False}, "`false`"),
        ({"default": "3.17.3"}, "`3.17.3`"),
        ({"default": [{"name": "riva-asr"}]}, "`[{name: riva-asr}]`"),
        ({"default": {}}, "`{}`"),
    ],
)
def test_defaults_are_shown_as_yaml(option, expected):
    assert generate.shown_default(option) == expected
