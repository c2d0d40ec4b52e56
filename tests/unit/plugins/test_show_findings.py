# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""show_findings prints for people on a terminal, for people without one, and for programs."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FINDING = {"check": "hpa", "subject": "riva-asr", "status": "failed", "message": "it is gone", "remedy": "make one"}
GOOD = {"check": "pods", "subject": "riva-asr", "status": "ok", "message": "3 pods", "remedy": ""}


def run(terminal, format_="table", findings=(FINDING, GOOD, FINDING), **environment):
    """Output of an ad-hoc task, on a terminal of its own or through a pipe."""
    arguments = json.dumps({"cluster": "east", "format": format_, "findings": list(findings)})
    ansible = Path(sys.executable).parent / "ansible"
    command = [ansible, "localhost", "-i", "localhost,", "-c", "local", "-m", "speechops.riva.show_findings"]
    hidden = ("ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "NO_COLOR")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    leader, follower = pty.openpty()
    done = subprocess.Popen(
        [*command, "-a", arguments],
        cwd=ROOT,
        env={**kept, "TERM": "xterm-256color", **environment},
        stdin=subprocess.DEVNULL,
        stdout=follower if terminal else subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)
    if not terminal:
        os.close(leader)
        return done.communicate()[0].decode()
    parts = []
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # The last writer has gone.
            break
        if not part:
            break
        parts.append(part)
    os.close(leader)
    done.wait()
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("terminal", "environment", "colored"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False)],
    ids=["terminal", "NO_COLOR", "pipe"],
)
def test_the_table(terminal, environment, colored):
    output = run(terminal, **environment)
    failed, good = ("\x1b[31mfailed\x1b[0m", "\x1b[32mok    \x1b[0m") if colored else ("failed", "ok    ")
    assert f"{failed}  hpa    riva-asr  it is gone\n        -> make one\n{good}  pods   riva-asr  3 pods\n" in output
    assert output.count("riva-asr  it is gone\n") == 1
    assert "east: failed\n" in output


def test_json_is_one_line():
    line = next(line for line in run(False, "json").splitlines() if line.startswith('{"'))
    assert json.loads(line) == {"cluster": "east", "status": "failed", "findings": [FINDING, GOOD]}


def test_a_wrong_form_is_named():
    assert "value of format must be one of: table, json" in run(False, "yaml")
