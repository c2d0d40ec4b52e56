"""The role openshift against a real API server that has OpenShift's kinds, and nobody who acts on them.

    pytest tests/long/test_openshift.py
    OPENSHIFT_CRDS=FOLDER pytest tests/long/test_openshift.py    # CRDs of openshift/api and operator-framework/api

It needs no lab, only the lab's programs: the steps are those of the molecule scenario openshift.
"""

from __future__ import annotations

import re
import sys

import pytest

from tests.benchmarks import bare_apiserver
from tests.integration.running_lab import PLAYBOOK, REPOSITORY, run

SCENARIO = REPOSITORY / "extensions/molecule/openshift"


@pytest.fixture(scope="module")
def play():
    if bare_apiserver.missing():
        run(sys.executable, "-m", "lab", "prepare", timeout=7200)
    assert not bare_apiserver.missing()
    with bare_apiserver.BareApiserver() as server:

        def step(name: str, *options: str, check: bool = True) -> str:
            inventory = ("-i", str(REPOSITORY / "inventories/lab"))
            kubeconfig = ("-e", f"cluster_kubeconfig={server.kubeconfig}")
            words = (*inventory, *kubeconfig, str(SCENARIO / f"{name}.yml"), *options)
            return run(str(PLAYBOOK), *words, check=check).stdout

        step("prepare")
        yield step


def test_keda_that_could_not_ask_thanos_is_refused_before_any_change(play):
    refused = play("converge", "-e", "riva_autoscaler=keda", check=False)
    assert "riva_autoscaler is keda and openshift_monitoring is user_workload" in refused
    assert re.search(r"changed=0 .*failed=1", refused)


def test_the_objects_are_accepted_as_asked_for(play):
    play("converge", "--check")
    assert not re.search(r"changed=0\b", play("converge"))
    play("verify")


def test_a_second_run_changes_nothing(play):
    """A field that OpenShift's kinds do not have is dropped by the API server, so it would be written again."""
    assert re.search(r"changed=0\b", play("converge"))


def test_what_a_strange_hand_did_is_mended(play):
    play("side_effect")
    play("verify")
