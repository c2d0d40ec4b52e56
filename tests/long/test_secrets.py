"""A marker is planted in every secret, and looked for in all that was printed, written, stored, or shown by ps.

The keys come from a vault, from the environment, and from Secrets that are there already.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab import extras
from lab.settings import Lab
from tests.integration.running_lab import PLAYBOOK, REPOSITORY, eventually
from tests.integration.test_site import INVENTORY, extra, recap
from tests.long.loads import under_load

MODELS = ["nvidia/riva/rmir_asr_conformer_en_us_str:2.19.0"]
# In place of NVIDIA's downloader, which the lab does not have: it tells which key it was given by its fingerprint.
FINGERPRINT = "import hashlib, os; print(hashlib.sha256(os.environ['NGC_CLI_API_KEY'].encode()).hexdigest())"
SERVICE = {
    **INVENTORY["riva_services"][0],
    "models": MODELS,
    "values": {"modelInit": {"command": ["python3", "-c", FINGERPRINT]}},
}
# Where the keys belong, and nowhere else.
HOMES = {("riva", "imagepullsecret"), ("riva", "modelpullsecret"), ("riva", "riva-model-deploy-key")}


def forms(marker: str) -> list[bytes]:
    """A marker as it stands, and as it looks inside of base64, whatever stands before it."""
    found = [marker.encode()]
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + marker.encode())
        # The first and last characters depend on what is around.
        found.append(coded[4 if before else 0 : -4])
    return found


class Watch:
    """Looks for markers in the process list and in the temporary files, while the block runs."""

    def __init__(self, folder: Path, markers: list[str]) -> None:
        self.folder, self.needles = folder, [form for marker in markers for form in forms(marker)]
        self.seen: list[str] = []
        self.looks = 0
        self.over = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def __exit__(self, *_error):
        self.over.set()
        self.thread.join()

    def run(self):
        while not self.over.wait(0.05):
            self.looks += 1
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    try:
                        line = (process / "cmdline").read_bytes()
                    except OSError:
                        continue
                    if any(needle in line for needle in self.needles):
                        self.seen.append(f"process list: {line!r}")
            try:
                self.files()
            except OSError:
                continue  # A folder went away under the search.

    def files(self):
        for path in self.folder.rglob("*"):
            try:
                open_to_all = path.is_file() and path.stat().st_mode & 0o044
                if (
                    open_to_all
                    and all(parent.stat().st_mode & 0o001 for parent in path.relative_to(self.folder).parents)
                    and any(needle in path.read_bytes() for needle in self.needles)
                ):
                    self.seen.append(f"file open to all: {path}")
            except OSError:
                continue


def everything(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


def opened(item: dict) -> bytes:
    """A Secret as text; a Helm release unpacked."""
    data = {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    if item.get("type") == "helm.sh/release.v1":
        return gzip.decompress(base64.b64decode(data["release"]))
    return b"\n".join([json.dumps(item).encode(), *data.values()])


def in_the_cluster(lab) -> list[tuple[str, bytes]]:
    """All objects of all kinds; Helm's releases unpacked; without the Secrets that keys belong into."""
    kinds = lab.kubectl("api-resources", "--verbs=list", "-o", "name", check=False).split()
    kinds = [kind for kind in kinds if "metrics" not in kind and kind not in ("secrets", "componentstatuses")]
    found = [("all kinds but Secrets", lab.kubectl("get", ",".join(kinds), "-A", "-o", "json", timeout=200).encode())]
    for item in lab.get("secrets", "-A")["items"]:
        where = item["metadata"]["namespace"], item["metadata"]["name"]
        if where not in HOMES:
            found.append((f"Secret {'/'.join(where)}", opened(item)))
    return found


