# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report's page in a real browser: every picture is drawn and nothing is cut off, on a desk, a phone and paper."""

import struct
from pathlib import Path

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import report_calibration, report_compare, report_page
from ansible_collections.speechops.riva.plugins.module_utils.load_summary import summarise

from tests.browser import CHROMIUM, Browser
from tests.unit.load.conftest import example_calibration
from tests.unit.load.test_report_compare import other

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (Debian: apt-get install chromium)")

ROOT = Path(__file__).resolve().parents[3]
# A4 at 96 points an inch, less Chromium's margins.
PAPER = 718
VIEWS = {
    "desk": {"width": 1280},
    "desk, dark": {"width": 1280, "dark": True},
    "phone": {"width": 390},
    "phone, dark": {"width": 390, "dark": True},
    "paper": {"width": PAPER, "print_out": True},
}

LOOK = """(() => {
  const sizes = (elements) => [...elements].map((element) => {
    const box = element.getBoundingClientRect();
    return [element.id || element.textContent.trim(), box.width, box.height, box.left, box.right];
  });
  const pictures = [...document.querySelectorAll('svg.wide, svg.narrow')];
  const shown = pictures.filter((svg) => svg.getBoundingClientRect().width > 0);
  const scrolls = (box) => box && getComputedStyle(box).overflowX === 'auto';
  const inScroll = (element) => scrolls(element.closest('.scroll'));
  const style = getComputedStyle(document.body);
  return {
    width: innerWidth,
    scrollWidth: document.documentElement.scrollWidth,
    layouts: shown.map((svg) => svg.classList[0]),
    svgs: sizes(shown),
    lines: shown.flatMap((svg) => sizes(svg.querySelectorAll("[id*='-line-'], [id*='-points-']"))),
    texts: shown.flatMap((svg) => sizes(svg.querySelectorAll('text'))),
    outside: [...document.querySelectorAll('body *')]
      .filter((element) => !element.closest('svg') && !inScroll(element))
      .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5
        || element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0)
      .map((element) => element.tagName + ' ' + element.textContent.trim().slice(0, 60)),
    paper: style.backgroundColor,
    ink: style.color,
    strokes: shown.flatMap((svg) => [...svg.querySelectorAll("[id*='-line-'] path")])
      .map((path) => getComputedStyle(path).stroke),
  };
})()"""


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


LONG = "x" * 240


def report(records, folder):
    """The page of a run whose names and messages are as long as they get."""
    told = [{**r, "details": f"no route to {LONG}"} if r["kind"] == "stream" and r["code"] else r for r in records]
    report_page.write_report(str(folder), told)


def comparison(records, folder):
    """Three runs, one with a long name and one that does not compare."""
    summaries = [
        {**summarise(records), "label": "article, 0.5 ms"},
        {**summarise(other(records)), "label": LONG[:60]},
        {**summarise(other(records)[:900]), "label": "balanced"},
    ]
    report_compare.write_comparison(str(folder), [{**summary, "folder": ""} for summary in summaries])


def calibration(records, folder):
    """The page of a calibration, with a long reason and all notes."""
    result = example_calibration()
    result["levels"][3]["judgement"]["reason"] = f"7 streams did not end well: UNAVAILABLE {LONG}"
    result["capacity"] |= {"bounded": True, "low": 20, "high": 23}
    report_calibration.write_result(str(folder), {**result, "model_load": None, "queue_seen": False, "kept": True})


@pytest.fixture(scope="module")
def made():
    """The pages that there are: pytest comes back to a page for each view, and drawing one takes a second."""
    return {}


@pytest.fixture(scope="module", params=[report, comparison, calibration], ids=lambda make: make.__name__)
def page(request, records, made, tmp_path_factory):
    if request.param not in made:
        folder = tmp_path_factory.mktemp("report")
        request.param(records, folder)
        made[request.param] = folder / "index.html"
    return made[request.param]


@pytest.fixture(scope="module", params=VIEWS.values(), ids=list(VIEWS))
def seen(request, browser, page):
    browser.open(page, **request.param)
    return {**browser.value(LOOK), "view": request.param}


def test_one_layout_shows(seen):
    assert seen["layouts"] == ["narrow" if seen["view"]["width"] < 640 else "wide"]


def test_every_picture_is_drawn(seen):
    ((_, width, height, *_),) = seen["svgs"]
    assert width > 0.8 * seen["view"]["width"] or width > 1000
    assert height > 400
    assert len(seen["lines"]) >= 11
    # A flat line has no height, a single point has little of both.
    assert [line for line in seen["lines"] if max(line[1], line[2]) < 3] == []
    drawn = [stroke for stroke in seen["strokes"] if stroke not in ("none", seen["paper"])]
    assert len(set(drawn)) >= 4
    assert len(drawn) == len(seen["strokes"])


def test_nothing_is_cut_off(seen):
    assert seen["outside"] == []
    assert seen["scrollWidth"] <= seen["width"] == seen["view"]["width"]
    ((_, _, _, left, right),) = seen["svgs"]
    assert [text for text in seen["texts"] if text[3] < left - 0.5 or text[4] > right + 0.5] == []


def test_light_and_dark_are_told_apart(seen):
    def brightness(colour):
        return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))

    paper, ink = brightness(seen["paper"]), brightness(seen["ink"])
    if seen["view"].get("dark"):
        assert paper < 200 < 600 < ink
    else:
        assert ink < 200 < 600 < paper


def test_the_page_asks_nobody_for_anything(browser, page):
    browser.open(page, 1280)
    assert browser.value("performance.getEntriesByType('resource').length") == 0


def test_its_upper_part_is_kept_as_a_picture(browser, page, request):
    """In build/screenshots, for people; docs/pictures/report.png, which the README shows, is made the same way."""
    browser.open(page, 1280)
    picture = browser.upper_part()
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{request.node.callspec.params['page'].__name__}.png").write_bytes(picture)
    width, height = struct.unpack(">II", picture[16:24])
    assert width == 1280
    assert 600 < height < 2000
    # White paper alone would be a few kB.
    assert len(picture) > 40_000
