# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When is an object of a release ready, and why is it not. Pure rules: objects in, words out."""

from __future__ import annotations

import re

HELM_RELEASE = "meta.helm.sh/release-name"
HELM_NAMESPACE = "meta.helm.sh/release-namespace"


def belongs_to(item, release, namespace):
    """Helm writes the release's name on each object that it makes."""
    notes = (item.get("metadata") or {}).get("annotations") or {}
    return notes.get(HELM_RELEASE) == release and notes.get(HELM_NAMESPACE) == namespace


def subject(item):
    meta = item.get("metadata") or {}
    return "{} {}".format(
        item.get("kind", "object"), "/".join(p for p in (meta.get("namespace"), meta.get("name")) if p)
    )


def _state(have, want, reason):
    return {"ready": not reason, "have": have, "want": want, "reason": reason}


def _number(value):
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _deployment(item):
    spec, status = item.get("spec") or {}, item.get("status") or {}
    want = spec.get("replicas", 1)
    have = _number(status.get("availableReplicas"))
    updated = _number(status.get("updatedReplicas"))
    if _stale(item):
        return _state(have, want, "the controller has not seen the change yet")
    if updated < want:
        return _state(have, want, f"{updated} of {want} pods have the new template")
    if _number(status.get("replicas")) > updated:
        return _state(have, want, "old pods are still stopping")
    if have < want:
        return _state(have, want, f"{have} of {want} pods are available")
    return _state(have, want, "")