def leaks(places: list[tuple[str, bytes]], markers: list[str]) -> list[str]:
    needles = {form: marker for marker in markers for form in forms(marker)}
    return [f"{name}: {needles[needle][:12]}…" for name, text in places for needle in needles if needle in text]


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """A folder with what a run writes, and a vaulted file of variables."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "password").write_text(secrets.token_hex())
    (folder / "password").chmod(0o600)
    return folder


def vaulted(folder: Path, **variables) -> Path:
    file = folder / "vault.yml"
    done = subprocess.run(
        [
            PLAYBOOK.parent / "ansible-vault",
            "encrypt",
            f"--vault-password-file={folder / 'password'}",
            "--output",
            file,
        ],
        input=json.dumps(variables),
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return file


def play(lab, folder: Path, markers: list[str], *words, environment=None) -> tuple[str, Watch]:
    """Run site.yml and keep all that it writes: output, log, facts, temporary files."""
    written = folder / f"written-{secrets.token_hex(4)}"
    for name in ("tmp", "local", "facts"):
        (written / name).mkdir(parents=True)
        (written / name).chmod(0o755)
    command = [PLAYBOOK, "-e", f"lab_name={lab.name}", "site.yml", "-vvv", "--diff"]
    command += [f"--vault-password-file={folder / 'password'}", *words]
    with Watch(written, markers) as watch:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOG_PATH": str(written / "log"),
                "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
                "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(written / "facts"),
                "ANSIBLE_GATHERING": "explicit",
                "ANSIBLE_LOCAL_TEMP": str(written / "local"),
                "ANSIBLE_REMOTE_TEMP": str(written / "local"),
                "TMPDIR": str(written / "tmp"),
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1200,
        )
    (written / "output").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    assert watch.looks > 20
    assert leaks(everything(written), markers) == []
    assert watch.seen == []
    return done.stdout, watch


def key_in_the_cluster(lab, name: str, key: str) -> str:
    return base64.b64decode(lab.get("secret", name, "-n", "riva")["data"][key]).decode()


def test_the_search_finds_what_is_there(tmp_path):
    """The test's own eyes: a marker in a process list, in base64, in a Helm release, in a file that all may read."""
    marker = f"nvapi-marker-{secrets.token_hex(12)}"
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with Watch(folder, [marker]) as watch:
        (folder / "file").write_text(marker)
        (folder / "file").chmod(0o644)
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", marker], check=True)
        time.sleep(0.3)
    assert any(words.startswith("process list") for words in watch.seen)
    assert any(words.startswith("file open") for words in watch.seen)
    release = base64.b64encode(base64.b64encode(gzip.compress(f"values: {marker}".encode()))).decode()
    item = {"type": "helm.sh/release.v1", "data": {"release": release}}
    assert leaks([("release", opened(item))], [marker])
    for before in range(3):
        assert leaks([("coded", base64.b64encode(b"x" * before + marker.encode() + b"tail"))], [marker])


def test_keys_from_vault_and_environment_are_nowhere_but_in_their_secrets(lab, vault):
    first, second = (f"nvapi-marker-{secrets.token_hex(16)}" for _ in range(2))
    file = vaulted(vault, riva_ngc_api_key=first)
    words = ["-e", f"@{file}", *extra(riva_services=[SERVICE])]
    words += ["-e", json.dumps({"riva_model_deploy_key": "{{ lookup('ansible.builtin.env', 'DEPLOY_KEY') }}"})]
    play(lab, vault, [first, second], *words, environment={"DEPLOY_KEY": second})
    assert key_in_the_cluster(lab, "modelpullsecret", "apikey") == first
    assert key_in_the_cluster(lab, "riva-model-deploy-key", "key") == second
    assert first in key_in_the_cluster(lab, "imagepullsecret", ".dockerconfigjson")
    assert leaks(in_the_cluster(lab), [first, second]) == []


def test_a_changed_key_is_there_after_another_run_and_no_stream_is_lost(lab, vault, tmp_path):
    """Running pods keep what they loaded; a pod that starts now fetches with the new key."""
    third = f"nvapi-marker-{secrets.token_hex(16)}"
    file = vaulted(vault, riva_ngc_api_key=third, riva_model_deploy_key=third[::-1])
    with under_load(lab, tmp_path, streams=6, seconds=120) as counted:
        words = ["-e", f"@{file}", *extra(riva_services=[SERVICE]), "--tags", "riva"]
        output, _watch = play(lab, vault, [third, third[::-1]], *words)
    assert "The secrets for NGC are up to date" in output
    assert key_in_the_cluster(lab, "modelpullsecret", "apikey") == third
    print(f"both keys changed under load: {counted['finished']} streams, 0 failed")
    assert leaks(in_the_cluster(lab), [third, third[::-1]]) == []
    # All of them: under load there may have been two, and the logs of an old one have the old key.
    lab.kubectl("delete", "pods", "-n", "riva", "-l", "app.kubernetes.io/instance=riva-asr", timeout=200)
    lab.kubectl("rollout", "status", "deployment/riva-asr", "-n", "riva", "--timeout=180s", timeout=200)
    said = lab.kubectl("logs", "-n", "riva", "deployment/riva-asr", "-c", "riva-model-init")
    assert hashlib.sha256(third.encode()).hexdigest() in said


