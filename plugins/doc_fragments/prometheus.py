# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # Where Prometheus is, which is asked through the API server.
    DOCUMENTATION = r"""
options:
  prometheus_namespace:
    description: Namespace of Prometheus.
    type: str
    default: monitoring
  prometheus_service:
    description: Service of Prometheus.
    type: str
    default: kube-prometheus-stack-prometheus
  prometheus_port:
    description: Port of O(prometheus_service).
    type: int
    default: 9090
"""
