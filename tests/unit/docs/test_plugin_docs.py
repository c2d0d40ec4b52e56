# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `ansible-doc` shows of each module and filter: whole, the same as the code, with examples that would run."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.playbook.task import Task
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins" / "modules").glob("*.py"))
FILTERS = sorted(path.stem for path in (ROOT / "plugins" / "filter").glob("*.yml"))
LOOKUPS = sorted(path.stem for path in (ROOT / "plugins" / "lookup").glob("*.py"))
CODE_OF_FILTERS = sorted(path.stem for path in (ROOT / "plugins" / "filter").glob("*.py"))
FINDING = {"check": "route", "subject": "riva/riva-asr", "status": "ok", "message": "it leads there", "remedy": ""}

HARDWARE = json.loads((ROOT / "tests" / "fixtures" / "gpu" / "h100-hardware-info.json").read_text())["hardware"]


def driver_settings():
    """The defaults of the role nvidia_driver, without their prefix."""
    text = (ROOT / "roles" / "nvidia_driver" / "defaults" / "main.yml").read_text(encoding="utf-8")
    return {name.removeprefix("nvidia_driver_"): value for name, value in yaml.safe_load(text).items()}


# What the examples of the filters read.
VARIABLES = {
    "hardware": HARDWARE,
    "driver_settings": driver_settings(),
    "result": {"findings": [FINDING]},
    "values": {"replicas": "3", "enabled": "True"},
    "history": {"stdout": '[{"revision": 1, "status": "deployed", "chart": "riva-0.1.0"}]'},
    "riva_ngc_api_key": "not-a-key",
    "riva_services": [{"name": "riva-asr"}],
    "settings": {
        "image_repository": "nvcr.io/nvidia/riva/riva-speech",
        "image_tag": "2.19.0",
        "model_store": {"type": "emptyDir"},
        "model_load_seconds": 3600,
        "longest_stream_seconds": 600,
        "queue_time_target_ms": 10,
        "scrape_interval": 15,
        "ingress_class": "riva-traefik",
    },
}


@functools.cache
def ansible_doc(kind, *names):
    """Everything that ansible-doc knows of plugins of ours, read in one go."""
    command = [Path(sys.executable).with_name("ansible-doc"), "-t", kind, "-j"]
    done = subprocess.run(
        [*command, *(f"speechops.riva.{name}" for name in names)],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.removeprefix("speechops.riva."): shown for name, shown in json.loads(done.stdout).items()}


def module_doc(name):
    return ansible_doc("module", *MODULES)[name]


class Caught(Exception):
    pass


def spec_of(name, monkeypatch):
    """The argument spec that a module hands to AnsibleModule."""
    module = importlib.import_module(f"ansible_collections.speechops.riva.plugins.modules.{name}")

    def catch(argument_spec, **settings):
        raise Caught(argument_spec, settings)

    monkeypatch.setattr(module, "AnsibleModule", catch)
    with pytest.raises(Caught) as caught:
        module.main()
    return caught.value.args


def comparable(options, suboptions):
    """What documentation and argument spec have in common, in one form."""
    return {
        name: {
            "type": option.get("type", "str"),
            "elements": option.get("elements"),
            "default": option.get("default"),
            "choices": sorted(option.get("choices") or []),
            "required": option.get("required", False),
            "options": comparable(option.get(suboptions) or {}, suboptions),
        }
        for name, option in options.items()
    }


def undescribed(options, inner, where=""):
    """Places of options or return values that lack a description or a type."""
    for name, option in options.items():
        place = f"{where}{name}"
        if not option.get("description"):
            yield f"{place}: description"
        if not option.get("type"):
            yield f"{place}: type"
        if option.get("type") == "list" and not option.get("elements"):
            yield f"{place}: elements"
        yield from undescribed(option.get(inner) or {}, inner, f"{place}.")


@pytest.mark.parametrize("name", MODULES)
def test_documentation_and_argument_spec_of_a_module_agree(name, monkeypatch):
    spec, settings = spec_of(name, monkeypatch)
    assert settings.get("supports_check_mode"), "a module that refuses check mode breaks --check for the whole play"
    documented = {key: value for key, value in module_doc(name)["doc"]["options"].items() if key not in AUTH_ARG_SPEC}
    own = {key: value for key, value in spec.items() if key not in AUTH_ARG_SPEC}
    assert comparable(documented, "suboptions") == comparable(own, "options")


@pytest.mark.parametrize("name", MODULES)
def test_the_page_of_a_module_is_whole(name):
    page = module_doc(name)
    doc = page["doc"]
    for part in ("short_description", "description", "author", "version_added", "attributes"):
        assert doc.get(part), part
    assert {"check_mode", "diff_mode"} <= set(doc["attributes"])
    assert list(undescribed(doc["options"], "suboptions")) == []
    assert page["return"]
    assert list(undescribed(page["return"], "contains")) == []
    assert [key for key, value in page["return"].items() if not value.get("returned")] == []


def filled(value):
    """A template stands for a value of any type."""
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_would_run(name, monkeypatch):
    tasks = yaml.safe_load(module_doc(name)["examples"])
    used = set()
    for task in tasks:
        assert task["name"]
        (action,) = set(task) - set(Task.fattributes)
        module = action.removeprefix("speechops.riva.")
        used.add(module)
        given = task[action] or {}
        spec, _settings = spec_of(module, monkeypatch)
        loose = {key: {"type": "raw"} if filled(given.get(key)) else option for key, option in spec.items()}
        assert ArgumentSpecValidator(loose).validate(given).error_messages == [], task["name"]
    assert name in used


@pytest.mark.parametrize("name", FILTERS)
def test_the_page_of_a_filter_is_whole(name):
    page = ansible_doc("filter", *FILTERS)[name]
    for part in ("short_description", "description", "author", "version_added", "options"):
        assert page["doc"].get(part), part
    assert page["doc"]["options"]["_input"]["required"]
    assert [key for key, option in page["doc"]["options"].items() if not option.get("description")] == []
    assert page["return"]["_value"]["description"]


@pytest.mark.parametrize("name", LOOKUPS)
def test_the_page_of_a_lookup_is_whole(name):
    page = ansible_doc("lookup", *LOOKUPS)[name]
    for part in ("short_description", "description", "author", "version_added", "options"):
        assert page["doc"].get(part), part
    assert page["return"]["_raw"]["description"]
    assert f"speechops.riva.{name}" in page["examples"]


def filters():
    found = {}
    for name in CODE_OF_FILTERS:
        module = importlib.import_module(f"ansible_collections.speechops.riva.plugins.filter.{name}")
        found.update(module.FilterModule().filters())
    return found


def test_every_filter_has_a_page():
    assert sorted(filters()) == FILTERS


@pytest.mark.parametrize("name", FILTERS)
def test_the_examples_of_a_filter_run(name):
    engine = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    engine.filters["from_json"] = json.loads
    engine.filters.update({f"speechops.riva.{key}": function for key, function in filters().items()})
    examples = yaml.safe_load(ansible_doc("filter", *FILTERS)[name]["examples"])
    assert examples
    for template in examples.values():
        assert f"speechops.riva.{name}" in template
        assert engine.from_string(template).render(VARIABLES)
