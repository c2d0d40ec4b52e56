"""The validators on a real kube-apiserver of their own (no lab): behind a proxy that spoils a tenth of the answers,
and with every kind of kubeconfig that does not work."""

from __future__ import annotations

import base64
import copy
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.certificates import Authority
from tests.benchmarks.bare_apiserver import BareApiserver
from tests.benchmarks.fault_proxy import FAULTS
from tests.benchmarks.fault_runs import DEADLINE, GRACE, fault_runs

REPOSITORY = Path(__file__).resolve().parents[2]
RUNS = int(os.environ.get("FAULT_RUNS", "1000"))
MODULE = "ansible_collections.speechops.riva.plugins.modules.validate_gpu_nodes"


def test_every_run_through_faults_and_a_restart_is_right_or_a_clear_error():
    outcome = fault_runs(RUNS)
    assert outcome.wrong == []
    assert sum(outcome.counts.values()) == RUNS
    assert outcome.longest < DEADLINE + GRACE
    assert set(outcome.faults) == set(FAULTS)
    # Only those that met the restart may have ended with an error.
    assert outcome.counts["right"] > 0.95 * RUNS


@pytest.fixture(scope="module")
def apiserver():
    with BareApiserver() as server:
        authority = Authority(server.folder, "ca")
        authority.issue("nobody", "nobody")
        expired(authority, server.folder)
        # A CA of the same name, so that only the signature tells.
        other = server.folder / "other"
        Authority(other, "ca")
        yield server


def expired(authority, folder):
    """A client certificate that ended yesterday."""

    class Past(Authority):
        BEGUN, LIFETIME = datetime.timedelta(days=9), datetime.timedelta(days=-1)

    Past(folder, authority.name).issue("expired", "admin", "system:masters")


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


def with_user(config, folder, name):
    config["users"][0]["user"] = {
        "client-certificate-data": encoded(folder / f"{name}.crt"),
        "client-key-data": encoded(folder / f"{name}.key"),
    }


def with_token(config, _folder):
    config["users"][0]["user"] = {"token": "no-such-token"}


def with_other_ca(config, folder):
    config["clusters"][0]["cluster"]["certificate-authority-data"] = encoded(folder / "other" / "ca.crt")


def with_broken_ca(config, _folder):
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(b"no certificate").decode()


def with_others_key(config, folder):
    config["users"][0]["user"]["client-key-data"] = encoded(folder / "nobody.key")


def with_broken_key(config, _folder):
    config["users"][0]["user"]["client-key-data"] = base64.b64encode(b"no key").decode()


def with_other_name(config, _folder):
    cluster = config["clusters"][0]["cluster"]
    cluster["server"] = cluster["server"].replace("127.0.0.1", "127.0.0.2")


def with_http(config, _folder):
    cluster = config["clusters"][0]["cluster"]
    cluster["server"] = cluster["server"].replace("https", "http")


def with_closed_port(config, _folder):
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"


# name: (what is done to the kubeconfig, options, the words that name it)
CASES = {
    "missing": (None, {"kubeconfig": "/nowhere/config"}, "the kubeconfig /nowhere/config does not exist"),
    "malformed": ("apiVersion: [", {}, "kubeconfig can't be read"),
    "empty": ("", {}, "kubeconfig can't be used"),
    "no context": (lambda config, _folder: config.pop("contexts"), {}, "kubeconfig can't be used"),
    "wrong context": (lambda *_: None, {"context": "elsewhere"}, "elsewhere"),
    "expired certificate": (
        lambda config, folder: with_user(config, folder, "expired"),
        {},
        "the client certificate in the kubeconfig has expired",
    ),
    "wrong CA": (with_other_ca, {}, "not signed by the CA in the kubeconfig"),
    "broken CA": (with_broken_ca, {}, "the CA in the kubeconfig holds no certificate"),
    "another's key": (with_others_key, {}, "do not belong together"),
    "broken key": (with_broken_key, {}, "can't be read"),
    "wrong name": (with_other_name, {}, "is not reachable"),
    "not TLS": (with_http, {}, "HTTP request to an HTTPS server"),
    "unauthorised": (with_token, {}, "does not accept these credentials (401"),
    "forbidden": (
        lambda config, folder: with_user(config, folder, "nobody"),
        {},
        "the caller lacks the permission: list nodes (apiGroup '')",
    ),
    "nobody listens": (with_closed_port, {}, "is not reachable"),
}


@pytest.mark.parametrize(("change", "options", "words"), CASES.values(), ids=CASES.keys())
def test_a_kubeconfig_that_does_not_work_is_told(apiserver, tmp_path, change, options, words):
    config = copy.deepcopy(apiserver.kubeconfig_for(apiserver.url))
    file = tmp_path / "config"
    if callable(change):
        change(config, apiserver.folder)
        file.write_text(yaml.safe_dump(config))
    elif change is not None:
        file.write_text(change)
    arguments = {"kubeconfig": str(file), "wait_timeout": 15, **options}
    environment = {name: value for name, value in os.environ.items() if "KUBE" not in name and "K8S" not in name}
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={**environment, "PYTHONPATH": str(REPOSITORY / "collections")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr + done.stdout
    result = json.loads(done.stdout)
    assert result["failed"]
    (finding,) = result["findings"]
    assert finding["check"] == "api"
    assert words in finding["message"]
    assert finding["remedy"]
    assert words in result["msg"]
