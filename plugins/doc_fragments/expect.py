# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # What a release needs beside its own workloads (EXPECT of module_utils/release_looks.py).
    DOCUMENTATION = r"""
options:
  expect:
    description: Objects beside the release's own workloads that have to be as described.
    type: list
    elements: dict
    default: []
    suboptions:
      what:
        description: What is expected, in words; the subject of the line of progress and of the finding.
        type: str
        required: true
      resource:
        description: Path of the list in the Kubernetes API, for example V(/api/v1/nodes).
        type: str
        required: true
      name:
        description: Only the object of this name.
        type: str
      label_selector:
        description: Only objects with these labels.
        type: str
      at_least:
        description: How many objects have to meet the expectation, or how large the sum has to be.
        type: int
        default: 1
      sum:
        description: >-
          Path of a number to add up over the objects; a dot inside a key is written with a backslash before it.
        type: str
      ready:
        description: Whether the objects are workloads whose pods have to be ready (one pod or more).
        type: bool
        default: false
      fields:
        description: Values that the objects have to have.
        type: list
        elements: dict
        default: []
        suboptions:
          path:
            description: Path of the value.
            type: str
            required: true
          equals:
            description: The value.
            type: str
          exists:
            description: Whether any value will do.
            type: bool
            default: false
      conditions:
        description: Conditions that the objects have to have.
        type: list
        elements: dict
        default: []
        suboptions:
          type:
            description: Type of the condition.
            type: str
            required: true
          status:
            description: Status of the condition.
            type: str
            default: "True"
          reason:
            description: Reason of the condition; any where it is left out.
            type: str
      remedy:
        description: What to do where the expectation is not met.
        type: str
        default: ""
"""
