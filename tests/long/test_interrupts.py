"""Whatever ends a run half-way, running again is all it takes: no step by hand, and what is healthy is left alone.

``KILLS`` (20) runs are killed, from the one numbered ``FIRST`` (0) on, at moments that ``SEED`` (8) draws, so that
several labs can share the twenty. They need a lab and nothing else::

    USE_LAB=k1 FIRST=0 KILLS=4 pytest tests/long/test_interrupts.py -k killed
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

import pytest

from tests.integration.running_lab import CHARTS, HELM, PLAYBOOK, REPOSITORY, eventually, run
from tests.integration.test_site import INVENTORY, changes, extra, recap

CHART = REPOSITORY / "roles" / "riva" / "files" / "chart"
FIRST, KILLS = int(os.environ.get("FIRST", "0")), int(os.environ.get("KILLS", "20"))
NAMESPACES = {
    "kube-prometheus-stack": "monitoring",
    "prometheus-adapter": "monitoring",
    "gpu-operator": "gpu-operator",
    "traefik": "traefik",
    "riva-asr": "riva",
}
# What a run has to change in each of the tests below; the others are healthy, and have to stay as they are.
VARIED = {"prometheus-adapter", "traefik", "riva-asr"}
KINDS = (
    "namespaces,deployments,daemonsets,statefulsets,services,serviceaccounts,configmaps,secrets,hpa,poddisruptionbudgets,"
    "networkpolicies,roles,rolebindings,clusterroles,clusterrolebindings,crds,apiservices,servicemonitors,podmonitors,"
    "prometheusrules,prometheuses,ingressroutes,ingressclasses"
)


@dataclass(frozen=True)
class Kill:
    """How one run is ended.

    ``when`` is a part of the time that an undisturbed run takes. ``whole``: all of its processes get the signal, as
    from a terminal; else ansible-playbook alone, as where memory runs out, and what it had begun goes on.
    ``removed`` are releases that are not there when the run begins, so that it installs them.
    """

    number: int
    how: signal.Signals
    when: float
    whole: bool
    removed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.number}-{self.how.name}-{self.when:.2f}-{'all' if self.whole else 'one'}-{len(self.removed)}"


def drawn() -> list[Kill]:
    """Twenty of them, in which each kind of end comes five times."""
    dice = random.Random(int(os.environ.get("SEED", "8")))
    ends = 5 * [(how, whole) for how in (signal.SIGTERM, signal.SIGKILL) for whole in (True, False)]
    dice.shuffle(ends)
    return [
        Kill(
            number,
            how,
            dice.uniform(0.02, 0.98),
            whole,
            tuple(dice.sample(sorted(NAMESPACES), dice.choice((0, 0, 1, 3)))),
        )
        for number, (how, whole) in enumerate(ends)
    ]


def releases(lab) -> dict[str, str]:
    listed = run(HELM, "list", "--all", "-A", "-o", "json", f"--kubeconfig={lab.kubeconfig}").stdout
    return {item["name"]: item["status"] for item in json.loads(listed)}


def converges(lab, *words) -> str:
    """The same run again goes to its end, and leaves nothing half-way."""
    output = lab.play("site.yml", *words).stdout
    assert set(releases(lab).values()) == {"deployed"}
    return output


class Run:
    """site.yml in a group of processes of its own, as a terminal would have it; its tasks and when each began."""

    def __init__(self, lab, *words) -> None:
        self.began, self.tasks, self.output = time.monotonic(), [], []
        self.process = subprocess.Popen(
            [str(word) for word in (PLAYBOOK, "-e", f"lab_name={lab.name}", "site.yml", *words)],
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("TASK ["):
                self.tasks.append((time.monotonic() - self.began, line.strip("* \n")))

    def wait_for_task(self, number: int, timeout: float = 900) -> None:
        deadline = time.monotonic() + timeout
        while len(self.tasks) <= number:
            assert self.process.poll() is None, f"the run was over before task {number}:\n{''.join(self.output)}"
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait_for(self, name: str) -> None:
        """Until it has begun the task of this name."""
        deadline = time.monotonic() + 900
        while not any(name in task for _began, task in self.tasks):
            assert self.process.poll() is None, f"the run was over before «{name}»:\n{''.join(self.output)}"
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait(self, timeout: float = 900) -> str:
        """Let it go to its end, whatever that is."""
        try:
            self.process.wait(timeout=timeout)
            self.reader.join(timeout=10)
        finally:
            self.end()
        return "".join(self.output)

    def end(self) -> None:
        # Once it was waited for, its number may be somebody else's.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=60)


def values(number: int) -> tuple[str, ...]:
    """Two sets of values in turn, so that a run has something to do each time."""
    odd = number % 2
    return extra(
        prometheus_adapter_values={**INVENTORY["prometheus_adapter_values"], "metricsRelistInterval": f"{15 + odd}s"},
        traefik_max_header_bytes=16384 * (1 + odd),
        riva_values={**INVENTORY["riva_values"], "sharedMemory": f"{65 + odd}Mi"},
    )


def state(lab) -> dict[str, list[str]]:
    """What has to be the same after a run that was killed as after one that was not: manifests, and all objects."""
    found = {
        name: run(HELM, "get", "manifest", name, "-n", space, f"--kubeconfig={lab.kubeconfig}").stdout.splitlines()
        for name, space in NAMESPACES.items()
    }
    names = lab.kubectl("get", KINDS, "-A", "-o", "custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name")
    found["objects"] = sorted(" ".join(line.split()) for line in names.splitlines() if "sh.helm.release" not in line)
    return found


def healthy(lab, besides: set[str]) -> dict[str, tuple[str, int]]:
    """The pods of the releases that are not to be touched, with their identities and restarts."""
    found = {}
    for release in set(NAMESPACES) - besides:
        for pod in lab.get("pods", "-n", NAMESPACES[release])["items"]:
            name = pod["metadata"]["name"]
            if NAMESPACES[release] == "monitoring" and name.startswith("prometheus-adapter"):
                continue
            restarts = sum(item["restartCount"] for item in pod["status"].get("containerStatuses", []))
            found[name] = (pod["metadata"]["uid"], restarts)
    return found


@pytest.fixture(scope="module")
def undisturbed(installed):
    """Both sets of values in runs that nothing disturbs: how long they take, and what is there afterwards."""
    found = {}
    for number in (FIRST, FIRST + 1):
        once = Run(installed, *values(number))
        output = once.wait()
        assert once.process.returncode == 0, output
        found[number % 2] = (once.tasks, time.monotonic() - once.began, state(installed))
    return found


@pytest.mark.parametrize("kill", drawn()[FIRST : FIRST + KILLS], ids=str)
def test_a_killed_run_can_simply_be_run_again(installed, undisturbed, kill):
    tasks, lasts, wanted = undisturbed[kill.number % 2]
    for release in kill.removed:
        where = f"--namespace={NAMESPACES[release]}"
        run(HELM, "uninstall", release, where, "--wait", f"--kubeconfig={installed.kubeconfig}")
    kept = healthy(installed, VARIED | set(kill.removed))
    # By the task that ran at that moment, for other work on the machine changes how long each takes.
    moment = kill.when * lasts
    number = max(index for index, (began, _name) in enumerate(tasks) if began <= moment or index == 0)
    once = Run(installed, *values(kill.number))
    try:
        once.wait_for_task(number)
        time.sleep(min(moment - tasks[number][0], 20) if moment > tasks[number][0] else 0)
        assert once.process.poll() is None, "the run was over before it could be killed"
        at = once.tasks[-1][1]
        (os.killpg if kill.whole else os.kill)(once.process.pid, kill.how)
        once.process.wait(timeout=60)
        left = releases(installed)
        began = time.monotonic()
        output = converges(installed, *values(kill.number))
        print(f"killed at {at}; left {left}; again {time.monotonic() - began:.0f} s, {recap(output)}")
    finally:
        once.end()
    assert state(installed) == wanted
    assert healthy(installed, VARIED | set(kill.removed)) == kept


def test_after_all_that_nothing_is_left_to_change(installed):
    converges(installed)
    assert recap(installed.play("site.yml").stdout)["changed"] == 0


def helm_dies(lab, *words) -> None:
    """Helm waits for pods that never come, and is killed meanwhile."""
    process = subprocess.Popen([str(word) for word in (HELM, *words, f"--kubeconfig={lab.kubeconfig}", "--wait")])
    time.sleep(8)
    process.kill()
    process.wait(timeout=30)


def test_helm_died_in_pending_upgrade(installed):
    helm_dies(installed, "upgrade", "riva-asr", CHART, "--namespace=riva", "--reuse-values", "--set=image.tag=nowhere")
    assert releases(installed)["riva-asr"] == "pending-upgrade"
    output = converges(installed, "--tags", "riva,always")
    assert "was left in pending-upgrade" in output
    image = installed.get("deployment", "riva-asr", "-n", "riva")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert not image.endswith(":nowhere")


def test_helm_died_in_pending_install(installed):
    """Of an installation that never was there is nothing to go back to."""
    run(HELM, "uninstall", "traefik", "--namespace=traefik", "--wait", f"--kubeconfig={installed.kubeconfig}")
    chart = CHARTS / "traefik"
    helm_dies(installed, "install", "traefik", chart, "--namespace=traefik", "--set=image.tag=nowhere")
    assert releases(installed)["traefik"] == "pending-install"
    output = converges(installed, "--tags", "traefik,always")
    assert "was left in pending-install" in output


HOOK = """
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-never
  annotations:
    helm.sh/hook: pre-upgrade
    helm.sh/hook-delete-policy: before-hook-creation
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: never
          image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          command: ["/no/such/program"]