def test_secrets_that_are_there_are_used_and_left_alone(lab, vault):
    """Without any key in the inventory, as where External Secrets or another team made them."""
    before = key_in_the_cluster(lab, "modelpullsecret", "apikey")
    play(
        lab,
        vault,
        [before],
        *extra(riva_services=[SERVICE], riva_image_pull_secrets=["imagepullsecret"]),
        "--tags",
        "riva",
    )
    assert key_in_the_cluster(lab, "modelpullsecret", "apikey") == before


def apply(lab, *items: dict) -> None:
    """By a pipe: no file is left that the search would find."""
    kubectl = [Lab().binaries / "kubectl", f"--kubeconfig={lab.kubeconfig}", "apply", "-f", "-"]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    done = subprocess.run(kubectl, input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def holds(lab, name: str, key: str, marker: str) -> bool:
    """Whether there is such a Secret, and the marker in it."""
    found = [item for item in lab.get("secrets", "-n", "riva")["items"] if item["metadata"]["name"] == name]
    return bool(found) and marker in base64.b64decode(found[0]["data"][key]).decode()


SAFE = "company-safe"


def in_the_safe(key: str) -> list[dict]:
    """What the company keeps elsewhere: a key, from which two Secrets are to be made."""
    item = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ngc", "namespace": SAFE}}
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SAFE}}, {**item, "stringData": {"key": key}}]


def external(name: str, key: str, kind: str, text: str) -> dict:
    template = {"type": kind, "data": {key: text}}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": f"the-{name}", "namespace": "riva"},
        "spec": {
            "refreshInterval": "5s",
            "secretStoreRef": {"name": "safe"},
            "target": {"name": name, "template": template},
            "data": [{"secretKey": "key", "remoteRef": {"key": "ngc", "property": "key"}}],
        },
    }


LOGIN = '{"auths": {"a.example": {"auth": "{{ .key }}"}}}'
EXTERNAL = [
    external("modelpullsecret", "apikey", "Opaque", "{{ .key }}"),
    external("from-elsewhere", ".dockerconfigjson", "kubernetes.io/dockerconfigjson", LOGIN),
]


def store(lab) -> list[dict]:
    """The way to the safe: another namespace, with the token of an account that may read there."""
    account = {"name": "reader", "namespace": "riva"}
    provider = {
        "remoteNamespace": SAFE,
        "server": {
            "url": Lab(lab.name, lab.network).api_url,
            "caProvider": {"type": "ConfigMap", "name": "kube-root-ca.crt", "key": "ca.crt"},
        },
        "auth": {"serviceAccount": {"name": "reader"}},
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader", "namespace": SAFE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "SecretStore",
            "metadata": {"name": "safe", "namespace": "riva"},
            "spec": {"provider": {"kubernetes": provider}},
        },
    ]


@pytest.fixture
def external_secrets(lab, tmp_path):
    """Starts the operator when it is called; its kinds are there from the beginning."""
    program, kinds = extras.external_secrets(Lab())
    lab.kubectl("apply", "--server-side", "-f", kinds)
    lab.kubectl("wait", "--for=condition=Established", "-f", kinds, "--timeout=60s", timeout=90)
    running = []

    def start():
        words = [program, "--metrics-addr=127.0.0.1:0", "--live-addr=127.0.0.1:0", "--enable-leader-election=false"]
        environment = {**os.environ, "KUBECONFIG": lab.kubeconfig}
        with open(tmp_path / "external-secrets.log", "w") as log:
            running.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))

    yield start
    # The operator lets go of its objects while it runs.
    lab.kubectl("delete", "externalsecrets,secretstores", "--all", "-n", "riva", "--timeout=60s", timeout=90)
    for process in running:
        process.terminate()
        process.wait()
    lab.kubectl("delete", "-f", kinds, "--wait=false")
    lab.kubectl("delete", "namespace", SAFE, "--ignore-not-found", timeout=90)
    lab.kubectl("delete", "serviceaccount", "reader", "-n", "riva", "--ignore-not-found")


