# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a check reports. Plain data: no Ansible, no network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

OK = "ok"
UNKNOWN = "unknown"
WARNING = "warning"
FAILED = "failed"

# From best to worst. `unknown` is no fault: the check could not see, and says so.
SEVERITY = (OK, UNKNOWN, WARNING, FAILED)

COLORS = {OK: "\x1b[32m", UNKNOWN: "\x1b[36m", WARNING: "\x1b[33m", FAILED: "\x1b[31m"}
RESET = "\x1b[0m"


@dataclass(frozen=True)
class Finding:
    """One line of a report: what was looked at, how it is, and what to type next."""

    check: str
    subject: str
    status: str
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status not in SEVERITY:
            raise ValueError(f"status is {self.status!r}, expected one of {', '.join(SEVERITY)}")

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def status_of(finding: Finding | Mapping) -> str:
    """The status of a finding or of its dictionary; anything unreadable counts as failed."""
    status = finding.status if isinstance(finding, Finding) else finding.get("status")
    return status if status in SEVERITY else FAILED


def worst(findings: Iterable[Finding | Mapping]) -> str:
    """The worst status among the findings; no finding at all proves nothing, so it is `unknown`."""
    ranks = [SEVERITY.index(status_of(finding)) for finding in findings]
    return SEVERITY[max(ranks)] if ranks else UNKNOWN


def unique(findings: Iterable[Finding | Mapping]) -> list[dict]:
    """The findings without those said before: several checks that find one door shut say so once."""
    kept: list[dict] = []
    for finding in findings:
        data = finding.to_dict() if isinstance(finding, Finding) else dict(finding)
        if data not in kept:
            kept.append(data)
    return kept


def document(cluster: str, findings: Iterable[Finding | Mapping]) -> dict:
    """What was found on one cluster, for other programs."""
    shown = unique(findings)
    return {"cluster": cluster, "status": worst(shown), "findings": shown}


def fails(findings: Iterable[Finding | Mapping], fail_on: str) -> bool:
    """Whether a task with this `fail_on` (failed, warning or never) has to fail."""
    if fail_on == "never":
        return False
    return SEVERITY.index(worst(list(findings) or [{"status": OK}])) >= SEVERITY.index(fail_on)


def describe(finding: Finding | Mapping) -> str:
    """One finding in words, with its remedy on the next line."""
    data = finding.to_dict() if isinstance(finding, Finding) else finding
    text = f"{status_of(data)}: {data.get('check', '')} {data.get('subject', '')}: {data.get('message', '')}"
    return f"{text}\n    remedy: {data['remedy']}" if data.get("remedy") else text


def summary(title: str, findings: Sequence[Finding | Mapping], fail_on: str = FAILED) -> str:
    """The message of a failed task: everything at or above the level, worst first."""
    level = SEVERITY.index(FAILED if fail_on == "never" else fail_on)
    bad = [finding for finding in findings if SEVERITY.index(status_of(finding)) >= level]
    bad.sort(key=lambda finding: -SEVERITY.index(status_of(finding)))
    return "\n".join([title, *(f"  {describe(finding)}" for finding in bad)])


def table(findings: Sequence[Finding | Mapping], color: bool = False, width: int = 0) -> str:
    """The findings as text, one line each: status, check, subject, message; a remedy follows what is not ok.

    With a width, longer messages are cut; remedies never are.
    """
    rows = [finding.to_dict() if isinstance(finding, Finding) else dict(finding) for finding in findings]
    if not rows:
        return "no findings"
    widths = {
        key: max(len(key), *(len(str(row.get(key) or "")) for row in rows)) for key in ("status", "check", "subject")
    }
    lines = ["  ".join([*(key.upper().ljust(size) for key, size in widths.items()), "MESSAGE"])]
    for row in rows:
        cells = {key: str(row.get(key) or "").ljust(size) for key, size in widths.items()}
        message = " ".join(str(row.get("message") or "").split())
        room = width - sum(widths.values()) - 2 * len(widths)
        if width and len(message) > max(room, 20):
            message = message[: max(room, 20) - 1] + "…"
        status = status_of(row)
        if color:
            cells["status"] = f"{COLORS[status]}{cells['status']}{RESET}"
        lines.append("  ".join([*cells.values(), message]).rstrip())
        if status != OK and row.get("remedy"):
            lines.append(f"{' ' * (widths['status'] + 2)}-> {' '.join(str(row['remedy']).split())}")
    return "\n".join(lines)
