# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import itertools

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import upgrades

# semver.org's own row, and charts' habits.
ORDER = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
ORDER += ["1.0.1", "v1.1", "1.2.0+build.5", "v26.7.0", "88.5.3"]


def test_versions_are_in_semvers_order():
    keys = [upgrades.version_key(version) for version in ORDER]
    assert all(first < second for first, second in itertools.pairwise(keys))


@pytest.mark.parametrize("text", ["", "latest", "1.x", "1.2.3.4"])
def test_what_is_no_version_is_said(text):
    with pytest.raises(ValueError, match="is no version"):
        upgrades.version_key(text)


@pytest.mark.parametrize(
    ("chart", "version"),
    [
        ("traefik-41.3.0", "41.3.0"),
        ("kube-prometheus-stack-88.5.3", "88.5.3"),
        ("gpu-operator-v26.7.0", "v26.7.0"),
        ("riva-1.1.0-rc.1", "1.1.0-rc.1"),
        ("k8s-2-tool-1.0.0", "1.0.0"),
        ("nothing", ""),
    ],
)
def test_the_version_in_a_charts_name(chart, version):
    assert upgrades.chart_version(chart) == version


def revision(number, status="deployed", version="41.2.0"):
    return {"revision": number, "status": status, "chart": f"traefik-{version}"}


REFUSAL = "Error: chart requires kubeVersion: >=1.99.0-0 which is incompatible with Kubernetes v1.36.3"
CASES = {
    "an upgrade": ([revision(3)], "41.3.0", "", False, "ok", "41.2.0 -> 41.3.0"),
    "the same": ([revision(3)], "41.2.0", "", False, "ok", "41.2.0, the same chart; only values may change"),
    "a downgrade": ([revision(3)], "41.1.0", "", False, "failed", "would be a downgrade"),
    "a downgrade that is asked for": ([revision(3)], "41.1.0", "", True, "warning", "a downgrade that was asked for"),
    "another major version": ([revision(3)], "42.0.0", "", False, "warning", "another major version"),
    "no release": ([], "41.3.0", "", False, "failed", "there is no release that ever ran"),
    "one that never ran": ([revision(1, "failed")], "41.3.0", "", False, "failed", "there is no release that ever ran"),
    "an interrupted upgrade": (
        [revision(3), revision(4, "pending-upgrade", "41.3.0")],
        "41.3.0",
        "",
        False,
        "ok",
        "41.2.0 -> 41.3.0",
    ),
    "Kubernetes too old": (
        [revision(3)],
        "41.3.0",
        REFUSAL,
        False,
        "failed",
        "wants Kubernetes >=1.99.0-0, the cluster",
    ),
    "a refusal for missing values": (
        [revision(3)],
        "41.3.0",
        "Error: values are wrong",
        False,
        "ok",
        "41.2.0 -> 41.3.0",
    ),
    "no version": ([revision(3)], "latest", "", False, "warning", "can't be compared"),
}


@pytest.mark.parametrize(
    ("history", "target", "refusal", "downgrade", "status", "text"), CASES.values(), ids=CASES.keys()
)
def test_plan(history, target, refusal, downgrade, status, text):
    found = upgrades.plan("traefik/traefik", "traefik_chart_version", history, target, refusal, downgrade)
    assert found["finding"]["status"] == status
    assert text in found["finding"]["message"]
    if status == "failed" and history and history[0]["status"] == "deployed":
        assert "traefik_chart_version" in found["finding"]["remedy"]


def test_the_way_back_is_the_revision_that_ran_last():
    history = [revision(1, "superseded"), revision(2), revision(3, "failed"), revision(4, "pending-rollback")]
    assert upgrades.plan("a/b", "v", history, "41.3.0", "", False)["revision"] == 2


@pytest.mark.parametrize(
    ("target", "kubernetes", "words"),
    [
        ("2.20.2", "v1.33.1", None),
        ("2.20.2", "v1.35.0+k3s1", None),
        ("2.20.2", "v1.36.3", "tested with Kubernetes 1.33 to 1.35, the cluster has v1.36.3"),
        ("2.21.0", "v1.33.9", "tested with Kubernetes 1.34 to 1.36"),
        ("2.99.0", "v1.33.9", None),
        ("2.20.2", "", None),
    ],
)
def test_keda_s_own_table(target, kubernetes, words):
    found = upgrades.untested("keda", target, kubernetes)
    assert (found is None) if words is None else (words in found[0])
    assert upgrades.untested("traefik", target, kubernetes) is None


@pytest.mark.parametrize(
    ("now", "target", "by_way_of"),
    [
        ("v26.7.0", "v26.7.1", ""),
        ("v26.3.3", "v26.7.0", ""),
        ("v25.10.1", "v26.7.0", "26.3"),
        ("v24.9.2", "v26.7.0", "25.3"),
        ("v22.9.1", "v23.3.0", ""),
        # Newer than what is known here, or older than the list.
        ("v26.7.0", "v27.1.0", ""),
        ("v1.11.0", "v23.9.0", ""),
    ],
)
def test_releases_of_the_gpu_operator_that_follow_each_other(now, target, by_way_of):
    assert upgrades.leaps("gpu-operator", now, target) == by_way_of
    assert upgrades.leaps("traefik", now, target) == ""


@pytest.mark.parametrize(
    ("chart", "now", "target", "kubernetes", "status", "text"),
    [
        ("gpu-operator", "v25.10.1", "v26.7.0", "v1.36.3", "failed", "leaves out 26.3"),
        ("gpu-operator", "v26.3.3", "v26.7.0", "v1.36.3", "ok", "v26.3.3 -> v26.7.0"),
        ("keda", "2.19.0", "2.20.2", "v1.36.3", "warning", "2.19.0 -> 2.20.2: KEDA 2.20.2 was tested with"),
        ("keda", "2.20.2", "2.20.2", "v1.36.3", "warning", "2.20.2: KEDA 2.20.2 was tested with"),
        ("keda", "2.19.0", "2.20.2", "v1.34.0", "ok", "2.19.0 -> 2.20.2"),
    ],
)
def test_what_projects_say_of_their_versions_is_in_the_plan(chart, now, target, kubernetes, status, text):
    history = [{"revision": 1, "status": "deployed", "chart": f"{chart}-{now}"}]
    finding = upgrades.plan("a/b", f"{chart}_version", history, target, "", False, chart, kubernetes)["finding"]
    assert finding["status"] == status
    assert text in finding["message"]
