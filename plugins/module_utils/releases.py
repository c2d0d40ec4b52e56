# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Helm releases: the words that name a chart, and what to do with one that was left half-way. Pure rules."""

from __future__ import annotations

STUCK = ("pending-install", "pending-upgrade", "pending-rollback", "failed", "uninstalling")


def recovery(history):
    """{action: none | uninstall | rollback, revision, reason, words} from `helm history -o json`.

    A release that never was deployed cannot be upgraded: it has to go first. One that was goes back to the
    revision that ran last, so that the next upgrade starts from something whole.
    """
    if not history:
        return _plan("none", None, "there is no release")
    newest = max(history, key=lambda entry: int(entry["revision"]))
    status = newest["status"]
    if status not in STUCK:
        return _plan("none", None, f"its last revision is {status}")
    reason = f"revision {newest['revision']} was left in {status}"
    ran = [int(e["revision"]) for e in history if e["status"] in ("deployed", "superseded")]
    if status == "uninstalling" or not ran:
        return _plan("uninstall", None, reason)
    return _plan("rollback", max(ran), reason)


def _plan(action, revision, reason):
    words = {
        "none": "It is left alone.",
        "uninstall": "It is removed, then installed again.",
        "rollback": f"It goes back to revision {revision}, then is upgraded again.",
    }
    return {"action": action, "revision": revision, "reason": reason, "words": words[action]}


def chart_words(options):
    """Helm's words for the chart that the options chart_ref, chart_version and chart_repo_url name."""
    words = [options["chart_ref"]]
    for option, name in (("chart_version", "--version"), ("chart_repo_url", "--repo")):
        if options[option]:
            words += [name, options[option]]
    return words
