# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Filters over the rule set and over findings; the sense is in module_utils."""

from ansible.errors import AnsibleFilterError
from ansible_collections.speechops.riva.plugins.module_utils import findings, scaling_rules


def explained(name, function):
    """The function as a filter: a wrong input is named together with the filter it was given to."""

    def filter_function(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, AttributeError) as error:
            raise AnsibleFilterError(f"speechops.riva.{name}: {error}") from error

    return filter_function


def hpa_metrics(target_ms, metric=scaling_rules.METRIC):
    return [scaling_rules.hpa_metric(target_ms, metric)]


def external_rules(metric, **options):
    return scaling_rules.external_rules(metric=metric, **options)


def queue_time_query(namespace, **options):
    return scaling_rules.queue_time_query(namespace, **options)


class FilterModule:
    """Filters of the scaling loop."""

    def filters(self):
        functions = {
            "adapter_rules": scaling_rules.adapter_rules,
            "external_rules": external_rules,
            "hpa_metrics": hpa_metrics,
            "quantity": scaling_rules.quantity,
            "queue_time_query": queue_time_query,
            "findings_table": findings.table,
            "worst_status": findings.worst,
        }
        return {name: explained(name, function) for name, function in functions.items()}
