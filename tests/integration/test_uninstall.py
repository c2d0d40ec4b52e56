"""uninstall.yml takes what site.yml brought and nothing else, and says what stays. Runs last: conftest sees to it."""

from __future__ import annotations

import re

import pytest

from tests.integration.test_site import changes, recap

OTHERS = """
apiVersion: v1
kind: Namespace
metadata: {name: team-a}
---
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata: {name: billing, namespace: team-a}
spec: {selector: {matchLabels: {app: billing}}, endpoints: [{port: metrics}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: somebodys, namespace: traefik}
---
# In place of the models' store, which the lab's services have in memory.
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models, namespace: riva, labels: {app.kubernetes.io/instance: riva-asr}}
spec: {storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
ALL = ("-e", "uninstall_crds=true", "-e", "uninstall_data=true", "-e", "uninstall_namespaces=true")


@pytest.fixture(scope="module")
def shared(installed, tmp_path_factory):
    """The installed lab, in which another team has things of its own."""
    file = tmp_path_factory.mktemp("others") / "others.yaml"
    file.write_text(OTHERS)
    installed.kubectl("apply", "-f", file)
    return installed


def names(lab, kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in lab.get(kind)["items"]}


def test_a_wrong_choice_is_named_before_anything_goes(shared):
    done = shared.play("playbooks/uninstall.yml", "-e", "uninstall_crds=all", check=False)
    assert done.returncode != 0
    assert "uninstall_crds is all; set it to true or false" in done.stdout
    assert recap(done.stdout)["changed"] == 0


def test_check_mode_removes_nothing_and_names_the_releases(shared):
    before = (
        names(shared, "namespaces"),
        names(shared, "crds"),
        shared.kubectl("get", "deployments", "-A", "-o", "name"),
    )
    output = shared.play("playbooks/uninstall.yml", "--check").stdout
    assert len(changes(output)) == 5
    after = names(shared, "namespaces"), names(shared, "crds"), shared.kubectl("get", "deployments", "-A", "-o", "name")
    assert after == before


def test_kinds_and_data_stay_where_nobody_asks_for_them(shared):
    kinds = names(shared, "crds")
    output = shared.play("playbooks/uninstall.yml").stdout
    assert shared.kubectl("get", "deployments,daemonsets,statefulsets", "-n", "riva", "-o", "name").split() == []
    assert names(shared, "crds") == kinds
    told = " ".join(output[output.index("What stays is told") :].split())
    assert re.search(r"PersistentVolumeClaim\s+riva/models", told)
    assert re.search(r"CustomResourceDefinition\s+prometheuses\.monitoring\.coreos\.com", told)


def test_all_that_is_ours_goes_and_nothing_else(shared):
    output = shared.play("playbooks/uninstall.yml", *ALL).stdout
    assert names(shared, "crds") == {"servicemonitors.monitoring.coreos.com"}
    assert names(shared, "namespaces") & {"riva", "monitoring", "gpu-operator", "traefik"} == {"traefik"}
    assert shared.get("servicemonitors", "-n", "team-a")["items"]
    assert "somebodys" in shared.kubectl("get", "configmaps", "-n", "traefik", "-o", "name")
    served = [item for item in shared.get("apiservices")["items"] if item["spec"].get("service")]
    assert served == []
    told = " ".join(output[output.index("What stays is told") :].split())
    assert re.search(r"servicemonitors\.monitoring\.coreos\.com\s+in use by team-a/billing", told)
    assert re.search(r"Namespace\s+traefik\s+holds ConfigMap (- )?somebodys", told)


def test_a_second_run_changes_nothing(shared):
    assert recap(shared.play("playbooks/uninstall.yml", *ALL).stdout)["changed"] == 0
