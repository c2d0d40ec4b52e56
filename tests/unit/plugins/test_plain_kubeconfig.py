# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plain kubeconfig is read without the kubernetes library; all else is left to it."""

import base64
import copy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import cluster as door
from ansible_collections.speechops.riva.plugins.module_utils import plain_kubeconfig as rules

from lab.certificates import Authority

OPTIONS = list(door.AUTH_ARG_SPEC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "ca")
    authority.issue("me", "me")
    authority.issue("other", "other")
    return folder


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
def config(folder):
    user = {"client-certificate-data": encoded(folder / "me.crt"), "client-key-data": encoded(folder / "me.key")}
    cluster = {"server": "https://10.0.0.1:6443/", "certificate-authority-data": encoded(folder / "ca.crt")}
    return {
        "current-context": "one",
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "two")],
        "clusters": [
            {"name": "one", "cluster": cluster},
            {"name": "two", "cluster": cluster | {"server": "https://two"}},
        ],
        "users": [{"name": "me", "user": user}],
    }


def read(folder, config, environment=None, **params):
    file = folder / "config"
    file.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    return rules.plain_client({"kubeconfig": str(file), **params}, OPTIONS, environment or {})


def test_a_kubeconfig_of_kubeadm(folder, config):
    client = read(folder, config)
    assert client.configuration.host == "https://10.0.0.1:6443"
    assert door.client_certificate(client) == (folder / "me.crt").read_text()
    assert read(folder, config, context="two").configuration.host == "https://two"
    headers = {}
    client.update_params_for_auth(headers, [], ["BearerToken"])
    assert headers == {}


def test_files_beside_it_and_a_token(folder, config):
    config["users"][0]["user"] = {"client-certificate": "me.crt", "client-key": str(folder / "me.key"), "token": "abc"}
    config["clusters"][0]["cluster"] = {"server": "https://one", "certificate-authority": "ca.crt"}
    headers = {}
    read(folder, config).update_params_for_auth(headers, [], ["BearerToken"])
    assert headers == {"authorization": "Bearer abc"}


def test_the_key_does_not_stay_on_disk(folder, config, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert read(folder, config)
    assert list(tmp_path.iterdir()) == []


def change(path, value):
    def apply(config, _folder):
        *parents, last = path
        for key in parents:
            config = config[key]
        config[last] = value

    return apply


def others_key(config, folder):
    config["users"][0]["user"]["client-key-data"] = encoded(folder / "other.key")


USER, CLUSTER = ("users", 0, "user"), ("clusters", 0, "cluster")
NOT_PLAIN = {
    "exec": change((*USER, "exec"), {"command": "aws"}),
    "auth-provider": change((*USER, "auth-provider"), {"name": "oidc"}),
    "tokenFile": change((*USER, "tokenFile"), "/x"),
    "impersonation": change((*USER, "as"), "jane"),
    "password": change(USER, {"username": "a", "password": "b"}),
    "nobody": change(USER, {}),
    "null": change(USER, None),
    "no key": change((*USER, "client-key-data"), None),
    "another's key": lambda config, folder: change((*USER, "client-key-data"), encoded(folder / "other.key"))(
        config, 0
    ),
    "broken key": change((*USER, "client-key-data"), "bm8ga2V5"),
    "no base64": change((*USER, "client-key-data"), "!"),
    "token that is no text": change(USER, {"token": 3}),
    "no CA": change((*CLUSTER, "certificate-authority-data"), None),
    "broken CA": change((*CLUSTER, "certificate-authority-data"), "bm8ga2V5"),
    "CA that is not there": change(CLUSTER, {"server": "https://one", "certificate-authority": "nowhere.crt"}),
    "no verification": change((*CLUSTER, "insecure-skip-tls-verify"), True),
    "proxy": change((*CLUSTER, "proxy-url"), "http://proxy"),
    "another name": change((*CLUSTER, "tls-server-name"), "kubernetes"),
    "http": change((*CLUSTER, "server"), "http://one"),
    "no server": change(CLUSTER, {}),
    "unknown context": change(("current-context",), "three"),
    "two of a name": change(("clusters", 1, "name"), "one"),
    "no lists": change(("contexts",), None),
}


@pytest.mark.parametrize("spoil", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_all_else_is_left_to_the_library(folder, config, spoil):
    config = copy.deepcopy(config)
    spoil(config, folder)
    assert read(folder, config) is None


@pytest.mark.parametrize("text", ["", "{", "just a line", "[]", "3", "\x00"])
def test_what_is_no_kubeconfig_is_left_to_the_library(folder, text):
    assert read(folder, text) is None


@pytest.mark.parametrize(
    ("params", "environment"),
    [
        ({"api_key": "x"}, {}),
        ({"validate_certs": False}, {}),
        ({"host": "https://x"}, {}),
        ({"impersonate_groups": ["a"]}, {}),
        ({"kubeconfig": None}, {}),
        ({"kubeconfig": {"a": "b"}}, {}),
        ({"kubeconfig": "/nowhere"}, {}),
        ({"kubeconfig": "a:b"}, {}),
        ({}, {"K8S_AUTH_CONTEXT": "two"}),
        ({}, {"https_proxy": "http://proxy"}),
    ],
)
def test_other_options_are_left_to_the_library(folder, config, params, environment):
    assert read(folder, config) is not None
    assert read(folder, config, environment, **params) is None


def test_the_library_is_not_loaded_for_it():
    module = "ansible_collections.speechops.riva.plugins.modules.validate_gpu_nodes"
    code = f"import sys, {module}; sys.exit('kubernetes.client' in sys.modules)"
    collections = Path(__file__).resolve().parents[3] / "collections"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(collections)})
