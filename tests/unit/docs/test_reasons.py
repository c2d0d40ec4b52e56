# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No rule of a linter is switched off without a reason beside it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OFF = re.compile(
    r"#\s*(noqa|type: ignore|pragma: no cover|shellcheck disable|yamllint disable|nosec|fmt: (?:off|skip))|skip_list:"
)
# The word of a comment that says what is left alone, as against why.
FORMATTING = re.compile(r"# fmt: skip$")


def files():
    """What git has, or will have, of this repository; the tests of this file speak of such comments."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    endings = {".py", ".yml", ".yaml", ".sh", ".toml", ""}
    paths = (ROOT / name for name in listed.stdout.splitlines() if not name.startswith(("collections", "docs/")))
    return [path for path in paths if path.suffix in endings and path.is_file() and path != Path(__file__).resolve()]


def without_a_reason(text):
    """Numbers of the lines that switch a rule off, where neither they nor the lines above say why."""
    lines = [""] * 2 + text.splitlines()
    for number, line in enumerate(lines):
        found = OFF.search(line)
        # A table that is laid out by hand shows itself why it is left as it is.
        if not found or FORMATTING.search(line):
            continue
        # A comment above, or words of the line itself behind a dash.
        above = [near for near in lines[number - 2 : number] if "#" in near and not OFF.search(near)]
        if not above and not re.match(r"\S* - \w", line[found.end() :]):
            yield number - 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import x  # noqa: F401", [1]),
        ("# It registers itself.\nimport x  # noqa: F401", []),
        ("a = 1\n# shellcheck disable=SC2086\necho $a", [2]),
        ("# Two words.\n# shellcheck disable=SC2086\necho $a", []),
        ("except ImportError:  # pragma: no cover - said by connect()", []),
        ("skip_list:", [1]),
        ("TABLE = {  # fmt: skip", []),
    ],
)
def test_a_reason_is_told_from_none(text, found):
    assert list(without_a_reason(text)) == found


def test_every_rule_that_is_off_has_its_reason():
    wrong = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{path.relative_to(ROOT)}:{number}" for number in without_a_reason(text)]
    assert wrong == []
