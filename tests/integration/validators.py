"""Runs a module in this process against a running lab: quick enough to ask again and again."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import time
from collections.abc import Callable
from typing import TypeVar
from unittest import mock

from ansible.module_utils.testing import patch_module_args

from tests.integration.running_lab import RunningLab

MODULES = "ansible_collections.speechops.riva.plugins.modules"
Seen = TypeVar("Seen")


def answer(name: str, lab: RunningLab, /, **options) -> dict:
    """What one module of the collection answers."""
    module = importlib.import_module(f"{MODULES}.{name}")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "KUBECONFIG"))}
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, kept, clear=True),
        patch_module_args({"kubeconfig": lab.kubeconfig, **options}),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        module.main()
    return json.loads(said.getvalue())


def validate(name: str, lab: RunningLab, /, **options) -> dict:
    """The result of one validator, all findings told."""
    return answer(name, lab, **{"fail_on": "never", "wait_timeout": 30, **options})


def causes(result: dict) -> list[dict]:
    """The findings that name a cause: what follows from another one has no remedy."""
    return [finding for finding in result["findings"] if finding["status"] == "failed" and finding["remedy"]]


def until(look: Callable[[], Seen], right: Callable[[Seen], object], timeout: float = 60) -> Seen:
    """Look again until it is right; what was seen last where it never is."""
    deadline = time.monotonic() + timeout
    while True:
        result = look()
        if right(result) or time.monotonic() > deadline:
            return result
        time.sleep(1)
