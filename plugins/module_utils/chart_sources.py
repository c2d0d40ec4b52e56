# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Where a Helm chart comes from, and the digest that its archive has to have. Pure rules.

A digest is the SHA-256 of the packaged chart (the .tgz), as repositories publish it in their index. Helm itself
compares it with nothing (helm/helm issue 7623): a chart from a repository is pinned by its version alone there.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# The word for: what the repository's own index says will do.
INDEX = "index"
HOW_TO_PIN = "helm pull and sha256sum tell it"


class ChartError(Exception):
    """A chart that can't be had, or is not the one that was pinned."""


class Source(NamedTuple):
    """A chart as the variables of a role name it.

    reference: a name in a repository, an oci:// or https:// address, a folder or a tgz file.
    variable: the variable that holds the digest, for messages.
    """

    reference: str
    version: str = ""
    repository: str = ""
    digest: str = ""
    variable: str = "chart_digest"

    @property
    def name(self) -> str:
        """What people call it: traefik 41.3.0."""
        return f"{self.reference} {self.version}".strip()


def source_of(options: Mapping, variable: str) -> Source:
    """The chart that the options chart_ref, chart_version, chart_repo_url and chart_digest name."""
    return Source(
        options["chart_ref"],
        options["chart_version"] or "",
        options["chart_repo_url"] or "",
        options["chart_digest"] or "",
        variable,
    )


def is_path(reference: str) -> bool:
    """Whether a chart is named by a folder or file, as Helm sees it."""
    if is_address(reference):
        return False
    return reference.startswith(("/", ".", "~")) or reference.endswith((".tgz", ".tar.gz"))


def is_address(reference: str) -> bool:
    """Whether a chart's reference is the whole of its address."""
    return reference.startswith(("oci://", "http://", "https://"))


def normal(digest: str) -> str:
    """A digest without its algorithm, in small letters."""
    return digest.strip().lower().removeprefix("sha256:")


def is_digest(digest: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", normal(digest)) is not None


def problem(source: Source) -> tuple[str, str] | None:
    """(what is wrong, what is right) where a chart from elsewhere is not pinned; None where it is, or lies here."""
    digest = source.digest.strip()
    if is_path(source.reference) or is_digest(digest):
        return None
    if digest == INDEX and not is_address(source.reference):
        return None
    right = f"Set {source.variable} to the SHA-256 of the chart's tgz file ({HOW_TO_PIN})."
    if digest == INDEX:
        return f"{source.variable} is {INDEX}, and {source.reference} lies in no repository that has one", right
    if not digest:
        return (
            f"{source.variable} is empty: nothing says which bytes the chart {source.name} has",
            right[:-1] + f", or to {INDEX}, which holds it against its repository's own index.",
        )
    return f"{source.variable} is {digest}, which is no SHA-256", right


def in_index(index: object, name: str, version: str) -> str:
    """The digest that a repository's index has for a chart, in small letters; empty where it has none.

    index: the content of index.yaml, whatever that is. A v before the version counts for nothing, as for Helm.
    """
    entries = index.get("entries") if isinstance(index, Mapping) else None
    listed = entries.get(name) if isinstance(entries, Mapping) else None
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, Mapping) and str(entry.get("version", "")).removeprefix("v") == version.removeprefix("v"):
            found = normal(str(entry.get("digest") or ""))
            return found if is_digest(found) else ""
    return ""


def refusal(source: Source, wanted: str, got: str, indexed: str) -> str:
    """What is said of an archive that has another digest.

    wanted, got: digests; indexed: the one in the repository's index, empty where there is none.
    """
    by = "the repository's index" if source.digest == INDEX else source.variable
    said = [f"The archive of the chart {source.name} is not the one that {by} names: nothing was changed with it."]
    said += [f"    wanted: sha256:{wanted}", f"    got:    sha256:{got}"]
    if source.digest != INDEX and indexed == got:
        said.append(
            f"    The repository's index names the archive that came. Either {source.variable} belongs to another "
            f"version than {source.version}: set both together. Or the archive was replaced after it was published: "
            "ask why."
        )
    elif indexed == wanted:
        said.append("    The repository's index names the one that was wanted: this one was changed. Do not use it.")
    else:
        said.append(
            f"    Set {source.variable} together with the chart's version. Where both are as they were, the archive "
            "was changed or made anew: do not use it before you know why."
        )
    return "\n".join(said)
