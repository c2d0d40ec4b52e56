# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's switch is the process that was waited for, also while it can't be found for a moment."""

from pathlib import Path
from types import SimpleNamespace

from lab import cluster


def test_a_switch_that_shows_no_marker_for_a_moment_is_used_all_the_same(monkeypatch):
    seen, used = iter([None, 42, None]), []
    monkeypatch.setattr(cluster.processes, "switch_process", lambda _lab: next(seen))
    monkeypatch.setattr(cluster.processes, "start", lambda *_words: None)
    monkeypatch.setattr(cluster.os, "readlink", lambda path: f"of {path}")
    monkeypatch.setattr(cluster.network, "connect_machine", lambda _lab, pid: used.append(pid))
    cluster.start_switch(SimpleNamespace(name="x", root=Path("/nowhere")))
    assert used == [42]


def test_a_switch_that_is_there_is_not_started_again(monkeypatch):
    used = []
    monkeypatch.setattr(cluster.processes, "switch_process", lambda _lab: 7)
    monkeypatch.setattr(cluster.network, "connect_machine", lambda _lab, pid: used.append(pid))
    cluster.start_switch(SimpleNamespace(name="x", root=Path("/nowhere")))
    assert used == [7]