def _stateful_set(item):
    spec, status = item.get("spec") or {}, item.get("status") or {}
    want = spec.get("replicas", 1)
    have = _number(status.get("readyReplicas"))
    on_delete = (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    if _stale(item):
        return _state(have, want, "the controller has not seen the change yet")
    if have < want:
        return _state(have, want, f"{have} of {want} pods are ready")
    if want and not on_delete and status.get("updateRevision") != status.get("currentRevision"):
        return _state(have, want, "pods are being replaced by the new revision")
    return _state(have, want, "")


def _daemon_set(item):
    spec, status = item.get("spec") or {}, item.get("status") or {}
    want = _number(status.get("desiredNumberScheduled"))
    have = _number(status.get("numberReady"))
    on_delete = (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    if _stale(item):
        return _state(have, want, "the controller has not seen the change yet")
    if have < want:
        return _state(have, want, f"{have} of {want} pods are ready")
    if not on_delete and _number(status.get("updatedNumberScheduled")) < want:
        return _state(have, want, "pods are being replaced by the new template")
    return _state(have, want, "")


def _job(item):
    spec, status = item.get("spec") or {}, item.get("status") or {}
    want = spec.get("completions") or 1
    have = _number(status.get("succeeded"))
    failed = condition(item, "Failed")
    if failed and failed.get("status") == "True":
        return _state(have, want, "the job failed: {}".format(failed.get("message", "no message")))
    if have < want and (condition(item, "Complete") or {}).get("status") != "True":
        return _state(have, want, f"{have} of {want} runs are complete")
    return _state(have, want, "")


RULES = {"Deployment": _deployment, "StatefulSet": _stateful_set, "DaemonSet": _daemon_set, "Job": _job}


def _stale(item):
    seen = (item.get("status") or {}).get("observedGeneration", 0)
    return _number(seen) < _number((item.get("metadata") or {}).get("generation"))


def condition(item, kind):
    """The condition of that type, or None."""
    found = [c for c in (item.get("status") or {}).get("conditions") or [] if c.get("type") == kind]
    return found[0] if found else None


def readiness(item):
    """{ready, have, want, reason} of one workload. Objects without a rule are ready once they exist."""
    rule = RULES.get(item.get("kind"))
    return rule(item) if rule else _state(1, 1, "")


# -- expectations: what a role wants to see beside its own workloads ----------------------------------


def value_at(item, path):
    """The value at a dotted path; a dot inside a key is written with a backslash before it."""
    here = item
    for part in re.split(r"(?<!\\)\.", path):
        if not isinstance(here, dict):
            return None
        here = here.get(part.replace("\\.", "."))
    return here


def _shortcoming(item, expected):
    """Why one object does not meet the expectation, and what it says of its own errors; empty where it does."""
    reason = _missing(item, expected)
    error = condition(item, "Error") or {}
    said = error.get("message") if reason and error.get("status") == "True" else ""
    return f"{reason} ({said})" if said and said not in reason else reason


def _missing(item, expected):
    for field in expected.get("fields") or []:
        value = value_at(item, field["path"])
        if field.get("exists") and not value:
            return "{} is empty".format(field["path"])
        if "equals" in field and field["equals"] is not None and value != field["equals"]:
            return "{} is {}, not {}".format(field["path"], value, field["equals"])
    for want in expected.get("conditions") or []:
        found = condition(item, want["type"])
        if not found:
            return "condition {} is not there yet".format(want["type"])
        if found.get("status") != want.get("status", "True"):
            words = ": ".join(w for w in (found.get("reason"), found.get("message")) if w)
            said = f" ({words})" if words else ""
            return f"condition {want['type']} is {found.get('status')}{said}"
        if want.get("reason") and found.get("reason") != want["reason"]:
            return "condition {} has reason {}, not {}".format(want["type"], found.get("reason"), want["reason"])
    if expected.get("ready"):
        state = readiness(item)
        if state["reason"]:
            return state["reason"]
        if state["want"] < 1:
            return "no pod is wanted"
    return ""


def quantity(value):
    """A whole number from a Kubernetes quantity of countable things; 0 where it is none."""
    try:
        return int(str(value))
    except ValueError:
        return 0


def meets(expected, items):
    """{ready, have, want, reason} of one expectation over the objects that were found for it."""
    want = expected.get("at_least", 1)
    total = expected.get("sum")
    if total:
        have = sum(quantity(value_at(item, total) or 0) for item in items)
        return _state(have, want, "" if have >= want else f"the sum is {have}, wanted are {want} or more")
    short = [(item, _shortcoming(item, expected)) for item in items]
    wrong = [(item, reason) for item, reason in short if reason]
    have = len(items) - len(wrong)
    if have >= want:
        return _state(have, want, "")
    if not wrong:
        return _state(have, want, f"{have} of {want} found")
    if len(items) == 1:
        return _state(have, want, wrong[0][1])
    return _state(have, want, "; ".join(f"{subject(item)}: {reason}" for item, reason in wrong[:3]))


# -- why a workload is not ready -----------------------------------------------------------------------

_WAITING = {
    "ImagePullBackOff": "image",
    "ErrImagePull": "image",
    "InvalidImageName": "image",
    "ErrImageNeverPull": "image",
    "CreateContainerConfigError": "config",
    "CreateContainerError": "config",
    "RunContainerError": "config",
    "CrashLoopBackOff": "crash",
}

REMEDIES = {
    "image": "Check the image's name and tag, that the node reaches the registry (or has the image), "
    "and the pull secret in the pod's namespace.",
    "config": "Create what the message names (a Secret, a ConfigMap or a key of it), "
    "or correct the value that refers to it.",
    "crash": "Read the container's last words: kubectl -n {namespace} logs {pod} -c {container} --previous",
    "memory": "The container was killed (exit 137): raise its memory limit, "
    "or its probe's patience if it was still loading.",
    "gpu": "No node has that many free GPUs: free one, add a node, or lower the replicas.",
    "taint": "Add a toleration for the node's taint to the release's values, or remove the taint.",
    "schedule": "Make room on a node or relax the pod's requests, node selector or volume: "
    "kubectl -n {namespace} describe pod {pod}",
    "probe": "Look at the container's log and at what the probe asks: kubectl -n {namespace} logs {pod} -c {container}",
    "create": "Correct what the event names (quota, pod security, admission webhook, service account).",
    "unknown": "Look closer: kubectl -n {namespace} describe {kind} {name}",
}


def _remedy(key, **names):
    known = {"namespace": "", "pod": "", "container": "", "kind": "", "name": ""}
    known.update(names)
    return REMEDIES[key].format(**known)


def selects(labels, selector):
    """Does a workload's label selector match these labels (matchLabels and matchExpressions)."""
    labels, selector = labels or {}, selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for rule in selector.get("matchExpressions") or []:
        present, values = rule["key"] in labels, rule.get("values") or []
        verdict = {
            "In": present and labels.get(rule["key"]) in values,
            "NotIn": not present or labels.get(rule["key"]) not in values,
            "Exists": present,
            "DoesNotExist": not present,
        }.get(rule.get("operator"), False)
        if not verdict:
            return False
    return bool(selector)


def _last_events(events, kind, names, limit=2):
    about = [
        e
        for e in events
        if (e.get("involvedObject") or {}).get("kind") in kind
        and (e.get("involvedObject") or {}).get("name") in names
        and e.get("type") == "Warning"
    ]
    about.sort(key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")
    return [e.get("message", "") for e in about[-limit:]]


def pod_trouble(pod, events=()):
    """(what is wrong with a pod, remedy) or None where nothing is."""
    meta, status = pod.get("metadata") or {}, pod.get("status") or {}
    names = {"namespace": meta.get("namespace", ""), "pod": meta.get("name", "")}
    scheduled = condition(pod, "PodScheduled") or {}
    if scheduled.get("status") == "False":
        words = scheduled.get("message", "")
        key = "schedule"
        if "nvidia.com/" in words and "Insufficient" in words:
            key = "gpu"
        elif "untolerated taint" in words:
            key = "taint"
        return f"not scheduled: {words}", _remedy(key, **names)
    containers = list(status.get("initContainerStatuses") or []) + list(status.get("containerStatuses") or [])
    for container in containers:
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (container.get("lastState") or {}).get("terminated") or {}
        names["container"] = container.get("name", "")
        key = _WAITING.get(waiting.get("reason", ""), "")
        code = last.get("exitCode", ended.get("exitCode"))
        if key and key != "crash":
            words = "container {}: {}: {}".format(
                names["container"], waiting["reason"], waiting.get("message", "no message")
            )
            return words, _remedy(key, **names)
        if key == "crash" or (ended and ended.get("exitCode")):
            words = "container {} ended with exit code {} after {} restarts".format(
                names["container"], code, container.get("restartCount", 0)
            )
            text = last.get("message") or ended.get("message") or ""
            words += f": {text.strip()[-300:]}" if text else ""
            return words, _remedy("memory" if code == 137 else "crash", **names)
    for container in status.get("containerStatuses") or []:
        if "running" in (container.get("state") or {}) and not container.get("ready"):
            names["container"] = container.get("name", "")
            probes = [m for m in _last_events(events, ("Pod",), (names["pod"],)) if "probe" in m]
            words = "container {} runs but is not ready".format(names["container"])
            return words + (f": {probes[-1]}" if probes else ""), _remedy("probe", **names)
    if status.get("phase") == "Pending":
        events_of_pod = _last_events(events, ("Pod",), (names["pod"],))
        words = events_of_pod[-1] if events_of_pod else "its containers are being created"
        return words, _remedy("schedule", **names)
    return None


def log_to_read(pod):
    """(container, whether its previous run is meant) whose log may tell why a pod is in trouble, or None."""
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state, before = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason") == "CrashLoopBackOff" or (waiting and before):
            return container["name"], True
        if ended.get("exitCode") or ("running" in state and not container.get("ready")):
            return container["name"], False
    return None


# What must not be shown though a container printed it: NGC's keys, and what follows such words.
_SECRETIVE = re.compile(r"nvapi-[\w-]+|(?i:(?<=bearer )|(?<=password=)|(?<=token=)|(?<=apikey=))[^\s\"']+")


def log_words(text, lines=3, most=400):
    """The last lines of a log in one, without secrets; empty where there are none."""
    said = [" ".join(line.split()) for line in str(text).splitlines() if line.strip()][-lines:]
    return _SECRETIVE.sub("…", " / ".join(said))[-most:]


def _last_words(pod, logs):
    said = log_words(logs.get((pod.get("metadata") or {}).get("name"), ""))
    return f"; it said last: {said}" if said else ""


def explain(item, pods=(), events=(), logs=None):
    """One finding for a workload that is not ready: its numbers, its pods' trouble, their last words and warnings.

    logs: {name of a pod: the end of the log that `log_to_read` names}.
    """
    meta = item.get("metadata") or {}
    state = readiness(item)
    own = [
        p
        for p in pods
        if (p.get("metadata") or {}).get("namespace") == meta.get("namespace")
        and selects((p.get("metadata") or {}).get("labels"), (item.get("spec") or {}).get("selector"))
    ]
    words = [state["reason"] or "ready"]
    remedy = ""
    for pod in own:
        trouble = pod_trouble(pod, events)
        if trouble:
            words.append("pod {}: {}{}".format(pod["metadata"]["name"], trouble[0], _last_words(pod, logs or {})))
            remedy = remedy or trouble[1]
        if len(words) > 3:
            break
    if not own:
        # No pod was made: the reason lies with the workload or its ReplicaSets.
        names = [e["involvedObject"]["name"] for e in events if _made_by(e, meta.get("name", ""))]
        said = _last_events(events, ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"), names)
        words.extend(said)
        remedy = _remedy("create") if said else ""
    kind = (item.get("kind") or "object").lower()
    return {
        "check": "release",
        "subject": subject(item),
        "status": "failed",
        "message": "; ".join(words),
        "remedy": remedy
        or _remedy("unknown", namespace=meta.get("namespace", ""), kind=kind, name=meta.get("name", "")),
    }


def unmet_finding(expected, state):
    """One finding for an expectation that is not met."""
    return {
        "check": "release",
        "subject": expected["what"],
        "status": "failed",
        "message": state["reason"],
        "remedy": expected.get("remedy") or "",
    }


def other_trouble(pods, explained=(), events=(), limit=5, logs=None):
    """A finding for each further pod of the namespace that is in trouble, at most so many."""
    found: list[dict] = []
    for pod in pods:
        labels = (pod.get("metadata") or {}).get("labels")
        if any(selects(labels, (item.get("spec") or {}).get("selector")) for item in explained):
            continue
        trouble = pod_trouble(pod, events)
        if trouble and len(found) < limit:
            about = subject({"kind": "Pod", **pod})
            found.append(
                {
                    "check": "release",
                    "subject": about,
                    "status": "failed",
                    "message": trouble[0] + _last_words(pod, logs or {}),
                    "remedy": trouble[1],
                }
            )
    return found


def _made_by(event, name):
    about = (event.get("involvedObject") or {}).get("name", "")
    return about == name or about.startswith(name + "-")


def _stands_at(pod):
    """What a pod that is not ready stands at: a step of its start, or a container; empty for one that needs nothing."""
    status = pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return ""
    own = (pod.get("spec") or {}).get("initContainers") or []
    sidecars = {container.get("name") for container in own if container.get("restartPolicy") == "Always"}
    steps = [step for step in status.get("initContainerStatuses") or [] if step.get("name") not in sidecars]
    for number, step in enumerate(steps, start=1):
        state = step.get("state") or {}
        if (state.get("terminated") or {}).get("exitCode") != 0:
            return "{} (init {} of {}){}".format(step.get("name"), number, len(steps), _why(state))
    for container in status.get("containerStatuses") or []:
        if not container.get("ready"):
            return "{}{}".format(container.get("name"), _why(container.get("state") or {}))
    return "" if status.get("containerStatuses") else "its start"


def _why(state):
    reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
    return f": {reason}" if reason else ""


def pods_under_way(pods, limit=3):
    """Which pod stands where, on which node, at which step; empty where all are ready."""
    found = [(pod, at) for pod in pods if (at := _stands_at(pod))]
    parts = [
        "pod {} on {}: {}".format(
            pod["metadata"].get("name"), (pod.get("spec") or {}).get("nodeName") or "no node yet", at
        )
        for pod, at in found[:limit]
    ]
    return "; ".join([*parts, *([f"and {len(found) - limit} more pods"] if len(found) > limit else [])])


def progress(states, pods=(), limit=3):
    """One line: what is still awaited, with its numbers and the reason last seen, and the pods that are not ready."""
    waiting = [s for s in states if not s["ready"]]
    parts = ["{} {}/{} ({})".format(s["subject"], s["have"], s["want"], s["reason"]) for s in waiting[:limit]]
    if len(waiting) > limit:
        parts.append(f"and {len(waiting) - limit} more")
    line = "{} of {} ready; waiting for {}".format(
        len(states) - len(waiting), len(states), ", ".join(parts) or "nothing"
    )
    return "; ".join(filter(None, [line, pods_under_way(pods)]))
