# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds a cluster's variables against the roles' argument specs, then lets the module look at the cluster."""

from __future__ import annotations

import functools
import glob
import os
import re

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.speechops.riva.plugins.module_utils import (
    input_chart_values,
    input_contradictions,
    input_secrets,
    inputs,
    riva_values,
    scaling_plan,
    way_in,
)
from ansible_collections.speechops.riva.plugins.plugin_utils import direct

try:  # ansible-core 2.19 and newer; before, what YAML held knew its place by itself.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

ROLES = os.path.join(os.path.dirname(__file__), "..", "..", "roles")
MODULE = "speechops.riva.preflight"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read(*parts):
    with open(os.path.join(ROLES, *parts), encoding="utf-8") as file:
        return yaml.load(file, Loader=LOADER)


@functools.cache
def specs():
    """(options of all roles by variable, names of the roles) from the roles' own argument specs."""
    options: dict = {}
    roles = []
    for path in sorted(glob.glob(os.path.join(ROLES, "*", "meta", "argument_specs.yml"))):
        role = os.path.basename(os.path.dirname(os.path.dirname(path)))
        if role.startswith("_"):
            continue
        roles.append(role)
        for entry in _read(role, "meta", "argument_specs.yml")["argument_specs"].values():
            options.update(entry.get("options") or {})
    return options, roles


def place_of(value):
    """Where a value was written, as file and line; empty where that is not known."""
    origin = Origin.get_tag(value) if Origin else None
    if origin is not None:
        line = f", line {origin.line_num}" if origin.path and origin.line_num else ""
        return f"{origin.path or origin.description}{line}"
    position = getattr(value, "ansible_pos", None)
    return f"{position[0]}, line {position[1]}" if position else ""


