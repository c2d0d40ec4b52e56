"""Runs a validator in this process against a running lab: quick enough to ask again and again."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import time
from collections.abc import Callable
from unittest import mock

from ansible.module_utils.testing import patch_module_args

from tests.integration.running_lab import RunningLab

MODULES = "ansible_collections.speechops.riva.plugins.modules"


def validate(name: str, lab: RunningLab, /, **options) -> dict:
    """The result of one module of the collection, all findings told."""
    module = importlib.import_module(f"{MODULES}.{name}")
    arguments = {"kubeconfig": lab.kubeconfig, "fail_on": "never", "wait_timeout": 30, **options}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "KUBECONFIG"))}
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, kept, clear=True),
        patch_module_args(arguments),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        module.main()
    return json.loads(said.getvalue())


def causes(result: dict) -> list[dict]:
    """The findings that name a cause: what follows from another one has no remedy."""
    return [finding for finding in result["findings"] if finding["status"] == "failed" and finding["remedy"]]


def until(look: Callable[[], dict], right: Callable[[dict], bool], timeout: float = 60) -> dict:
    """Look again until it is right; what was seen last where it never is."""
    deadline = time.monotonic() + timeout
    while True:
        result = look()
        if right(result) or time.monotonic() > deadline:
            return result
        time.sleep(1)
