# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of this collection run in ansible-playbook's own Python, where that is the one they would run in anyway.

Otherwise each of them is packed, handed to a shell, unpacked and read by a Python that starts anew: 0.4 s of processor
time before its first line (tests/benchmarks/everyday.py measures a whole site.yml). `ansible.netcommon` does the same
for network modules (its option import_modules). The module runs in a process of its own, forked from the task's: what
it imports, sets or prints is gone with it. With any other connection, user, interpreter or environment it runs as every
module does.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from functools import partial

from ansible import constants
from ansible.module_utils import basic
from ansible.plugins.loader import test_loader
from ansible_collections.speechops.riva.plugins.module_utils.waiting import newest
from ansible_collections.speechops.riva.plugins.plugin_utils.following import followed

try:  # ansible-core 2.19 and newer
    from ansible.module_utils.common.json import Direction, get_module_encoder

    PROFILE: str | None = "legacy"  # Plain JSON, as for every module that asks for nothing else.
    ENCODER = get_module_encoder(PROFILE, Direction.CONTROLLER_TO_MODULE)
except ImportError:
    from ansible.parsing.ajson import AnsibleJSONEncoder

    PROFILE = None
    ENCODER = partial(AnsibleJSONEncoder, vault_to_text=True)

SECONDS_BETWEEN_LINES = 10
MOST_READ = 1 << 14
MODULES = "ansible_collections.speechops.riva.plugins.modules."

# ansible-playbook loads a task's action before it forks the task. What nearly all tasks would load by themselves is
# loaded once then; it opens no connection and starts no thread. What is there is left out of garbage collection, which
# would copy all of it into each task (https://docs.python.org/3/library/gc.html#gc.freeze).
for part in ("cluster", "validation", "release_looks", "chart_archives", "metric_chain", "gpu_requirement"):
    importlib.import_module(f"ansible_collections.speechops.riva.plugins.module_utils.{part}")
# Older Ansible finds none of its own outside ansible-playbook, as in a test.
with contextlib.suppress(KeyError):
    test_loader.get("defined")
gc.collect()
gc.freeze()


def execute(action, name, arguments, task_vars):
    """What a module of this collection answers: run here where it may, or else as `_execute_module` does."""
    if not runs_here(action, task_vars):
        return action._execute_module(module_name=name, module_args=arguments, task_vars=task_vars)
    arguments = dict(arguments)
    action._update_module_args(name, arguments, task_vars)
    prefix = f"    [{task_vars.get('inventory_hostname', '')}] "
    return in_child(name.rsplit(".", 1)[-1], arguments, lambda line: action._display.display(prefix + line))


def runs_here(action, task_vars):
    """Whether a module of this task would run on this machine, as this user, with this Python and this environment."""
    task = action._task
    environment: dict = {}
    if action._connection.transport != "local" or action._play_context.become or task.async_val or task.delegate_to:
        return False
    if constants.DEFAULT_KEEP_REMOTE_FILES:
        return False
    action._compute_environment_string(environment)
    interpreter = action._templar.template(task_vars.get("ansible_python_interpreter"))
    return not environment and interpreter == sys.executable


def in_child(name, arguments, show=print):
    """The answer of module `name`, run in a child of this process.

    Args:
        name: the module's name without its collection.
        arguments: its options, with Ansible's own (_ansible_check_mode and so on).
        show: takes the line that says what the module waits for, every ten seconds that it does.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            _answer(name, arguments, writer, errors.fileno())
        os.close(writer)
        status = None
        try:
            with os.fdopen(reader, "rb") as answers, followed(lambda: awaited(errors), show, SECONDS_BETWEEN_LINES):
                text = answers.read()
            status = os.waitpid(child, 0)[1]
        finally:
            if status is None:  # The task was given up (its timeout, Ctrl-C): so is the module.
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"
        return {
            "failed": True,
            "msg": f"The module {name} ended without an answer ({ended}): {said.strip().rsplit(chr(10), 1)[-1]}",
            "module_stdout": text.decode("utf-8", "replace"),
            "module_stderr": said,
        }


def awaited(errors):
    """The newest line that says what a module waits for, of what it has told so far."""
    # Read by its place: the child writes at the position that the file has.
    size = os.fstat(errors.fileno()).st_size
    said = os.pread(errors.fileno(), MOST_READ, max(0, size - MOST_READ))
    line = newest(said.decode("utf-8", "replace"))
    return [line] if line else []


def _answer(name, arguments, writer, errors):
    """The child: runs the module, whose answer goes to `writer`; never returns."""
    code = 1
    # What the module leaves for its end is done below: the Kubernetes client takes away its files, with a private key
    # among them. What ansible-playbook leaves for its own end is not done here.
    atexit._clear()
    try:
        os.dup2(writer, 1)
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}, cls=ENCODER).encode()
        if PROFILE:
            basic._ANSIBLE_PROFILE = PROFILE
        importlib.import_module(MODULES + name).main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # The process ends here, whatever it was.
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
