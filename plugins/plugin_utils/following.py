# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of progress while a module runs, of what it leaves in a folder of this machine meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any


@contextmanager
def followed(look: Callable[[], Iterable[str]], show: Callable[[str], None], seconds: float) -> Iterator[None]:
    """While the block runs, every so many seconds, show the lines that *look* returns."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(seconds):
            try:
                lines = list(look())
            except (OSError, ValueError, KeyError, TypeError) as error:
                lines = [f"no progress can be shown: {error}"]
            for line in lines:
                show(line)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join(timeout=seconds)


def run_followed(
    action: Any, task_vars: dict | None, option: str, look_into: Callable[[str], Callable], seconds: float, **more: Any
) -> dict:
    """Run the module of an action's name; show what it leaves in its folder meanwhile, and the table at its end.

    action: the ActionModule; option: the one that names the folder; look_into: takes the folder and gives what
    *followed* looks with; seconds: between two looks; more: options that the module gets there.
    Returns the module's result, without the table.
    """
    args = dict(action._task.args)
    prefix = f"    [{(task_vars or {}).get('inventory_hostname', '')}] "
    progress: AbstractContextManager = nullcontext()

    def show(line: str) -> None:
        action._display.display(prefix + line)

    # A folder can be looked into only where the module runs on this machine.
    if action._connection.transport == "local" and args.get(option):
        args[option] = os.path.abspath(os.path.expanduser(str(args[option])))
        args.update(more)
        if not action._task.check_mode:
            progress = followed(look_into(args[option]), show, seconds)
    with progress:
        result = action._execute_module(module_name=action.MODULE, module_args=args, task_vars=task_vars or {})
    for line in result.pop("table", []):
        action._display.display(f"    {line}".rstrip())
    return result
