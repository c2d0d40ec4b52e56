"""docs/troubleshooting.md explains each check that the code can report, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Functions whose first argument is the check's name.
MAKERS = {"Finding", "verdict", "add", "guarded", "guarded_missing", "amount_finding", "read", "speech"}
FILES = [path for folder in ("module_utils", "modules", "action") for path in (ROOT / "plugins" / folder).glob("*.py")]


def names_of(node):
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def checks_in(tree):
    """Names of checks in the code: first arguments of what makes findings, and values of `check` in dictionaries."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in MAKERS:
                yield node.args[0].value
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "check" and isinstance(value, ast.Constant):
                    yield value.value
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and "CHECK" in names_of(node):
            yield node.value.value


def test_each_check_is_explained_and_no_other():
    uses = [path for path in FILES if re.search(r"findings|Finding|\"check\"", path.read_text())]
    code = {check for path in uses for check in checks_in(ast.parse(path.read_text()))}
    code = {check for check in code if isinstance(check, str) and re.fullmatch(r"[a-z_]+", check)}
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    explained = re.findall(r"^### `([a-z_]+)`$", text, re.MULTILINE)
    assert len(explained) == len(set(explained))
    assert set(explained) == code


def test_each_link_of_the_chain_is_among_them():
    from ansible_collections.speechops.riva.plugins.module_utils.chain_links import LINKS

    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    places = [text.index(f"### `{link}`") for link in LINKS if link != "api"]
    assert places == sorted(places)
