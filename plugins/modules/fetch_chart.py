#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fetch_chart
short_description: Fetches a Helm chart and holds it against its digest
version_added: 1.0.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Helm pins a chart of a repository by its version alone and compares its bytes with nothing. This module has Helm
    fetch the chart's archive, fails where it has another SHA-256 than was wanted, and returns the path of the archive,
    for everything that is done with it after.
  - What was fetched is kept in C(speechops.riva/charts) below E(XDG_CACHE_HOME), or below C(~/.cache), and held against
    the digest again at each use. So the repository is asked once.
  - Sub-charts lie in the archive and have its digest.
  - A chart in a folder or a file is returned as it is.
extends_documentation_fragment:
  - speechops.riva.chart
options:
  variable:
    description: Name of the variable that sets the digest, for messages.
    type: str
    default: chart_digest
  helm_binary_path:
    description: Path of the helm program.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: The archive is fetched into the cache also then; a cache is no change.
  diff_mode:
    support: none
    description: Nothing is changed but a cache.
"""

EXAMPLES = r"""
- name: The chart is the one that was pinned
  speechops.riva.fetch_chart:
    helm_binary_path: /usr/local/bin/helm
    chart_ref: keda
    chart_version: 2.20.2
    chart_repo_url: https://kedacore.github.io/charts
    chart_digest: sha256:db60b1fa60f0565fefa4ce2f87e855b6a8854363ee82962fbe28a12a70d64c4c
  register: chart
"""

RETURN = r"""
path:
  description: Path of the archive; O(chart_ref) where that is a folder or a file.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import chart_archives
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import ChartError, source_of


def main():
    spec = {
        "chart_ref": {"type": "str", "required": True},
        "chart_version": {"type": "str"},
        "chart_repo_url": {"type": "str"},
        "chart_digest": {"type": "str", "default": ""},
        "variable": {"type": "str", "default": "chart_digest"},
        "helm_binary_path": {"type": "path", "required": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        source = source_of(module.params, module.params["variable"])
        path = chart_archives.archive(module.run_command, module.params["helm_binary_path"], source)
    except ChartError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, path=path)


if __name__ == "__main__":
    main()
