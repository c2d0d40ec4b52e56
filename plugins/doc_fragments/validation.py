# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # Options and returns that all validators share.
    DOCUMENTATION = r"""
options:
  wait:
    description:
      - Whether to look again until nothing is broken.
      - Without it the module looks once.
    type: bool
    default: false
  wait_timeout:
    description:
      - Seconds for the whole module, with and without O(wait). One deadline covers connecting, every request,
        every retry and every further look.
    type: int
    default: 120
  wait_sleep:
    description:
      - Seconds between two looks with O(wait).
    type: int
    default: 5
  fail_on:
    description:
      - From which status of a finding on the task fails.
      - With V(never) the task always returns its findings, also when the cluster can not be reached.
    type: str
    default: failed
    choices: [failed, warning, never]
requirements:
  - python >= 3.11
  - kubernetes >= 24.2.0
  - the collection kubernetes.core
notes:
  - Reads only; nothing is ever changed.
  - The options for authentication can be given once for all modules of this collection with
    C(module_defaults) and the action group C(group/speechops.riva.cluster).
  - An unreachable API server, a missing kubeconfig, refused credentials and a missing permission are findings
    like any other (check V(api)), each with its own message and remedy.
author:
  - speechops.riva maintainers (@speechops)
"""

    ATTRIBUTES = r"""
attributes:
  check_mode:
    description: Can run in check mode. It reads only, so the answer is the same.
    support: full
  diff_mode:
    description: Nothing is changed, so there is nothing to show.
    support: none
"""