def test_secrets_of_external_secrets_are_awaited_used_and_rotated(lab, vault, tmp_path, external_secrets):
    """The operator's own program, with another namespace as the place where the company keeps its keys."""
    fourth, fifth = (f"nvapi-marker-{secrets.token_hex(16)}" for _ in range(2))
    words = [*extra(riva_services=[SERVICE], riva_image_pull_secrets=["imagepullsecret", "from-elsewhere"])]
    words += ["--tags", "riva"]
    lab.kubectl("delete", "secret", "modelpullsecret", "-n", "riva", "--ignore-not-found")
    apply(lab, *in_the_safe(fourth), *store(lab), *EXTERNAL)

    # Nobody has made them yet: told, and not in the way.
    told = " ".join(lab.play("site.yml", "--check", *words).stdout.split())
    for name in ("modelpullsecret", "from-elsewhere"):
        assert f"ExternalSecret the-{name} is to make it" in told

    external_secrets()
    eventually(lambda: holds(lab, "modelpullsecret", "apikey", fourth), timeout=90)
    output, _watch = play(lab, vault, [fourth], *words)
    assert "is to make it" not in output
    pod = lab.get("deployment", "riva-asr", "-n", "riva")["spec"]["template"]["spec"]
    assert {"name": "from-elsewhere"} in pod["imagePullSecrets"]

    # The company changes its key. The operator's work alone reaches the next pod; another run finds nothing to do.
    with under_load(lab, tmp_path, streams=6, seconds=100) as counted:
        apply(lab, *in_the_safe(fifth))
        eventually(lambda: holds(lab, "modelpullsecret", "apikey", fifth), timeout=60)
        eventually(lambda: holds(lab, "from-elsewhere", ".dockerconfigjson", fifth), timeout=60)
        output, _watch = play(lab, vault, [fourth, fifth], *words)
        assert recap(output)["changed"] == 0
    print(f"a key changed by External Secrets under load: {counted['finished']} streams, 0 failed")
    lab.kubectl("delete", "pods", "-n", "riva", "-l", "app.kubernetes.io/instance=riva-asr", timeout=200)
    lab.kubectl("rollout", "status", "deployment/riva-asr", "-n", "riva", "--timeout=180s", timeout=200)
    said = lab.kubectl("logs", "-n", "riva", "deployment/riva-asr", "-c", "riva-model-init")
    assert hashlib.sha256(fifth.encode()).hexdigest() in said
    theirs = ("Secret riva/from-elsewhere", f"Secret {SAFE}/ngc")
    assert leaks([place for place in in_the_cluster(lab) if place[0] not in theirs], [fourth, fifth]) == []


def test_private_keys_of_certificates_are_nowhere_but_in_their_secrets(lab, vault, tmp_path):
    """self_made and mTLS: the CA's, the server's and the client's key."""
    words = extra(traefik_tls="self_made", traefik_mtls=True, traefik_client_folder=str(tmp_path / "client"))
    play(lab, vault, ["-----BEGIN PRIVATE KEY", "-----BEGIN EC PRIVATE KEY"], *words, "--tags", "traefik")
    assert (tmp_path / "client" / "client.key").stat().st_mode & 0o077 == 0
    keys = [
        base64.b64decode(item["data"]["tls.key"]).decode()
        for item in lab.get("secrets", "-n", "traefik")["items"]
        if "tls.key" in (item.get("data") or {})
    ]
    assert len(keys) >= 2
    # A line from the middle of each key; the armour alone also stands in other people's Secrets.
    lines = [key.splitlines()[1][8:56] for key in [*keys, (tmp_path / "client" / "client.key").read_text()]]
    others = [(name, text) for name, text in in_the_cluster(lab) if not name.startswith("Secret traefik/riva-")]
    assert leaks(others, lines) == []