"""


def test_a_hook_fails(installed, tmp_path):
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates" / "hook.yaml").write_text(HOOK)
    words = extra(
        riva_chart_ref=str(chart), riva_values={**INVENTORY["riva_values"], "sharedMemory": "71Mi"}, riva_timeout=125
    )
    done = installed.play("site.yml", "--tags", "riva,always", *words, check=False)
    assert done.returncode != 0
    assert releases(installed)["riva-asr"] == "failed"
    output = converges(installed, "--tags", "riva,always")
    assert "was left in failed" in output
    assert len(changes(output)) > 0


def test_what_others_changed_is_set_back_and_told(installed):
    """Another actor scales, edits and deletes; what it added beside the release stays."""
    installed.kubectl("scale", "deployment/traefik", "-n", "traefik", "--replicas=0")
    patch = json.dumps({"spec": {"maxReplicas": 9}, "metadata": {"annotations": {"team": "other"}}})
    installed.kubectl("patch", "hpa", "riva-asr", "-n", "riva", "--type=merge", "-p", patch)
    installed.kubectl("delete", "servicemonitor", "riva-asr", "-n", "riva")
    checked = installed.play("site.yml", "--tags", "traefik,riva", "--check").stdout
    assert recap(checked)["changed"] == 2
    output = converges(installed, "--tags", "traefik,riva")
    assert "Deployment traefik/traefik: spec.replicas is 0, the release has 1" in " ".join(output.split())
    assert recap(output)["changed"] == 2
    hpa = installed.get("hpa", "riva-asr", "-n", "riva")
    assert hpa["spec"]["maxReplicas"] == 3
    assert hpa["metadata"]["annotations"]["team"] == "other"
    installed.kubectl("get", "servicemonitor", "riva-asr", "-n", "riva")
    assert recap(installed.play("site.yml").stdout)["changed"] == 0


@pytest.fixture
def mended(installed):
    """Whatever a test breaks of the lab is whole again after it."""
    yield installed
    installed.command("fault", "heal")
    eventually(lambda: installed.kubectl("get", "--raw", "/readyz", check=False) == "ok")


def test_an_apiserver_that_is_away_for_half_a_minute(mended):
    """In the middle of a run; that run may fail, but says what was away."""
    once = Run(mended, *values(7))
    try:
        once.wait_for("Helm has installed release prometheus-adapter")
        mended.command("fault", "apiserver-stop")
        time.sleep(30)
        mended.command("fault", "apiserver-start")
        output = once.wait()
    finally:
        once.end()
    eventually(lambda: mended.kubectl("get", "--raw", "/readyz", check=False) == "ok")
    print(f"ended with {once.process.returncode} at {once.tasks[-1][1]}")
    assert once.process.returncode == 0 or "6443" in output, output[-8000:]
    converges(mended, *values(7))
    assert recap(mended.play("site.yml", *values(7)).stdout)["changed"] == 0


def test_a_node_is_lost_and_comes_back(mended):
    """The one with the speech pod, just when that is upgraded. The run says so where it fails; running again is all."""
    # One that is still stopping after the last run is on the way out.
    pods = mended.get("pods", "-n", "riva", "--field-selector=status.phase=Running")["items"]
    (pod,) = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    node = pod["spec"]["nodeName"]
    once = Run(mended, *values(8))
    try:
        once.wait_for("Helm has installed release riva-asr")
        mended.command("fault", "node-stop", node)
        output = once.wait()
    finally:
        once.end()
    print(f"ended with {once.process.returncode} at {once.tasks[-1][1]}")
    assert once.process.returncode == 0 or node in output, output[-8000:]
    mended.command("fault", "node-start", node)
    mended.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s", timeout=150)
    converges(mended, *values(8))
    assert recap(mended.play("site.yml", *values(8)).stdout)["changed"] == 0


def test_a_disk_that_is_full_for_a_moment(installed, tmp_path):
    """Ansible's own temporary files have no room; the run says so, and the next one goes to its end."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", full], check=True)
    try:
        (full / "filler").write_bytes(b"x" * 120 * 1024)
        done = run(
            PLAYBOOK,
            "-e",
            f"lab_name={installed.name}",
            "site.yml",
            "--tags",
            "riva,always",
            check=False,
            ANSIBLE_LOCAL_TEMP=str(full),
            ANSIBLE_REMOTE_TEMP=str(full),
            TMPDIR=str(full),
        )
        assert done.returncode != 0
        assert "No space left on device" in done.stdout
    finally:
        subprocess.run(["umount", full], check=True)
    assert recap(installed.play("site.yml", "--tags", "riva,always").stdout)["changed"] <= 1
    converges(installed)
