"""What `ansible-test units`, with its own configuration, does not get from pyproject.toml; and what takes long."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The stand-ins are packages by themselves, as they are in their images.
LAB = str(HERE.parents[1] / "lab")
if LAB not in sys.path:
    sys.path.append(LAB)

# Files that `make unit` leaves out, so that it is an answer within a minute, and `make test` runs.
THOROUGH = {
    # Days of load, at each of their seconds.
    "benchmarks/test_scaling_own.py",
    "benchmarks/test_scaling_page.py",
    "benchmarks/test_scaling_replay.py",
    "benchmarks/test_scaling_service.py",
    # Hundreds of spoilt or invented objects for each rule.
    "plugins/test_hostile_objects.py",
    "roles/test_input_rules.py",
    # Many processes of Ansible, of Python or of a browser.
    "docs/test_execution_environment.py",
    "load/test_report_in_browser.py",
    "plugins/test_light_kubernetes.py",
    "plugins/test_show_findings.py",
    "roles/test_wrong_inputs.py",
}


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: takes long; make unit leaves it out, make test does not")


def is_thorough(path):
    return path.is_relative_to(HERE) and path.relative_to(HERE).as_posix() in THOROUGH


def pytest_ignore_collect(collection_path, config):
    # Not even imported by `make unit`: some of them read their cases when they are.
    return True if config.option.markexpr == "not thorough" and is_thorough(collection_path) else None


def pytest_collection_modifyitems(items):
    for item in items:
        if is_thorough(item.path):
            item.add_marker(pytest.mark.thorough)
