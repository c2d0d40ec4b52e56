"""The lab is a real cluster: services, DNS, logs, exec, port-forward, volumes, and faults that bite."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.integration.running_lab import KUBECTL, eventually

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: trial, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "echo 'hello from {name}' > /data/index.html; echo serving; exec httpd -f -p 8080 -h /data"]
      volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
    - name: data
      hostPath: {{path: /srv/speechops-trial, type: DirectoryOrCreate}}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: site, namespace: trial}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def fetch(url: str) -> str:
    return urllib.request.urlopen(url, timeout=5).read().decode().strip()


@pytest.fixture(scope="module")
def trial(lab, tmp_path_factory):
    """A web server on one GPU node, another pod on the second one, and a Service of type LoadBalancer."""
    file = tmp_path_factory.mktemp("trial") / "trial.yaml"
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: trial}\n"
    pods = (POD.format(name=name, node=f"{lab.name}-gpu-{number}") for name, number in (("web", 1), ("client", 2)))
    file.write_text("---\n".join([namespace, *pods, SERVICE]))
    lab.kubectl("apply", "-f", file)
    lab.kubectl("wait", "--for=condition=Ready", "pod/web", "pod/client", "-n", "trial", "--timeout=60s", timeout=70)
    yield lab
    lab.kubectl("delete", "namespace", "trial", "--wait=true", timeout=90)


def test_it_is_kubernetes_1_36_or_newer_with_two_gpu_nodes(lab):
    nodes = lab.get("nodes")["items"]
    versions = {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes}
    assert all(tuple(map(int, re.findall(r"\d+", version)[:2])) >= (1, 36) for version in versions)
    assert sorted(node["metadata"]["name"] for node in nodes) == [
        f"{lab.name}-{role}" for role in ("control-plane", "gpu-1", "gpu-2")
    ]


def test_status_names_every_part(lab):
    state = lab.state
    assert state["ready"]
    assert state["api"]
    names = {part for node in state["nodes"] for part in node["components"]}
    assert names >= {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "containerd"}
    assert all(node["memory_mib"] > 0 for node in state["nodes"])


def page_of(lab, pod: str, url: str) -> str:
    """What a pod gets from an address; an error's words where it gets nothing."""
    return lab.kubectl("exec", "-n", "trial", pod, "--", "timeout", "5", "wget", "-qO-", url, check=False).strip()


def test_a_service_answers_by_name_from_another_node(trial):
    eventually(lambda: page_of(trial, "client", "http://site") == "hello from web")


def test_a_pod_reaches_itself_through_its_service(trial):
    eventually(lambda: page_of(trial, "web", "http://site") == "hello from web")


def test_node_port_and_load_balancer_answer_from_outside(trial):
    def address():
        return trial.get("service", "site", "-n", "trial")["status"]["loadBalancer"].get("ingress", [{}])[0].get("ip")

    outside = eventually(address)
    assert eventually(lambda: fetch(f"http://{outside}/")) == "hello from web"
    port = trial.get("service", "site", "-n", "trial")["spec"]["ports"][0]["nodePort"]
    node = trial.get("node", f"{trial.name}-gpu-2")["status"]["addresses"][0]["address"]
    assert eventually(lambda: fetch(f"http://{node}:{port}/")) == "hello from web"


def test_logs_and_port_forward(trial):
    assert trial.kubectl("logs", "-n", "trial", "web").strip() == "serving"
    command = [KUBECTL, f"--kubeconfig={trial.kubeconfig}", "port-forward", "-n", "trial", "pod/web", ":8080"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            port = re.search(r"127.0.0.1:(\d+)", forward.stdout.readline())[1]
            assert fetch(f"http://127.0.0.1:{port}/") == "hello from web"
        finally:
            forward.terminate()


def test_a_host_path_is_the_nodes_own_and_outlives_a_power_cut(trial):
    assert not Path("/srv/speechops-trial").exists(), "a node writes into the machine's file system"
    trial.command("fault", "node-stop", f"{trial.name}-gpu-1")
    assert [node["running"] for node in trial.state["nodes"]] == [True, False, True]
    trial.command("fault", "node-start", f"{trial.name}-gpu-1")

    def page():
        return trial.kubectl("exec", "-n", "trial", "web", "--", "cat", "/data/index.html", check=False)

    assert "hello from web" in eventually(lambda: "hello from web" in page() and page(), 90)


def test_a_cut_pod_is_out_of_reach_until_it_is_plugged_in(trial):
    address = trial.get("pod", "web", "-n", "trial")["status"]["podIP"]

    def reachable() -> bool:
        return page_of(trial, "client", f"http://{address}:8080") == "hello from web"

    eventually(reachable)
    trial.command("fault", "pod-cut", "trial", "web")
    assert not reachable()
    trial.command("fault", "pod-plug", "trial", "web")
    eventually(reachable)


def test_the_apiserver_can_be_stopped_and_healed(lab):
    lab.command("fault", "apiserver-stop")
    try:
        eventually(lambda: not lab.state["api"])
    finally:
        lab.command("fault", "apiserver-start")
    eventually(lambda: lab.state["api"], 60)


def cluster_group(lab) -> str:
    return f"speechops-lab-{lab.name}/{lab.name}-control-plane"


def test_a_slow_apiserver_is_held_back_until_it_is_healed(lab):
    lab.command("fault", "apiserver-slow")
    for _ in range(5):
        lab.kubectl("get", "nodes", check=False)
    # Not `**`: control groups come and go while it would look.
    place = f"{cluster_group(lab)}/slow/cpu.stat"
    groups = [file for depth in ("", "*/") for file in Path("/sys/fs/cgroup").glob(depth + place)]
    throttled = [re.search(r"nr_throttled (\d+)", file.read_text()) for file in groups]
    assert max(int(found[1]) for found in throttled if found) > 0
    lab.command("fault", "heal")
    held = [(file.parent / "cgroup.procs").read_text() for file in groups]
    assert not any(held)


def test_a_hung_apiserver_answers_again_after_it_is_healed(lab):
    lab.command("fault", "apiserver-hang")
    assert "ok" not in lab.kubectl("get", "--raw=/readyz", "--request-timeout=2s", check=False).splitlines()
    lab.command("fault", "heal")
    eventually(lambda: lab.state["api"], 60)


def test_a_fault_on_something_unknown_says_what_there_is(lab):
    done = lab.command("fault", "node-stop", f"{lab.name}-gpu-9", check=False)
    assert done.returncode == 2
    assert f"{lab.name}-gpu-9" in done.stdout
    assert f"{lab.name}-gpu-1, {lab.name}-gpu-2" in done.stdout
