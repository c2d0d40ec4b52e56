# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a cluster's variables against the roles' argument specs, then lets the module look at the cluster."""

from __future__ import annotations

import glob
import os

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils import inputs, scaling_plan, way_in

ROLES = os.path.join(os.path.dirname(__file__), "..", "..", "roles")
MODULE = "speechops.riva.preflight"


def specs():
    """(options of all roles by variable, names of the roles) from the roles' own argument specs."""
    options, roles = {}, []
    for path in sorted(glob.glob(os.path.join(ROLES, "*", "meta", "argument_specs.yml"))):
        role = os.path.basename(os.path.dirname(os.path.dirname(path)))
        if role.startswith("_"):
            continue
        roles.append(role)
        with open(path, encoding="utf-8") as file:
            entries = yaml.safe_load(file)["argument_specs"]
        for entry in entries.values():
            options.update(entry.get("options") or {})
    return options, roles


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        result["changed"] = False
        options, roles = specs()
        variables, findings = self.variables(task_vars, options, roles)
        findings += inputs.check_variables(options, roles, variables)
        findings += inputs.check_services(variables.get("riva_services"))
        findings += way_in.check_way_in(variables)
        services = variables.get("riva_services", options["riva_services"]["default"])
        calibration = variables.get("riva_calibration")
        if not findings:
            preset = variables.get("riva_scaling_preset", options["riva_scaling_preset"]["default"])
            findings += scaling_plan.check_scaling(services, calibration, preset)
        if any(item["status"] == "failed" for item in findings):
            # A cluster is not asked with inputs that are known to be wrong.
            return self.told(result, findings)
        stack = inputs.gpu_stack(variables)
        arguments = {
            "kubeconfig": variables["cluster_kubeconfig"],
            "context": variables.get("cluster_context") or None,
            "charts": {
                name: value
                for name, value in variables.items()
                if name.endswith("_chart_ref") and isinstance(value, str) and name not in inputs.unused_charts(stack)
            },
            "gpus_expected_now": stack == "preinstalled",
            "adapter_namespace": variables.get("prometheus_adapter_namespace", "monitoring"),
            "gpus_needed": scaling_plan.gpus_needed(services, calibration),
        }
        answer = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        if answer.get("failed"):
            return answer
        return self.told({**result, **answer}, findings + answer["findings"])

    def variables(self, task_vars, options, roles):
        """The variables that concern the roles, evaluated; a finding for each that can't be."""
        found, findings = {}, []
        for name in inputs.relevant(task_vars, options, roles):
            try:
                found[name] = self._templar.template(task_vars[name])
            except AnsibleError as error:
                words = " ".join(str(error).split())
                findings.append(inputs.finding(name, f"{name} can't be evaluated: {words}", "Correct the template."))
        return found, findings

    def told(self, result, findings):
        for item in findings:
            if item["status"] == "warning":
                self._display.warning(inputs.as_text([item]))
        result["findings"] = findings
        failed = [item for item in findings if item["status"] == "failed"]
        if failed:
            result["failed"] = True
            result["msg"] = "Nothing was changed, since this would not work:\n" + inputs.as_text(failed)
        else:
            result["msg"] = "Inputs and cluster are fit."
        return result
