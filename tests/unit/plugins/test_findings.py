# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest
from ansible_collections.speechops.riva.plugins.module_utils.findings import (
    Finding,
    fails,
    summary,
    table,
    worst,
)


def findings(*statuses):
    return [Finding("check", f"subject-{i}", status, "message", "remedy") for i, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "unknown"),
        (["ok"], "ok"),
        (["ok", "unknown"], "unknown"),
        (["unknown", "warning", "ok"], "warning"),
        (["warning", "failed", "ok"], "failed"),
    ],
)
def test_worst(statuses, expected):
    assert worst(findings(*statuses)) == expected
    assert worst([finding.to_dict() for finding in findings(*statuses)]) == expected


def test_an_unreadable_status_is_the_worst():
    assert worst([{"status": "fine"}]) == "failed"
    with pytest.raises(ValueError, match="fine"):
        Finding("check", "subject", "fine", "")


@pytest.mark.parametrize(
    ("statuses", "fail_on", "expected"),
    [
        (["failed"], "never", False),
        (["failed"], "failed", True),
        (["warning"], "failed", False),
        (["warning"], "warning", True),
        (["unknown"], "warning", False),
        (["ok"], "warning", False),
        ([], "warning", False),
    ],
)
def test_fails(statuses, fail_on, expected):
    assert fails(findings(*statuses), fail_on) is expected


def test_summary_names_what_failed_with_its_remedy_and_nothing_else():
    text = summary("title:", findings("ok", "warning", "failed"))
    assert text == "title:\n  failed: check subject-2: message\n    remedy: remedy"
    assert "subject-1" in summary("title:", findings("warning", "failed"), "warning")


def test_table_is_one_line_a_finding_and_a_remedy_where_it_is_not_ok():
    text = table([Finding("hpa", "riva", "ok", "fine", "none"), Finding("api", "x", "failed", "bad\nnews", "do this")])
    assert text.splitlines() == [
        "STATUS  CHECK  SUBJECT  MESSAGE",
        "ok      hpa    riva     fine",
        "failed  api    x        bad news",
        "        -> do this",
    ]


def test_table_with_width_and_color():
    text = table([Finding("hpa", "riva", "failed", "x" * 200, "y" * 200)], color=True, width=80)
    lines = text.splitlines()
    assert "\x1b[31mfailed\x1b[0m" in lines[1]
    assert lines[1].endswith("…")
    assert lines[2].count("y") == 200
    assert table([]) == "no findings"
