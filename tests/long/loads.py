"""Callers who speak while something is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.running_lab import AUDIO, RunningLab
from tests.integration.test_site import extra


@contextmanager
def under_load(lab: RunningLab, folder: Path, streams: int, seconds: int, ramp: int = 5) -> Iterator[dict]:
    """While the block runs so many callers speak, and it ends when they do; no stream may have failed or been refused.

    Gives what the summary says of the streams, once the block is over.
    """
    profile = [{"streams": streams, "duration": seconds, "ramp": ramp}]
    words = extra(load_test_profile=profile, load_test_report_folder=str(folder), load_test_audio=AUDIO)
    load, counted = lab.begin_play("playbooks/load_test.yml", *words), {}
    try:
        yield counted
        printed, _ = load.communicate(timeout=500)
    finally:
        load.kill()
    assert load.returncode == 0, printed
    counted.update(json.loads((folder / "summary.json").read_text())["streams"])
    assert (counted["failed"], counted["finished"]) == (0, counted["opened"]), printed
    assert counted["opened"] > 0
