"""playbooks/verify.yml with the ClusterRole that the collection ships and nothing else: enough, and not too much."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from tests.integration.frail import INTERVAL, Frail, prometheus, select_another_release
from tests.integration.running_lab import REPOSITORY, RunningLab
from tests.integration.validators import until, validate

ROLE = yaml.safe_load((REPOSITORY / "playbooks/files/verify-clusterrole.yml").read_text())
ACCOUNT = "system:serviceaccount:monitoring:riva-verify"
# Asked for where KEDA made the HPA only, and KEDA is not on this lab.
KEDA = ("scaledobjects", "s0-prometheus", "s1-prometheus")
PLACES = {"extension-apiserver-authentication": "kube-system", "prometheus-adapter": "monitoring"}


def permissions():
    """Each single permission of the role: its place there, and the words for it in a message."""
    for number, rule in enumerate(ROLE["rules"]):
        for resource in (name for name in rule["resources"] if name not in KEDA):
            for verb in rule["verbs"]:
                place = PLACES.get(rule.get("resourceNames", [""])[0], "")
                text = f"{verb} {resource} (apiGroup '{rule['apiGroups'][0]}')" + (
                    f" in namespace {place}" if place else ""
                )
                yield pytest.param(number, resource, verb, text, id=text)


class Reader:
    """An account that has the shipped ClusterRole, whole or without one permission."""

    def __init__(self, lab: RunningLab, folder) -> None:
        self.lab = lab
        self.file = folder / "role.json"
        self.kubeconfig = folder / "reader.kubeconfig"
        self.grant(ROLE)
        names = ("riva-verify", "-n", "monitoring")
        lab.kubectl("create", "serviceaccount", *names, check=False)
        binding = ("create", "clusterrolebinding", "riva-verify", "--clusterrole=riva-verify")
        lab.kubectl(*binding, "--serviceaccount=monitoring:riva-verify", check=False)
        self.write_kubeconfig(lab.kubectl("create", "token", *names).strip())

    def write_kubeconfig(self, token: str) -> None:
        with open(self.lab.kubeconfig) as file:
            configuration = yaml.safe_load(file)
        for user in configuration["users"]:
            user["user"] = {"token": token}
        self.kubeconfig.write_text(yaml.safe_dump(configuration))

    def grant(self, role: dict) -> None:
        self.file.write_text(json.dumps(role))
        self.lab.kubectl("apply", "-f", self.file)

    def grant_all_but(self, number: int, resource: str, verb: str) -> None:
        role = copy.deepcopy(ROLE)
        rule = role["rules"].pop(number)
        others = [name for name in rule["resources"] if name != resource]
        verbs = [name for name in rule["verbs"] if name != verb]
        role["rules"] += [rule | {"resources": others}] if others else []
        role["rules"] += [rule | {"resources": [resource], "verbs": verbs}] if verbs else []
        self.grant(role)

    def look(self) -> str:
        """What the modules say that verify.yml calls, of the broken service and the whole one."""
        asked = {"kubeconfig": str(self.kubeconfig)}
        api = ["v1beta1.custom.metrics.k8s.io"]
        results = [
            validate("validate_gpu_nodes", self.lab, check_discovery=True, **asked),
            validate("validate_aggregation_layer", self.lab, apiservices=api, **asked),
            validate(
                "validate_custom_metric", self.lab, namespace="riva", hpa="frail", scrape_interval=INTERVAL, **asked
            ),
            # The metric of the preset `article`, and the demand, which this HPA asks for.
            validate(
                "validate_custom_metric",
                self.lab,
                namespace="riva",
                hpa="riva-asr",
                metric="article_avg_time_queue_ms",
                **asked,
            ),
            validate("validate_route", self.lab, namespace="riva", name="riva-asr", **asked),
        ]
        return "\n".join(result["table"] for result in results)

    def play(self, *arguments: str):
        return self.lab.play(
            "playbooks/verify.yml", "-e", f"cluster_kubeconfig={self.kubeconfig}", *arguments, check=False
        )


@pytest.fixture(scope="module")
def reader(installed, tmp_path_factory):
    account = Reader(installed, tmp_path_factory.mktemp("reader"))
    yield account
    installed.kubectl("delete", "clusterrole,clusterrolebinding", "riva-verify")
    installed.kubectl("delete", "serviceaccount", "riva-verify", "-n", "monitoring")


def test_the_role_reads_and_nothing_else():
    verbs = {verb for rule in ROLE["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list"}
    assert "secrets" not in {name for rule in ROLE["rules"] for name in rule["resources"]}
    assert not any("*" in str(rule) for rule in ROLE["rules"])


def test_verify_works_with_the_role_alone_and_tells_programs(reader, tmp_path):
    whole = until(
        lambda: validate("validate_custom_metric", reader.lab, namespace="riva", hpa="riva-asr"),
        lambda seen: seen["ok"],
        120,
    )
    assert whole["ok"], whole["table"]
    done = reader.play("-e", "verify_format=json", "-e", f"verify_report_file={tmp_path}/report.json")
    assert done.returncode == 0, done.stdout
    assert "lacks the permission" not in done.stdout
    assert "\x1b" not in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    report = json.loads(line)
    assert (report["cluster"], report["status"]) == ("lab", "ok")
    assert json.loads((tmp_path / "report.json").read_text()) == [report]
    assert {finding["status"] for finding in report["findings"]} == {"ok"}


def test_verify_names_the_permission_that_is_missing(reader):
    number = next(n for n, rule in enumerate(ROLE["rules"]) if rule["resources"] == ["horizontalpodautoscalers"])
    reader.grant_all_but(number, "horizontalpodautoscalers", "get")
    try:
        done = reader.play()
    finally:
        reader.grant(ROLE)
    assert done.returncode == 2, done.stdout
    assert "the caller lacks the permission: get horizontalpodautoscalers (apiGroup 'autoscaling')" in done.stdout
    assert "\nfailed  " in done.stdout
    assert "\x1b" not in done.stdout


def test_a_form_that_does_not_exist_is_named(reader):
    done = reader.play("-e", "verify_format=yaml")
    assert done.returncode == 2
    assert "verify_format is yaml; set it to table or json" in done.stdout


@pytest.fixture(scope="module")
def sick(frail: Frail, reader):
    """Prometheus does not select the ServiceMonitor, and the pod is new: all is read that is ever read."""
    with prometheus(frail, select_another_release):
        found = until(frail.look, lambda seen: seen["first_broken"] == "service_monitor")
        assert found["first_broken"] == "service_monitor", found["table"]
        frail.lab.kubectl("delete", "pod", "-n", "riva", "-l", "app.kubernetes.io/instance=frail", "--now")

        def ready() -> dict:
            said = frail.look()["table"]
            return {"right": "no value for frail" in said and "pods are Ready" in said, "said": said}

        found = until(ready, lambda seen: seen["right"])
        assert found["right"], found["said"]
        yield reader


def test_the_whole_role_is_enough_for_a_broken_chain_too(sick):
    sick.grant(ROLE)
    said = until(lambda: {"said": sick.look()}, lambda seen: "lacks the permission" not in seen["said"])["said"]
    assert "lacks the permission" not in said
    assert "is not selected by Prometheus" in said


@pytest.mark.parametrize(("number", "resource", "verb", "text"), list(permissions()))
def test_one_permission_fewer_is_named(sick, number, resource, verb, text):
    """None of the role's permissions is there for nothing; those for KEDA are left out here."""
    sick.grant_all_but(number, resource, verb)
    try:
        wanted = f"lacks the permission: {text}"
        said = until(lambda: {"said": sick.look()}, lambda seen: wanted in seen["said"], 20)["said"]
    finally:
        sick.grant(ROLE)
    assert wanted in said, said
