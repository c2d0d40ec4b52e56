# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over Helm releases and their values; the sense is in module_utils."""

from __future__ import annotations

from ansible_collections.speechops.riva.plugins.module_utils import metallb, releases, riva_values, way_in


class FilterModule:
    """Filters over Helm releases and their values."""

    def filters(self):
        return {
            "release_recovery": releases.recovery,
            "riva_chart_values": riva_values.chart_values,
            "riva_gpu_floor": riva_values.gpu_floor,
            "ngc_secrets": riva_values.ngc_secrets,
            "plain_types": riva_values.plain_types,
            "metallb_objects": metallb.objects,
            "set_only": way_in.set_only,
            "traefik_policies": way_in.traefik_policies,
            "certificate_object": way_in.certificate_object,
        }
