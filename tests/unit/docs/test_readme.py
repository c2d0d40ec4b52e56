# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The README names everything that there is: each role, module, playbook and check, and nothing that is gone."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE))
# The words of the commands that `make test` runs, as people name them.
TOOLS = {
    "ruff": "ruff",
    "mypy": "mypy",
    "yamllint": "yamllint",
    "ansible-lint": "ansible-lint",
    "helm": "helm lint",
    "shellcheck": "shellcheck",
    "ansible_test.sh": "ansible-test sanity",
    "antsibull-docs": "antsibull-docs",
    "antsibull-changelog": None,
    "pytest": "unit tests",
    "tests.conform": "kubeconform",
    "lab": None,
}


def named(head):
    """First cells of the table that begins with a word."""
    (table,) = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    return [re.match(r"\| `([^`]+)` \| \S", line).group(1) for line in table.splitlines()]


def test_every_role_is_named():
    roles = {path.name for path in (ROOT / "roles").iterdir() if not path.name.startswith("_")}
    assert sorted(named("role")) == sorted(roles)


def test_every_module_is_named():
    (between,) = re.findall(r"^What roles and playbooks use in between: (.*?)\.$", README, re.MULTILINE | re.DOTALL)
    modules = [*named("module"), *re.findall(r"`(\w+)`", between)]
    assert sorted(modules) == sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))


def test_every_playbook_is_named():
    playbooks = {f"playbooks/{path.name}" for path in (ROOT / "playbooks").glob("*.yml")}
    assert sorted(named("playbook")) == sorted(playbooks - {"playbooks/site.yml"} | {"site.yml"})


def test_the_sections_come_in_the_order_that_people_expect():
    wanted = ["Requirements", "Two commands", "Your own cluster", "What is in it", "Testing", "Support", "License"]
    assert list(SECTIONS) == wanted
    # The picture stands above all of them, the five steps are five.
    assert "](docs/pictures/report.png)" in README.partition("\n## ")[0]
    assert re.findall(r"^(\d)\. ", SECTIONS["Your own cluster"], re.MULTILINE) == list("12345")


def test_the_section_on_tests_names_what_make_test_runs():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = set()
    for target in ("lint", "sanity", "test"):
        (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
        for line in lines.splitlines():
            words = [word for word in line.split() if "=" not in word]
            if words[0] == "@#":
                continue
            # python -m NAME
            commands.add(words[2] if words[1:2] == ["-m"] else Path(words[0]).name)
    assert commands == set(TOOLS)
    section = " ".join(SECTIONS["Testing"].split())
    assert [words for words in TOOLS.values() if words and words not in section] == []


def test_the_versions_are_those_that_are_pinned():
    for role in ("kube_prometheus_stack", "prometheus_adapter", "traefik", "gpu_operator"):
        defaults = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8"))
        assert str(defaults[f"{role}_chart_version"]).removeprefix("v") in SECTIONS["Requirements"], role
