# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""While a bundle is made, a line says how much of it is there; only where it can be seen from here."""

import threading
from types import SimpleNamespace

import pytest
from ansible_collections.speechops.riva.plugins.action import make_bundle


class Action(make_bundle.ActionModule):
    """The action without Ansible around it; its module writes a file, and ends once a line has shown it."""

    def __init__(self, folder, transport="local", check_mode=False):
        self._task = SimpleNamespace(args={"folder": str(folder)}, check_mode=check_mode)
        self._connection = SimpleNamespace(transport=transport)
        self._display = SimpleNamespace(display=self.show)
        self.folder, self.lines, self.shown = folder, [], threading.Event()

    def show(self, line):
        self.lines.append(line)
        # An earlier look may have met the file half written.
        if "3 MiB" in line:
            self.shown.set()

    def _execute_module(self, module_name, module_args, task_vars):
        (self.folder / "images").mkdir()
        (self.folder / "images" / "blob").write_bytes(bytes(3 << 20))
        self.shown.wait(5 if self._connection.transport == "local" and not self._task.check_mode else 0.1)
        return {"changed": True, "asked": module_args}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(make_bundle, "SECONDS_BETWEEN_LINES", 0.02)
    monkeypatch.setattr(make_bundle.ActionBase, "run", lambda *_words: {})


def test_a_line_says_how_much_there_is(tmp_path):
    action = Action(tmp_path)
    assert action.run(task_vars={"inventory_hostname": "lab"}) == {"changed": True, "asked": {"folder": str(tmp_path)}}
    assert action.lines[-1] == f"    [lab] {tmp_path}: 1 files, 3 MiB so far"


@pytest.mark.parametrize("other", [{"transport": "ssh"}, {"check_mode": True}])
def test_no_line_where_nothing_can_be_seen(tmp_path, other):
    action = Action(tmp_path, **other)
    action.run()
    assert action.lines == []
