# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pictures of the docs: drawings that explain themselves in light and dark, a photo that is not too heavy."""

import re
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.browser import CHROMIUM, Browser

PICTURES = Path(__file__).resolve().parents[3] / "docs" / "pictures"
DRAWINGS = sorted(PICTURES.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

STRAY_TEXTS = """(() => {
  const box = document.documentElement.viewBox.baseVal;
  return [...document.querySelectorAll('text')]
    .filter((text) => { const at = text.getBBox(); return at.x < 4 || at.x + at.width > box.width - 4; })
    .map((text) => text.textContent);
})()"""


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_explains_itself_and_needs_nothing_else(path):
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.findtext(f"{SVG}title")
    assert root.findtext(f"{SVG}desc")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href=|url\((?!#)", text)
    used = set(re.findall(r'class="([^"]+)"', text))
    styled = set(re.findall(r"\.([a-z-]+) \{", text))
    assert {name for names in used for name in names.split()} <= styled


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_no_text_leaves_its_drawing():
    with Browser() as browser:
        for path in DRAWINGS:
            browser.open(path, 960)
            assert browser.value(STRAY_TEXTS) == [], path.name


def test_the_photo_of_the_report_is_light():
    data = (PICTURES / "report.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1280
    assert height < 1400
    assert len(data) < 250_000
