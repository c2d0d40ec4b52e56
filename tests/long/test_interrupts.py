"""What Helm left half-way, or somebody else changed: running again is all it takes, with no step by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from tests.integration.running_lab import PLAYBOOK, REPOSITORY, run
from tests.integration.test_site import changes, extra, recap

HELM = PLAYBOOK.parent / "helm"
CHART = REPOSITORY / "roles" / "riva" / "files" / "chart"


def releases(lab) -> dict[str, str]:
    listed = run(HELM, "list", "--all", "-A", "-o", "json", f"--kubeconfig={lab.kubeconfig}").stdout
    return {item["name"]: item["status"] for item in json.loads(listed)}


def converges(lab, *words) -> str:
    """The same run again goes to its end, and leaves nothing half-way."""
    output = lab.play("site.yml", *words).stdout
    assert set(releases(lab).values()) == {"deployed"}
    return output


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
    chart = Path.home() / ".cache" / "speechops-lab" / "charts" / "traefik"
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
    words = extra(riva_chart_ref=str(chart), riva_values={"sharedMemory": "71Mi"}, riva_timeout=125)
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
