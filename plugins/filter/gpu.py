# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over the hardware of GPU nodes; the sense is in module_utils."""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils import device_plugin, driver_plan


class FilterModule:
    """Filters over the hardware of GPU nodes."""

    def filters(self):
        return {
            "driver_plan": driver_plan.plan,
            "driver_packages_to_hold": driver_plan.to_hold,
            "driver_packages_of_node": driver_plan.ours,
            "driver_reboot_reasons": driver_plan.reboot_reasons,
            "device_plugin_configurations": device_plugin.configurations,
            "device_plugin_labels": device_plugin.node_labels,
            "device_plugin_problems": device_plugin.problems,
        }
