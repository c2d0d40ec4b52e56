# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Helm releases: the words that name a chart, what Helm keeps about a release and whether that is what is wished, and
what to do with one that was left half-way. Pure rules.

Helm 3 and 4 keep each revision in a Secret of type helm.sh/release.v1: its key `release` is the gzipped JSON of the
revision, in base64 once more than the Secret itself (helm.sh/helm pkg/storage/driver, encodeRelease).
"""

import base64
import binascii
import gzip
import json
import re
from collections.abc import Mapping, Sequence

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


# Superseded revisions are history: none of them is the newest.
QUERY = "owner=helm,name={name},status!=superseded"


def decoded(secret: Mapping) -> dict | None:
    """The revision in a Secret of Helm's; None where that can't be read."""
    try:
        packed = base64.b64decode(base64.b64decode((secret.get("data") or {})["release"]))
        return json.loads(gzip.decompress(packed))
    except (KeyError, ValueError, OSError, EOFError, binascii.Error):
        return None


def newest(secrets: Sequence[Mapping]) -> dict | None:
    """The newest of the revisions in these Secrets; None where there is none that can be read."""

    def revision(secret: Mapping) -> int:
        text = ((secret.get("metadata") or {}).get("labels") or {}).get("version", "")
        return int(text) if text.isdigit() else 0

    return decoded(max(secrets, key=revision)) if secrets else None


def chart_of_words(reference: str, version: str | None) -> tuple[str, str] | None:
    """(name, version) of a chart by its reference and the version asked for; None where only Helm can tell."""
    if not version or re.match(r"https?://|[.~/]|.*[.]t(ar[.])?gz$", reference):
        return None
    # In a registry a tag or a digest may follow.
    return re.split("[:@]", reference.rstrip("/").rsplit("/", 1)[-1])[0], version


def status(record: Mapping | None) -> str:
    """The status of a revision; empty where there is none."""
    return ((record or {}).get("info") or {}).get("status") or ""


def deviations(record: Mapping | None, chart: tuple[str, str] | None, values: Mapping) -> list[str]:
    """What of a release's newest revision is not as wished; nothing where all of it is.

    Args:
        record: the newest revision; None where there is none.
        chart: (name, version) wished; None where that is not known without looking it up.
        values: the values wished.
    """
    if record is None:
        return ["Helm has no release of this name"]
    found = []
    if status(record) != "deployed":
        found.append(f"its last revision is {status(record)}")
    metadata = (record.get("chart") or {}).get("metadata") or {}
    there = (metadata.get("name"), metadata.get("version"))
    if chart is None:
        found.append("which version of the chart is meant is known to Helm only")
    elif there != chart:
        found.append(f"its chart is {there[0]} {there[1]}, {chart[0]} {chart[1]} is wished")
    # As Helm gets them: numbers and texts as JSON has them.
    if (record.get("config") or {}) != json.loads(json.dumps(values)):
        found.append("its values are others")
    return found


def missing_labels(namespace: Mapping | None, labels: Mapping[str, str]) -> list[str]:
    """What of the labels wished the namespace does not have."""
    if not labels:
        return []
    if namespace is None:
        return ["its namespace is not there"]
    there = (namespace.get("metadata") or {}).get("labels") or {}
    return [f"its namespace lacks the label {key}={value}" for key, value in labels.items() if there.get(key) != value]
