# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Modules that run in ansible-playbook's own Python: they answer as modules do, and only where that is the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ansible import constants
from ansible_collections.speechops.riva.plugins.plugin_utils import direct

ROOT = Path(__file__).resolve().parents[3]
MODULE = "validate_aggregation_layer"


def action(
    transport="local", become=False, async_val=0, delegate_to=None, environment=None, interpreter=sys.executable
):
    """What runs_here asks of an action plugin, and the variables of its task."""
    plugin = SimpleNamespace(
        _connection=SimpleNamespace(transport=transport),
        _play_context=SimpleNamespace(become=become),
        _task=SimpleNamespace(async_val=async_val, delegate_to=delegate_to),
        _templar=SimpleNamespace(template=lambda value: value),
        _compute_environment_string=lambda found: found.update(environment or {}),
    )
    return plugin, {"ansible_python_interpreter": interpreter}


def test_the_same_python_here_is_used():
    assert direct.runs_here(*action())


@pytest.mark.parametrize(
    "other",
    [
        {"transport": "ssh"},
        {"become": True},
        {"async_val": 60},
        {"delegate_to": "bastion"},
        {"environment": {"KUBECONFIG": "/other"}},
        {"interpreter": "/usr/bin/python3.12"},
        {"interpreter": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_any_other_way_is_that_of_every_module(other):
    assert not direct.runs_here(*action(**other))


def test_files_that_are_to_be_kept_are_written(monkeypatch):
    monkeypatch.setattr(constants, "DEFAULT_KEEP_REMOTE_FILES", True)
    assert not direct.runs_here(*action())


def asked(module, arguments=None):
    """What in_child answers in a Python of its own, as in a worker of Ansible's: pytest's has threads beside it.

    `module` is the source of a function main() that takes the place of the module's; empty where its own is meant.
    """
    lines = [
        "import atexit, json, os, signal, sys",
        "from types import SimpleNamespace",
        "from ansible_collections.speechops.riva.plugins.plugin_utils import direct",
        *([module, "direct.importlib.import_module = lambda name: SimpleNamespace(main=main)"] if module else []),
        "before = len(os.listdir('/proc/self/fd'))",
        f"answer = direct.in_child({MODULE!r}, {arguments or {}!r})",
        "more = len(os.listdir('/proc/self/fd')) - before",
        "left = {'LEFT' in os.environ, '/left' in sys.path, more > 0}",
        "print(json.dumps({'answer': answer, 'pid': os.getpid(), 'left': True in left}), flush=True)",
    ]
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_wrong_option_is_refused_as_ever():
    answer = asked("", {"kubeconfig": "/nowhere", "patience": 3})["answer"]
    assert answer["failed"]
    assert re.search("Unsupported parameters for .* module: patience", answer["msg"])


def test_what_a_module_waits_for_is_shown(tmp_path):
    """The newest line every so often, beside whatever else it says there; and not once it has answered."""
    shown = tmp_path / "shown"
    module = f"""
direct.SECONDS_BETWEEN_LINES = 0.05
direct.in_child.__defaults__ = (lambda line: open({str(shown)!r}, "a").write(line + "\\n"),)
def main():
    import time
    from ansible_collections.speechops.riva.plugins.module_utils import waiting
    print("x" * (1 << 15), file=sys.stderr)
    for number in (1, 2):
        waiting.say(f"pod\\n  {{number}}", number, 60)
        print("a warning", file=sys.stderr, flush=True)
        time.sleep(0.5)
    print(json.dumps({{"changed": False}}))
"""
    assert asked(module)["answer"] == {"changed": False}
    lines = shown.read_text().splitlines()
    assert lines[0] == "waits for pod 1 (1 of 60 s)"
    assert lines[-1] == "waits for pod 2 (2 of 60 s)"
    assert set(lines) == {lines[0], lines[-1]}


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended without an answer (signal 9)"),
        ("1 / 0", "ended without an answer (exit status 1): ZeroDivisionError: division by zero"),
        ("pass", "ended without an answer (exit status 0)"),
    ],
    ids=["killed", "an error of its own", "nothing said"],
)
def test_a_module_that_dies_is_told(end, words):
    answer = asked(f"def main():\n    {end}")["answer"]
    assert answer["failed"]
    assert words in answer["msg"]


def test_the_end_of_a_module_is_that_of_a_program(tmp_path):
    """The Kubernetes client takes its files with a private key away then; Ansible's own end is Ansible's."""
    ends = tmp_path / "ends"
    said = f"atexit.register(lambda who: open({str(ends)!r}, 'a').write(who + ' '), "
    main = f"def main():\n    {said}'module')\n    print(json.dumps({{'ended': os.path.exists({str(ends)!r})}}))"
    own = f"{said}'play')\n{main}"
    assert asked(own)["answer"] == {"ended": False}
    assert ends.read_text() == "module play "


def test_nothing_of_a_module_stays():
    lines = ["os.environ['LEFT'] = 'here'", "sys.path.append('/left')", "print(json.dumps({'pid': os.getpid()}))"]
    module = "\n    ".join(["def main():", *lines])
    seen = asked(module)
    assert seen["answer"]["pid"] != seen["pid"]
    assert not seen["left"]


def play(tmp_path, interpreter):
    """(what a task with a module of ours answers, how many programs Ansible started for it)."""
    book = tmp_path / "play.yml"
    task = {
        "speechops.riva.validate_aggregation_layer": {"kubeconfig": "/nowhere"},
        "ignore_errors": True,
        "register": "x",
    }
    tasks = [task, {"ansible.builtin.copy": {"content": "{{ x | to_json }}", "dest": str(tmp_path / "x.json")}}]
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    words = [Path(sys.executable).parent / "ansible-playbook", "-vvv", "-i", "localhost,", "-c", "local", book]
    done = subprocess.run(
        [str(word) for word in [*words, "-e", f"ansible_python_interpreter={interpreter}"]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first = re.split(r"^TASK \[.*copy", done.stdout, flags=re.MULTILINE)[0]
    return json.loads((tmp_path / "x.json").read_text()), first.count(" EXEC ")


def test_a_play_gets_the_same_answer_either_way(tmp_path):
    # The same Python by another path: a module is then sent to it as to any other.
    other = Path(sys.executable).parent / ".." / "bin" / Path(sys.executable).name
    (here, none), (as_ever, some) = play(tmp_path, "{{ ansible_playbook_python }}"), play(tmp_path, other)
    assert here["failed"]
    assert here["msg"] == as_ever["msg"]
    assert (none, some > 0) == (0, True)
