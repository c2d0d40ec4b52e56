# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What an upgrade would do to each release, and what forbids it. Pure rules: Helm's words in, a plan out."""

import re
from collections.abc import Mapping, Sequence

from ansible_collections.speechops.riva.plugins.module_utils.findings import FAILED, OK, WARNING, Finding

RAN = ("deployed", "superseded")
# The Kubernetes that each KEDA was tested with, oldest and newest (keda.sh/docs/2.22/operate/cluster, read 2026-11-23).
KEDA_TESTED = {
    (2, 16): ((1, 29), (1, 31)),
    (2, 17): ((1, 30), (1, 32)),
    (2, 18): ((1, 31), (1, 33)),
    (2, 19): ((1, 32), (1, 34)),
    (2, 20): ((1, 33), (1, 35)),
    (2, 21): ((1, 34), (1, 36)),
}
# Its releases, of which two neighbours are one upgrade: «Upgrades are only supported within a major release or to the
# next major release» (docs.nvidia.com, GPU Operator, Platform Support; the list is its chart repository's).
GPU_OPERATOR_RELEASES = (
    *((22, 9), (23, 3), (23, 6), (23, 9), (24, 3), (24, 6), (24, 9)),
    *((25, 3), (25, 10), (26, 3), (26, 7)),
)
NEEDS = re.compile(r"chart requires kubeVersion: (.+?) which is incompatible with Kubernetes (\S+)")


def version_key(version: str) -> tuple:
    """A chart's version (semver, with or without v) as something to compare: 1.2.3-rc.1 comes before 1.2.3.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?(?:\+.*)?", version.strip())
    if not found:
        raise ValueError(f"{version!r} is no version; expected one like 1.2.3")
    numbers = tuple(int(part or 0) for part in found.groups()[:3])
    # semver.org, rule 11: numbers before words, a longer list of equal ones after a shorter.
    parts = (found.group(4) or "").split(".") if found.group(4) else []
    before = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
    return numbers, not parts, before


def chart_version(chart: str) -> str:
    """The version in Helm's `name-version`: a name may hold hyphens, and so may a version."""
    found = re.search(r"-(v?\d+\.\d+.*)$", chart)
    return found.group(1) if found else ""


def ran_last(history: Sequence[Mapping]) -> Mapping | None:
    """The newest revision that ran, of `helm history -o json`."""
    ran = [entry for entry in history if entry.get("status") in RAN]
    return max(ran, key=lambda entry: int(entry["revision"]), default=None)


def incompatible(text: str) -> tuple[str, str] | None:
    """(range that the chart wants, the cluster's version) where Helm refuses a chart for its kubeVersion."""
    found = NEEDS.search(text)
    return (found.group(1), found.group(2)) if found else None


def untested(chart: str, target: str, kubernetes: str) -> tuple[str, str] | None:
    """(what is said, what to do) where a chart's project did not test it with this Kubernetes; None where it did, or
    where that is not known.
    """
    window = KEDA_TESTED.get(version_key(target)[0][:2]) if chart == "keda" and kubernetes else None
    if window is None or window[0] <= version_key(kubernetes)[0][:2] <= window[1]:
        return None
    oldest, newest = (".".join(map(str, version)) for version in window)
    return (
        f"KEDA {target} was tested with Kubernetes {oldest} to {newest}, the cluster has {kubernetes}",
        "https://keda.sh/docs/latest/operate/cluster has the versions that go together",
    )


def leaps(chart: str, now: str, target: str) -> str:
    """The release that an upgrade of the GPU Operator has to go by way of; empty where it may go straight."""
    if chart != "gpu-operator":
        return ""
    first, last = version_key(now)[0][:2], version_key(target)[0][:2]
    if first not in GPU_OPERATOR_RELEASES or last not in GPU_OPERATOR_RELEASES:
        return ""
    at = GPU_OPERATOR_RELEASES.index(first)
    between = GPU_OPERATOR_RELEASES[at + 1 : GPU_OPERATOR_RELEASES.index(last)]
    return ".".join(map(str, between[0])) if between else ""


def plan(
    subject: str,
    variable: str,
    history: Sequence[Mapping],
    target: str,
    refusal: str,
    downgrade: bool,
    chart: str = "",
    kubernetes: str = "",
) -> dict:
    """What happens to one release: {revision, now, then, finding}.

    Args:
        subject: namespace/name of the release.
        variable: the variable that sets the chart's version, for messages.
        history: `helm history -o json`; empty where there is no release.
        target: version of the chart that would be installed.
        refusal: what Helm printed when it was asked to render that chart for this cluster; empty if nothing.
        downgrade: whether an older version may follow a newer one.
        chart: the chart's own name, for what its project says of its versions.
        kubernetes: the cluster's version.
    """
    ran = ran_last(history)
    now = chart_version(str(ran.get("chart") or "")) if ran else ""
    result = {"release": subject, "revision": int(ran["revision"]) if ran else None, "now": now, "then": target}

    def judged(status: str, message: str, remedy: str = "") -> dict:
        return {**result, "finding": Finding("upgrade", subject, status, message, remedy).to_dict()}

    if ran is None:
        return judged(FAILED, "there is no release that ever ran", "install it first: ansible-playbook site.yml")
    if wanted := incompatible(refusal):
        return judged(
            FAILED,
            f"chart {target} wants Kubernetes {wanted[0]}, the cluster has {wanted[1]}",
            f"let {variable} name a chart for this Kubernetes, or upgrade Kubernetes first",
        )
    try:
        older, newer = version_key(target) < version_key(now), version_key(target) > version_key(now)
        by_way_of, unknown = leaps(chart, now, target), untested(chart, target, kubernetes)
    except ValueError as error:
        return judged(WARNING, f"{now or '?'} -> {target}: can't be compared ({error})", f"look at {variable}")
    if older and not downgrade:
        return judged(
            FAILED,
            f"{now} -> {target} would be a downgrade",
            f"let {variable} name chart {now} or newer; upgrade_allow_downgrade=true if you know what the chart undoes",
        )
    if older:
        return judged(WARNING, f"{now} -> {target}, a downgrade that was asked for", "CRDs stay those of the newer one")
    if by_way_of:
        return judged(
            FAILED,
            f"{now} -> {target} leaves out {by_way_of}: NVIDIA supports upgrades to the next release alone",
            f"let {variable} name a chart {by_way_of}.x first",
        )
    if unknown:
        return judged(WARNING, f"{now} -> {target}: {unknown[0]}" if newer else f"{now}: {unknown[0]}", unknown[1])
    if not newer:
        return judged(OK, f"{now}, the same chart; only values may change")
    if version_key(now)[0][0] != version_key(target)[0][0]:
        return judged(
            WARNING,
            f"{now} -> {target}, another major version",
            "read the chart's notes on upgrading before; with --check --diff nothing is changed",
        )
    return judged(OK, f"{now} -> {target}")
