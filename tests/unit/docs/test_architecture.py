# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The arrows of docs/architecture.md: playbooks → roles → modules → module_utils, and nothing of it knows the lab."""

import ast
import functools
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
OURS = "ansible_collections.speechops.riva.plugins"
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
RULES = sorted((ROOT / "plugins" / "module_utils").glob("*.py"))
OTHER_PLUGINS = sorted(
    path for kind in ("action", "filter", "lookup", "plugin_utils") for path in (ROOT / "plugins" / kind).glob("*.py")
)
PLACES_OF_TASKS = (
    "site.yml",
    "playbooks/*.yml",
    "playbooks/tasks/*.yml",
    *(f"roles/*/{part}/*.yml" for part in ("tasks", "defaults", "vars")),
)
TASKS = sorted(path for pattern in PLACES_OF_TASKS for path in ROOT.glob(pattern))

# Files of module_utils that reach out of the process, and what for. All others are rules: data in, answers out.
DOORS = {
    "cluster": {"ansible", "ansible_collections.kubernetes.core", "kubernetes", "urllib3"},
    "validation": {"cluster"},
    "chain_reader": {"cluster"},
    "scrape_path": {"cluster", "chain_reader"},
    "metric_chain": {"cluster", "chain_reader", "scrape_path", "yaml"},
    "keda_chain": {"cluster", "metric_chain"},
    "chart_files": {"yaml"},
    "chart_archives": {"yaml"},
    "release_looks": {"subprocess", "cluster", "yaml"},
    "certificates": {"cryptography"},
    "outside_calls": {"grpc", "riva", "socket", "ssl"},
    "load_streams": {"asyncio", "grpc", "riva"},
    "load_run": {"asyncio", "signal", "load_streams", "load_texts"},
    "load_texts": {"asyncio", "grpc", "riva", "load_streams"},
    "calibration_run": {"asyncio", "load_run"},
    "load_libraries": {"load_streams", "report_page", "report_pictures"},
    "report_page": {"jinja2"},
    "report_pictures": {"matplotlib"},
}
# Of the standard library, what talks to the world.
OUTWARD = {"asyncio", "http", "multiprocessing", "select", "signal", "socket", "ssl", "subprocess", "urllib.request"}


@functools.cache
def nodes_of(path):
    """The parts of a file's syntax tree that the tests ask for: imports and texts."""
    kinds = (ast.Import, ast.ImportFrom, ast.Constant)
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


def imported(path):
    """The names of all modules that a file imports, also those inside functions and try blocks."""
    package = "lab" if path.is_relative_to(ROOT / "lab") else OURS
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"{package}.{node.module or ''}"
        elif isinstance(node, ast.ImportFrom):
            # `from package import a` names the module a where the package is one of ours.
            if node.module.endswith(".module_utils") and node.module.startswith(OURS):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def below(name, packages):
    """The one of the packages that a module is, or lies in."""
    return next((package for package in packages if name == package or name.startswith(f"{package}.")), None)


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", RULES, ids=ids(RULES))
def test_a_rule_knows_no_ansible_no_cluster_and_no_network(path):
    allowed = DOORS.get(path.stem, set())
    wrong = []
    for name in imported(path):
        if name.startswith(f"{OURS}.module_utils."):
            used = name.removeprefix(f"{OURS}.module_utils.").split(".")[0]
            # A rule may use rules and the libraries behind a drawing, not a door to the cluster or to a server.
            fine = used not in DOORS or used in allowed or path.stem.startswith("report")
        elif below(name, OUTWARD):
            fine = below(name, OUTWARD) in allowed
        else:
            fine = name.split(".")[0] in sys.stdlib_module_names or below(name, allowed)
        if not fine:
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("path", [*MODULES, *OTHER_PLUGINS], ids=ids([*MODULES, *OTHER_PLUGINS]))
def test_a_plugin_of_ours_imports_module_utils_only(path):
    names = {name for name in imported(path) if name.startswith("ansible_collections.speechops")}
    # An action and the module of its name are two halves of one thing.
    fine = {
        "action": (f"{OURS}.modules.{path.stem}", f"{OURS}.plugin_utils"),
        "plugin_utils": (f"{OURS}.plugin_utils",),
    }
    allowed = (f"{OURS}.module_utils", *fine.get(path.parent.name, ()))
    assert [name for name in names if not below(name, allowed)] == []


@pytest.mark.parametrize("path", [*MODULES, *RULES], ids=ids([*MODULES, *RULES]))
def test_a_module_opens_no_file_of_a_role(path):
    texts = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert [text for text in texts if re.search(r"\broles/|argument_specs", text)] == []


@pytest.mark.parametrize("path", [*MODULES, *RULES, *OTHER_PLUGINS], ids=ids([*MODULES, *RULES, *OTHER_PLUGINS]))
def test_no_plugin_imports_the_lab(path):
    assert [name for name in imported(path) if below(name, {"lab", "standins", "tests"})] == []


def test_the_lab_imports_nothing_of_the_collection():
    for path in (ROOT / "lab").rglob("*.py"):
        assert [name for name in imported(path) if below(name, {"ansible", "ansible_collections", "tests"})] == [], path


@pytest.mark.parametrize("path", TASKS, ids=ids(TASKS))
def test_no_task_speaks_of_the_lab(path):
    assert not re.search(r"\blab(_|/|\b)|standin", path.read_text(encoding="utf-8"), re.IGNORECASE)


def included(tasks):
    """Names of the roles that tasks include, also those inside blocks."""
    for task in tasks or []:
        for action in ("include_role", "import_role"):
            settings = task.get(f"ansible.builtin.{action}")
            if settings:
                yield settings["name"]
        for part in ("block", "rescue", "always"):
            yield from included(task.get(part))


@pytest.mark.parametrize("role", sorted(path.name for path in (ROOT / "roles").iterdir()))
def test_a_role_uses_no_other_role_but_the_one_that_installs_a_release(role):
    used = set()
    for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        used |= set(included(yaml.safe_load(path.read_text(encoding="utf-8"))))
    meta = yaml.safe_load((ROOT / "roles" / role / "meta" / "main.yml").read_text(encoding="utf-8"))
    assert not meta["dependencies"]
    assert used <= {"speechops.riva._release"}


def test_the_page_says_of_each_file_what_it_is_about():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("What lies in `module_utils`")[2].partition("\n## ")[0]
    named = [name for line in table.splitlines() for name in re.findall(r"`([a-z_*]+)`", line.partition(" | ")[0])]
    stems = [path.stem for path in RULES]
    assert [stem for stem in stems if not any(fnmatch(stem, name) for name in named)] == []
    assert [name for name in named if not any(fnmatch(stem, name) for stem in stems)] == []


def test_the_doors_are_those_that_the_page_names():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [door for door in DOORS if f"`{door}`" not in text] == []
    assert set(DOORS) <= {path.stem for path in RULES}
