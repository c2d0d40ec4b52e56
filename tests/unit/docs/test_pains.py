"""docs/reliability.md's tables of pains: each finding is explained, each test is there, and makes what is said."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
EXPLAINED = re.findall(r"^### `([a-z_]+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def rows(kind: str) -> list[list[str]]:
    table = PAGE.partition(f"\n| pain of {kind} | told as | made by |\n|---|---|---|\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


ALL = [*rows("GPU nodes"), *rows("the metric")]


@cache
def words_in(file: str) -> tuple[set[str], set[str]]:
    """Functions of a file, and its texts."""
    nodes = list(ast.walk(ast.parse((ROOT / file).read_text())))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return functions, {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("kind", ["GPU nodes", "the metric"])
def test_each_list_has_its_ten(kind):
    pains = [pain for pain, *_rest in rows(kind)]
    assert len(set(pains)) == len(pains) >= 10


@pytest.mark.parametrize(("pain", "told", "made"), ALL, ids=[pain for pain, *_rest in ALL])
def test_the_pain_has_its_finding_and_its_test(pain, told, made):
    if found := re.fullmatch(r"\[`([a-z_]+)`]\(troubleshooting\.md#([a-z_]+)\)", told):
        assert found.group(1) == found.group(2)
        assert found.group(1) in EXPLAINED
    file, function, *case = [word.strip("` ") for word in made.split(", ")]
    functions, texts = words_in(file)
    assert function in functions
    assert set(case) <= texts
    if found and file.startswith("tests/integration/test_gpu_stack"):
        assert found.group(1) in texts
