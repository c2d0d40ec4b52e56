# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Charts from elsewhere, fetched once by Helm and held against their digests before anything reads them.

What was held lies below its digest in the user's cache and is held again at each use, so a run where nothing is to be
done asks no repository.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping

from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import (
    INDEX,
    ChartError,
    Source,
    in_index,
    is_address,
    is_path,
    normal,
    problem,
    refusal,
)

try:
    import yaml

    LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
except ImportError:  # Ansible itself needs it, and this runs on the controller
    yaml = None  # type: ignore[assignment]

# The repository's name in a Helm configuration of its own.
REPOSITORY = "chart"


def cache_folder(environment: Mapping[str, str] = os.environ) -> str:
    """Where charts are kept that were held against their digest."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "speechops.riva", "charts")


def digest_of(path: str) -> str:
    """The SHA-256 of a file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def archive(run: Callable, helm: str, source: Source, cache: str | None = None) -> str:
    """The path of a chart that is what its digest says: a file in the cache, or what lies on the disk anyway.

    Args:
        run: runs a command and returns (exit code, output, errors), as AnsibleModule.run_command does.
        helm: path of the helm program.
        source: the chart.
        cache: folder for archives; the user's where left out.

    Raises:
        ChartError: it can't be fetched, is not pinned, or has another digest.
    """
    if is_path(source.reference):
        return os.path.expanduser(source.reference)
    if wrong := problem(source):
        raise ChartError("\n    ".join(wrong))
    cache = cache or cache_folder()
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        wanted = _remembered(cache, source) if source.digest.strip() == INDEX else normal(source.digest)
        if wanted and digest_of(_place(cache, wanted)) == wanted:
            return _place(cache, wanted)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            return _fetched(run, helm, source, cache, work)
    except OSError as error:
        raise ChartError(
            f"The chart {source.name} can't be kept in {cache}: {error}\n"
            "    Set XDG_CACHE_HOME to a folder that may be written."
        ) from error


def _fetched(run: Callable, helm: str, source: Source, cache: str, work: str) -> str:
    """Pull into the folder `work`, hold against the digest, and move into the cache."""
    pulled, index = _pull(run, helm, source, work)
    got = digest_of(pulled)
    by_index = source.digest.strip() == INDEX
    # An index has megabytes: it is read only where it counts.
    indexed = _indexed(index, source) if by_index or got != normal(source.digest) else ""
    if by_index and not indexed:
        raise ChartError(
            f"The index of {source.repository} has no digest of the chart {source.name}: nothing was changed with it.\n"
            f"    Set {source.variable} to the SHA-256 of the chart's tgz file; the one that came has sha256:{got}."
        )
    wanted = indexed if by_index else normal(source.digest)
    if got != wanted:
        raise ChartError(refusal(source, wanted, got, indexed))
    os.replace(pulled, _place(cache, wanted))
    if by_index:
        with open(os.path.join(work, "digest"), "w", encoding="ascii") as file:
            file.write(wanted)
        os.replace(os.path.join(work, "digest"), _memory(cache, source))
    return _place(cache, wanted)


def _pull(run: Callable, helm: str, source: Source, work: str) -> tuple[str, str]:
    """(path of the archive, path of the repository's index); that one is empty where there is no repository."""
    target = os.path.join(work, "pulled")
    os.mkdir(target)
    reference, index, options = source.reference, "", []
    if not is_address(reference) and source.repository:
        # A configuration of its own, so that the index stays here to be read, and the user's is not touched.
        options = [f"--repository-config={work}/repositories.yaml", f"--repository-cache={work}"]
        _helm(run, [helm, "repo", "add", REPOSITORY, source.repository, *options], source)
        reference, index = f"{REPOSITORY}/{reference}", os.path.join(work, f"{REPOSITORY}-index.yaml")
    version = ["--version", source.version] if source.version else []
    _helm(run, [helm, "pull", reference, *version, f"--destination={target}", *options], source)
    names = os.listdir(target)
    if len(names) != 1:
        raise ChartError(f"The chart {source.name} can't be fetched: helm pull left {len(names)} files")
    return os.path.join(target, names[0]), index


def _helm(run: Callable, words: list[str], source: Source) -> None:
    try:
        rc, out, err = run(words)
    except OSError as error:
        raise ChartError(f"The chart {source.name} can't be fetched: {words[0]} can't be run: {error}") from error
    if rc != 0:
        raise ChartError(
            f"The chart {source.name} can't be fetched: {err.strip() or out.strip() or f'helm ended with {rc}'}"
        )


def _indexed(index: str, source: Source) -> str:
    if not index or yaml is None:
        return ""
    try:
        with open(index, "rb") as file:
            return in_index(yaml.load(file, Loader=LOADER), source.reference, source.version)
    except (OSError, yaml.YAMLError):
        return ""


def _place(cache: str, digest: str) -> str:
    return os.path.join(cache, f"{digest}.tgz")


def _memory(cache: str, source: Source) -> str:
    """Where it is kept which digest a repository's index had for a chart."""
    words = "\n".join((source.repository, source.reference, source.version))
    return os.path.join(cache, f"{hashlib.sha256(words.encode()).hexdigest()}.index")


def _remembered(cache: str, source: Source) -> str:
    try:
        with open(_memory(cache, source), encoding="ascii") as file:
            found = file.read().strip()
    except FileNotFoundError:
        return ""
    return found if re.fullmatch(r"[0-9a-f]{64}", found) else ""