def set_at(raw, subject):
    """Where the value of a finding's subject was written: that of riva_services[0].name, or what is around it."""
    steps = re.findall(r"[^.\[\]]+", subject)[1:]
    found = place_of(raw)
    for step in steps:
        if isinstance(raw, list) and step.isdigit() and int(step) < len(raw):
            raw = raw[int(step)]
        elif isinstance(raw, dict) and step in raw:
            raw = raw[step]
        else:
            break
        found = place_of(raw) or found
    return found


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        result["changed"] = False
        options, roles = specs()
        only = self._task.args.get("role")
        if only:
            # A host that is no cluster: its variables are those of one role, and there is nothing to ask.
            own = _read(only, "meta", "argument_specs.yml")["argument_specs"]["main"]["options"]
            options, roles = {name: {**option, "required": False} for name, option in own.items()}, [only]
        variables, findings = self.variables(task_vars, options, roles)
        findings += inputs.check_variables(options, roles, variables)
        if only:
            if not findings:
                findings += input_contradictions.check_driver(*inputs.readers(options, variables))
            return self.told(result, findings, task_vars)
        findings += inputs.check_services(variables.get("riva_services"))
        findings += self.free_values(variables)
        services = variables.get("riva_services", options["riva_services"]["default"])
        calibration = variables.get("riva_calibration")
        if not failed(findings):
            preset = variables.get("riva_scaling_preset", options["riva_scaling_preset"]["default"])
            findings += scaling_plan.check_scaling(services, calibration, preset)
            findings += riva_values.check_engines(services, self.engines(variables, options))
        if not failed(findings):
            findings += way_in.check_way_in(variables)
            findings += input_contradictions.check_together(options, variables)
        if failed(findings):
            # A cluster is not asked with inputs that are known to be wrong.
            return self.told(result, findings, task_vars)
        stack = inputs.gpu_stack(variables)
        unused = inputs.unused_charts(stack, variables.get("riva_autoscaler", "hpa"))
        charts = {
            name: value
            for name, value in variables.items()
            if name.endswith("_chart_ref") and isinstance(value, str) and name not in unused
        }
        arguments = {
            "kubeconfig": variables["cluster_kubeconfig"],
            "context": variables.get("cluster_context") or None,
            "charts": charts,
            "helm_binary_path": variables.get("helm_binary_path")
            or os.path.join(variables.get("helm_install_dir") or options["helm_install_dir"]["default"], "helm"),
            "chart_versions": {
                name: str(variables[name.replace("_ref", "_version")])
                for name in charts
                if variables.get(name.replace("_ref", "_version"))
            },
            "gpus_expected_now": stack == "preinstalled",
            "autoscaler": variables.get("riva_autoscaler", "hpa"),
            "keda_namespace": variables.get("keda_namespace", "keda"),
            "min_compute_capability": riva_values.gpu_floor(services, {"engine": variables.get("riva_engine")}),
            "adapter_namespace": variables.get("prometheus_adapter_namespace", "monitoring"),
            "gpus_needed": scaling_plan.gpus_needed(services, calibration),
            "secrets": input_secrets.secrets_needed(options, variables),
        }
        answer = direct.execute(self, MODULE, arguments, task_vars)
        if answer.get("failed"):
            return answer
        return self.told({**result, **answer}, findings + answer["findings"], task_vars)

    @staticmethod
    def engines(variables, options):
        """What the check of the engines needs to know."""

        def value(name):
            return variables.get(name, options[name].get("default"))

        return {
            "engine": value("riva_engine"),
            "autoscaler": value("riva_autoscaler"),
            "preset": value("riva_scaling_preset"),
            "nim": {"image_tag": value("riva_nim_image_tag")},
        }

    def variables(self, task_vars, options, roles):
        """The variables that concern the roles, evaluated; a finding for each that can't be."""
        found, findings = {}, []
        for name in inputs.relevant(task_vars, options, roles):
            try:
                found[name] = self._templar.template(task_vars[name])
            # Before ansible-core 2.19 an error of the template's own, a division by zero, comes as it is.
            except (AnsibleError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                words = " ".join(str(error).split())
                findings.append(inputs.finding(name, f"{name} can't be evaluated: {words}", "Correct the template."))
        return found, findings

    def free_values(self, variables):
        """Findings of free values of our own chart, and warnings for what looks like a secret in those of any chart."""
        found = []
        places = {name: value for name, value in variables.items() if name.endswith("_values")}
        own = {"riva_values": variables.get("riva_values")}
        services = variables.get("riva_services")
        for position, item in enumerate(services if isinstance(services, list) else []):
            if isinstance(item, dict):
                own[f"riva_services[{position}].values"] = item.get("values")
        known = {} if variables.get("riva_chart_ref") else _read("riva", "files", "chart", "values.yaml")
        for place, values in own.items():
            if isinstance(values, dict) and known:
                found += input_chart_values.check_chart_values(place, values, known)
        for place, values in {**places, **own}.items():
            found += input_chart_values.secrets_in_values(place, values)
        return found

    def with_place(self, item, task_vars):
        """The finding, with where its variable was set and which role it belongs to."""
        options, roles = specs()
        name = re.split(r"[.\[]", item["subject"], maxsplit=1)[0]
        words = [] if name in item["message"] or name not in options else [name]
        if name in (task_vars or {}):
            place = set_at(task_vars[name], item["subject"])
            if not place and not isinstance(task_vars[name], (str, list, dict)):
                # True, False and numbers carry no place of their own; their name may. A text without one came by -e,
                # and then the name's is that of what -e hides.
                place = place_of(next(key for key in task_vars if key == name))
            words += [f"set in {place}"] if place else []
        owners = [role for role in roles if name.startswith(role + "_")] if name in options else []
        words += [f"role {max(owners, key=len)}"] if owners else []
        return {**item, "message": f"{item['message']} ({'; '.join(words)})"} if words else item

    def told(self, result, findings, task_vars):
        findings = [self.with_place(item, task_vars) for item in findings]
        for item in findings:
            if item["status"] == "warning":
                self._display.warning(inputs.as_text([item]))
        result["findings"] = findings
        wrong = failed(findings)
        if wrong:
            result["failed"] = True
            result["msg"] = "Nothing was changed, since this would not work:\n" + inputs.as_text(wrong)
        else:
            result["msg"] = "Inputs and cluster are fit."
        return result


def failed(findings):
    return [item for item in findings if item["status"] == "failed"]
