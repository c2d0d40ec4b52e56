# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What a Helm chart in a folder or a tgz file says of itself."""

import os
import tarfile
import zlib

try:
    import yaml
except ImportError:  # Ansible itself needs it, and this runs on the controller
    yaml = None  # type: ignore[assignment]


def metadata(path: str) -> dict:
    """Chart.yaml of a chart's folder or tgz file; {} where it can't be read."""
    try:
        if os.path.isdir(path):
            with open(os.path.join(path, "Chart.yaml"), "rb") as file:
                found = yaml.safe_load(file)
        else:
            with tarfile.open(path) as archive:
                found = yaml.safe_load(_member(archive))
    except (OSError, EOFError, zlib.error, tarfile.TarError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _member(archive: tarfile.TarFile) -> bytes:
    """The chart's own Chart.yaml; those of its parts lie deeper."""
    for item in archive:
        if item.isfile() and item.name.count("/") == 1 and item.name.endswith("/Chart.yaml"):
            content = archive.extractfile(item)
            return content.read() if content else b""
    return b""
