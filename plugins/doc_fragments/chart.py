# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # Which Helm chart is meant, and what its archive has to be.
    DOCUMENTATION = r"""
options:
  chart_ref:
    description: Chart; a name in a repository, a URL, an OCI reference, a folder or a tgz file.
    type: str
    required: true
  chart_version:
    description: Version of the chart. A folder or a file has its own; of a name without one only Helm knows the newest.
    type: str
  chart_repo_url:
    description: URL of the repository where the chart is a bare name.
    type: str
  chart_digest:
    description:
      - SHA-256 of the chart's archive, with or without C(sha256:) before it; nothing for a folder or a file.
      - V(index) takes the one in the repository's own index. Bytes that were changed on their way are refused with it
        too; a repository that was changed as a whole is not.
    type: str
    default: ""
"""
