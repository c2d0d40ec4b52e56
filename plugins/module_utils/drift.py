# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else changed in the objects of a release since Helm made them. Pure rules: objects in, words out."""

from __future__ import annotations

# Not looked at: what others have to change (certificates put into webhooks), what can't be changed, what is secret,
# and CRDs, which have a module of their own.
LEFT_ALONE = {
    "CustomResourceDefinition",
    "Job",
    "MutatingWebhookConfiguration",
    "Namespace",
    "PersistentVolumeClaim",
    "Pod",
    "Secret",
    "ValidatingAdmissionPolicy",
    "ValidatingWebhookConfiguration",
}


def without_nothing(value):
    """Without keys that are null: in a chart they stand for «nothing said», in an apply for «take it away»."""
    if isinstance(value, dict):
        return {key: without_nothing(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nothing(inner) for inner in value]
    return value


def wanted(documents, namespace):
    """The objects of a release's manifest that are looked at, each with its namespace where it lacks one."""
    found = []
    for item in documents:
        if not isinstance(item, dict) or not item.get("kind") or item["kind"] in LEFT_ALONE:
            continue
        parts = item.get("items") if item["kind"].endswith("List") else [item]
        for part in parts or []:
            if part.get("kind") not in LEFT_ALONE:
                meta = {"namespace": namespace, **(without_nothing(part.get("metadata")) or {})}
                found.append({**without_nothing(part), "metadata": meta})
    return found


def scaled(hpas):
    """{(kind, namespace, name)} of what HorizontalPodAutoscalers scale, KEDA's among them."""
    return {
        (target.get("kind"), (hpa.get("metadata") or {}).get("namespace"), target.get("name"))
        for hpa in hpas
        if (target := (hpa.get("spec") or {}).get("scaleTargetRef"))
    }


def without_replicas(item, targets):
    """The object without its number of pods, where that is an autoscaler's: setting it back would end streams."""
    meta = item["metadata"]
    if (item["kind"], meta.get("namespace"), meta["name"]) not in targets or not isinstance(item.get("spec"), dict):
        return item
    return {**item, "spec": {key: value for key, value in item["spec"].items() if key != "replicas"}}


def holds(now, item):
    """Whether an object has all that the release says of it, to the letter.

    Then an apply would change nothing, and need not be asked for. Where it has not, only the API server can tell: it
    writes 1000m as 1, leaves out what is empty, and knows which entries of a list are others' own.
    """
    if isinstance(item, dict):
        return isinstance(now, dict) and all(key in now and holds(now[key], value) for key, value in item.items())
    if isinstance(item, list):
        return isinstance(now, list) and len(now) == len(item) and all(map(holds, now, item))
    return type(now) is type(item) and now == item


def essence(item):
    """What counts of an object: all but its status and what the API server keeps about it."""
    meta = item.get("metadata") or {}
    kept = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    return {**kept, "metadata": {key: meta.get(key) or {} for key in ("labels", "annotations")}}


def differences(now, then, place="", limit=5):
    """[(path, value as it is, value as the release has it)] of the first places that differ."""
    if now == then:
        return []
    if isinstance(now, dict) and isinstance(then, dict):
        found = []
        for key in sorted({*now, *then}, key=str):
            found += differences(now.get(key), then.get(key), f"{place}.{key}" if place else str(key), limit)
        return found[:limit]
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        found = []
        for position, (left, right) in enumerate(zip(now, then, strict=True)):
            found += differences(left, right, f"{place}[{position}]", limit)
        return found[:limit]
    return [(place, now, then)]


def words(subject, found):
    """One line: what was changed of an object, and what it is set back to."""
    parts = [f"{path} is {_short(now)}, the release has {_short(then)}" for path, now, then in found]
    return f"{subject}: {'; '.join(parts)}"


def _short(value):
    text = "nothing" if value is None else repr(value)
    return text if len(text) < 60 else text[:57] + "..."
