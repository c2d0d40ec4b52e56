"""The kubernetes library without its models, each case in a process of its own: what is imported once stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
PREPARE = """
import sys
from ansible_collections.speechops.riva.plugins.module_utils import light_kubernetes
light_kubernetes.prepare()
models = lambda: [name for name in sys.modules if name.startswith("kubernetes.client.models.")]
"""


def run(code: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", PREPARE + code],
        env={"PYTHONPATH": str(COLLECTIONS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_what_the_modules_use_comes_without_models():
    code = """
from ansible_collections.speechops.riva.plugins.module_utils import cluster
from kubernetes.client import ApiClient, Configuration, rest
assert not cluster.MISSING_LIBRARY, cluster.MISSING_LIBRARY
assert cluster.ApiClient is ApiClient and rest.RESTClientObject and Configuration().verify_ssl
print(len(models()))
"""
    assert run(code).strip() == "0"


@pytest.mark.parametrize(
    "wanted",
    [
        "from kubernetes.client import V1Pod",
        "from kubernetes import client; V1Pod = client.V1Pod",
        "import kubernetes; V1Pod = kubernetes.client.models.V1Pod",
        "import kubernetes; kubernetes.client.CoreV1Api(); V1Pod = kubernetes.client.V1Pod",
        "from kubernetes.client.models.v1_pod import V1Pod",
        "from kubernetes import config, watch, dynamic; from kubernetes.client import V1Pod",
    ],
)
def test_whoever_wants_a_model_gets_it(wanted: str):
    assert run(f"{wanted}\nassert V1Pod(kind='Pod').to_dict()['kind'] == 'Pod'\nprint(len(models()) > 0)") == "True\n"


def test_the_version_is_the_library_s():
    look = "print(kubernetes.__version__, len(models()) > 0)"
    first, second = run(f"import kubernetes; {look}; kubernetes.client.V1Pod; {look}").splitlines()
    assert first.endswith(" False")
    assert second == first.replace("False", "True")


def test_a_name_that_is_nowhere_is_an_attribute_error():
    code = "import kubernetes\ntry:\n    kubernetes.client.V1Nothing\nexcept AttributeError as error:\n    print(error)"
    assert "V1Nothing" in run(code)


def test_a_library_that_is_there_already_is_left_alone():
    code = """
for name in [entry for entry in sys.modules if entry.split(".")[0] == "kubernetes"]:
    del sys.modules[name]
import kubernetes
before = dict(sys.modules)
light_kubernetes.prepare()
print(all(sys.modules[name] is module for name, module in before.items()))
"""
    assert run(code) == "True\n"


def test_another_layout_of_the_library_is_imported_whole():
    code = """
for name in [entry for entry in sys.modules if entry.split(".")[0] == "kubernetes"]:
    del sys.modules[name]
light_kubernetes.NAMES = {"Nothing": "configuration"}
light_kubernetes.prepare()
print([name for name in sys.modules if name.split(".")[0] == "kubernetes"])
from kubernetes.client import V1Pod
"""
    assert run(code) == "[]\n"


def test_without_the_library_the_import_says_its_name():
    code = (
        "try:\n    light_kubernetes.postponed('no_such_library')\nexcept ImportError as error:\n    print(error.name)"
    )
    assert run(code) == "no_such_library\n"
