"""docs/way-in.md: each row of what was measured can be repeated, with the test that it names."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "way-in.md").read_text()
HEAD = "| what | figure | wanted | FILE, WORD |\n|---|---|---|---|\n"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for table in PAGE.split(HEAD)[1:]
    for line in table.partition("\n\n")[0].splitlines()
]


@cache
def names(file: str) -> list[str]:
    """Tests of a file, and the names of their cases as far as they are written there."""
    text = (ROOT / "tests" / "long" / file).read_text()
    return re.findall(r"^def (test_\w+)", text, re.MULTILINE) + [
        name for names in re.findall(r"\bids=\[(.*?)\]", text) for name in re.findall(r'"(\w+)"', names)
    ]


def test_the_tables_are_found():
    assert len(ROWS) > 50
    assert {len(row) for row in ROWS} == {4}


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_the_row_names_a_test(row):
    what, _figure, _wanted, where = row
    if what.startswith("…") and not where.strip("|"):
        return  # A variant of the row above, in an earlier form.
    if where in ("short", "molecule, scenario traefik"):
        return
    file, _, word = where.partition(", ")
    for part in word.split(" or ") if word else []:
        assert any(part in name for name in names(file)), part
    assert names(file)
