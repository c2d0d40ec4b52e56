# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
import pytest
from ansible_collections.speechops.riva.plugins.module_utils import gpu_findings, gpu_labels, gpu_requirement

NFD_GPU = {"feature.node.kubernetes.io/pci-10de.present": "true"}
NFD_ONLY = {"feature.node.kubernetes.io/kernel-version.full": "6.1"}

NEW_DRIVER = {
    "cuda.driver-version.full": "580.159.04",
    "cuda.driver-version.major": "580",
    "cuda.driver-version.minor": "159",
    "cuda.driver-version.revision": "04",
    "cuda.runtime-version.full": "13.0",
    "cuda.runtime-version.major": "13",
    "cuda.runtime-version.minor": "0",
}
OLD_DRIVER = {
    "cuda.driver.major": "535",
    "cuda.driver.minor": "54",
    "cuda.driver.rev": "03",
    "cuda.runtime.major": "12",
    "cuda.runtime.minor": "2",
}


def labels(product="Tesla-T4", count=1, replicas=1, memory=15360, major=7, minor=5, driver=None, **more):
    found = {
        "gpu.product": product,
        "gpu.count": count,
        "gpu.replicas": replicas,
        "gpu.memory": memory,
        "gpu.compute.major": major,
        "gpu.compute.minor": minor,
        **(NEW_DRIVER if driver is None else driver),
        **{key.replace("__", ".").replace("_", "-"): value for key, value in more.items()},
    }
    return {f"nvidia.com/{key}": str(value) for key, value in found.items() if value is not None}


T4 = labels(count=2, gpu__family="turing", gpu__present="true")
A100 = labels("NVIDIA-A100-SXM4-40GB", 2, 1, 39538, 8, 0, mig__capable="true", mig__strategy="none")
# The labels that NVIDIA's own GFD wrote on a real H100.
H100 = labels(
    "NVIDIA-H100-80GB-HBM3", 1, 1, 81559, 9, 0, gpu__family="hopper", gpu__machine="unknown", gpu__mode="compute",
    gpu__sharing_strategy="none", mig__capable="true", mps__capable="false", vgpu__present="false",
)  # fmt: skip
SHARED = labels("Tesla-T4-SHARED", 1, 4, gpu__sharing_strategy="time-slicing")
MPS = labels("Tesla-T4-SHARED", 1, 8, gpu__sharing_strategy="mps", mps__capable="true")
RENAMED = labels("Tesla-T4", 1, 4)
MIG_SINGLE = labels("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 7, 1, 4864, 8, 0, mig__strategy="single", mig__capable="true")
MIG_INVALID = labels("NVIDIA-A100-SXM4-40GB-MIG-INVALID", 0, 0, 0, 8, 0, mig__strategy="single", mig__capable="true")
MIG_MIXED = labels("NVIDIA-A100-SXM4-40GB", 1, 0, 39538, 8, 0, mig__strategy="mixed", mig__capable="true") | {
    "nvidia.com/mig-1g.5gb.count": "2",
    "nvidia.com/mig-1g.5gb.memory": "4864",
    "nvidia.com/mig-2g.10gb.count": "1",
}


def node(node_labels=T4, gpus=2, ready="True", name="n", taints=(), unschedulable=False, resource=None, **more):
    resources = {resource or "nvidia.com/gpu": str(gpus)} if gpus is not None else {}
    resources |= {f"nvidia.com/{key}": value for key, value in more.items()}
    return gpu_labels.Node(name, node_labels, tuple(taints), unschedulable, ready, resources, resources)


def wanted(**options):
    return gpu_requirement.Requirement(**options)


@pytest.mark.parametrize(
    ("node_labels", "expected"),
    [
        (T4, {"product": "Tesla-T4", "family": "turing", "memory_mib": 15360, "driver": "580.159.04", "cuda": "13.0"}),
        (H100, {"family": "hopper", "compute_capability": "9.0", "mig_capable": True, "mig_strategy": None}),
        (labels(driver=OLD_DRIVER), {"driver": "535.54.03", "cuda": "12.2", "family": "turing"}),
        (labels(driver={}), {"driver": None, "cuda": None}),
        (labels(driver={"cuda.driver.major": "470"}), {"driver": "470"}),
        (labels(driver={"cuda.driver-version.full": "new"}), {"driver": None}),
        (labels(memory=None), {"memory_mib": None}),
        (labels(memory="much", count="two", major="x"), {"memory_mib": None, "count": None, "family": None}),
        (SHARED, {"sharing": "time-slicing", "sharing_factor": 4, "model": "Tesla-T4"}),
        (MPS, {"sharing": "mps", "sharing_factor": 8}),
        (RENAMED, {"sharing": "time-slicing", "sharing_factor": 4}),
        (MIG_SINGLE, {"model": "NVIDIA-A100-SXM4-40GB", "mig_profiles": ("1g.5gb",), "mig_strategy": "single"}),
        (MIG_INVALID, {"mig_invalid": True, "count": 0, "memory_mib": None, "sharing_factor": None}),
        (MIG_MIXED, {"mig_profiles": ("1g.5gb", "2g.10gb"), "mig_strategy": "mixed", "sharing_factor": None}),
        (labels("A100-MIG-1g.5gb-SHARED", 7, 2), {"model": "A100", "mig_profiles": ("1g.5gb",), "sharing_factor": 2}),
        ({}, {"product": None, "count": None, "sharing": "none"}),
        ({"nvidia.com/gpu.product": None}, {"product": None}),
    ],
)
def test_read_labels(node_labels, expected):
    gpus = gpu_labels.read_labels(node_labels)
    assert {key: getattr(gpus, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("major", "minor", "family"),
    [
        (7, 0, "volta"), (7, 2, "volta"), (7, 5, "turing"), (8, 0, "ampere"), (8, 6, "ampere"), (8, 7, "ampere"),
        (8, 9, "ada-lovelace"), (9, 0, "hopper"), (10, 0, "blackwell"), (12, 0, "blackwell"), (13, 0, "rubin"),
        (6, 1, None), (11, 0, None),
    ],
)  # fmt: skip
def test_family_of(major, minor, family):
    assert gpu_labels.family_of(major, minor) == family


@pytest.mark.parametrize(
    ("tested", "text"),
    [
        (node({}, None), "no GPU labels and no NFD labels"),
        (node(NFD_ONLY, None), "no NVIDIA device that NFD can see"),
        (node(NFD_GPU, None), "seen by NFD"),
        (node({"feature.node.kubernetes.io/pci-0302_10de.present": "true"}, None), "seen by NFD"),
        (node({"feature.node.kubernetes.io/pci-0300_8086.present": "true"}, None), "no NVIDIA device"),
        (node({"nvidia.com/gpu.present": "true"}, None), "marked nvidia.com/gpu.present"),
        (node(T4, None), "device plugin does not run"),
        (node(MIG_INVALID, None), "MIG layout is invalid"),
        (node(T4, 1), "offers 1 nvidia.com/gpu, fewer than 2"),
        (node(RENAMED, 4, resource="nvidia.com/gpu.shared"), "offers no nvidia.com/gpu but nvidia.com/gpu.shared: 4"),
        (node(MIG_MIXED, 2, resource="nvidia.com/mig-1g.5gb"), "but nvidia.com/mig-1g.5gb: 2"),
        (node(T4, ready="False"), "not Ready"),
        (node(T4, ready="Unknown"), "not Ready"),
        (node(T4, unschedulable=True), "cordoned"),
        (node(T4, taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]), "the taint gpu=yes:NoSchedule"),
    ],
)
def test_why_a_node_does_not_meet_it(tested, text):
    reasons = gpu_requirement.reasons_against(tested, wanted(min_gpus_per_node=2))
    assert text in "; ".join(reasons)


def test_capacity_without_allocatable_is_told_from_a_missing_plugin():
    tested = gpu_labels.Node("n", T4, (), False, "True", {"nvidia.com/gpu": "0"}, {"nvidia.com/gpu": "2"})
    assert "0 allocatable" in gpu_requirement.reasons_against(tested, wanted())[0]


@pytest.mark.parametrize(
    ("node_labels", "options", "reason"),
    [
        (T4, {"products": ["*t4*"]}, None),
        (T4, {"products": ["Tesla-V100*", "Tesla-T4"]}, None),
        (SHARED, {"products": ["Tesla-T4"]}, None),
        (T4, {"products": ["*H100*"]}, "product is Tesla-T4"),
        (T4, {"families": ["turing"]}, None),
        (T4, {"families": ["hopper", "ampere"]}, "family is turing"),
        (T4, {"min_memory": 16384}, None),
        (T4, {"min_memory": 16384, "memory_tolerance": 0.05}, "memory is 15360 MiB"),
        (T4, {"min_memory": 24576}, "memory is 15360 MiB"),
        (labels(memory=None), {"min_memory": 16384}, "memory is not labelled"),
        (A100, {"min_memory": 40960}, None),
        (H100, {"min_memory": 81920}, None),
        (MIG_SINGLE, {"min_memory": 16384}, "memory is 4864 MiB"),
        (T4, {"min_compute_capability": "7.5"}, None),
        (T4, {"min_compute_capability": "8.0"}, "compute capability is 7.5"),
        (T4, {"min_driver": "535.54"}, None),
        (T4, {"min_driver": "580.159.04"}, None),
        (T4, {"min_driver": "580.200"}, "driver is 580.159.04"),
        (labels(driver={}), {"min_driver": "1"}, "driver is not labelled"),
        (T4, {"min_cuda": "12.9"}, None),
        (labels(driver=OLD_DRIVER), {"min_cuda": "12.10"}, "is 12.2, below 12.10"),
        (T4, {"mig": "disabled"}, None),
        (MIG_SINGLE, {"mig": "disabled"}, "split by MIG"),
        (MIG_SINGLE, {"mig": "single"}, None),
        (MIG_SINGLE, {"mig": "mixed"}, "MIG strategy is single"),
        (A100, {"mig": "single"}, "MIG strategy is none"),
        (A100, {"mig": "capable"}, None),
        (T4, {"mig": "capable"}, "not labelled as able"),
        (MIG_MIXED, {"mig": "mixed", "mig_profiles": ["2g.10gb"]}, None),
        (MIG_MIXED, {"mig_profiles": ["3g.20gb"]}, "no MIG profile 3g.20gb"),
        (MIG_INVALID, {}, "MIG layout is invalid"),
        (SHARED, {}, None),
        (SHARED, {"sharing": "none"}, "shared by time-slicing (factor 4)"),
        (SHARED, {"sharing": "time-slicing"}, None),
        (SHARED, {"sharing": "mps"}, "shared by time-slicing"),
        (SHARED, {"max_sharing_factor": 4}, None),
        (SHARED, {"max_sharing_factor": 2}, "shared by 4, more than 2"),
        (labels("Tesla-T4-SHARED", replicas=None), {"max_sharing_factor": 2}, "not labelled"),
        (T4, {"sharing": "mps"}, "not shared"),
    ],
)
def test_a_requirement_against_labels(node_labels, options, reason):
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    reasons = gpu_requirement.reasons_against(node(node_labels), wanted(**options))
    if reason is None:
        assert reasons == []
    else:
        assert reason in "; ".join(reasons)


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], False),
        ([{"operator": "Exists"}], True),
        ([{"key": "gpu", "operator": "Exists"}], True),
        ([{"key": "gpu", "value": "yes"}], True),
        ([{"key": "gpu", "operator": "Equal", "value": "no"}], False),
        ([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], False),
        ([{"key": "other", "operator": "Exists"}], False),
        ([None, {}], False),
    ],
)
def test_tolerated(tolerations, expected):
    assert gpu_labels.tolerated({"key": "gpu", "value": "yes", "effect": "NoSchedule"}, tolerations) is expected


def test_a_soft_taint_is_no_reason():
    assert gpu_requirement.reasons_against(node(taints=[{"key": "x", "effect": "PreferNoSchedule"}]), wanted()) == []


def container(**gpus):
    return {"resources": {key: {"nvidia.com/gpu": value} for key, value in gpus.items()}}


@pytest.mark.parametrize(
    ("spec", "phase", "expected"),
    [
        ({"containers": [container(limits="1"), container(limits="2")]}, "Running", 3),
        ({"containers": [container(limits="1", requests="1")]}, "Pending", 1),
        ({"containers": [container(limits="1")]}, "Succeeded", 0),
        ({"containers": [container(limits="1")], "initContainers": [container(limits="4")]}, "Running", 4),
        (
            {
                "containers": [container(limits="1")],
                "initContainers": [container(limits="1") | {"restartPolicy": "Always"}],
            },
            "Running",
            2,
        ),
        ({"containers": [None, {"resources": None}, container(limits="many")]}, "Running", 0),
        (None, None, 0),
    ],
)
def test_used_by(spec, phase, expected):
    assert gpu_labels.used_by({"spec": spec, "status": {"phase": phase}}, "nvidia.com/gpu") == expected


def test_own_pods_count_as_free():
    pod = {
        "metadata": {"namespace": "riva", "labels": {"app": "asr"}},
        "spec": {"nodeName": "n", "containers": [container(limits="1")]},
        "status": {"phase": "Running"},
    }
    assert gpu_labels.project_pod(pod, "nvidia.com/gpu") == ("n", 1)
    assert gpu_labels.project_pod(pod, "nvidia.com/gpu", [{"namespace": "riva", "labels": {"app": "asr"}}]) is None
    assert gpu_labels.project_pod(pod, "nvidia.com/gpu", [{"namespace": "other", "labels": {"app": "asr"}}]) == ("n", 1)
    assert gpu_labels.project_pod(pod, "nvidia.com/gpu", [{"namespace": None, "labels": {"app": "tts"}}]) == ("n", 1)


def statuses(findings):
    return [(finding.check, finding.status) for finding in findings]


def test_a_pods_gpus_have_to_be_on_one_node():
    need = wanted(min_fitting_pods=2, gpus_per_pod=2)
    verdicts = [gpu_requirement.judge(node(name=f"n{i}"), need, {"n1": 1}) for i in range(3)]
    assert gpu_requirement.fitting_pods(verdicts, 2) == 2
    assert statuses(gpu_findings.findings_of(verdicts, need)) == [("gpu_nodes", "ok"), ("fitting_pods", "ok")]


def test_nodes_that_are_missing_make_the_bad_ones_a_fault_and_else_a_warning():
    nodes = [node(name="good"), node(T4, None, name="bad"), node({}, None, name="control-plane")]
    findings = gpu_findings.findings_of(
        [gpu_requirement.judge(entry, wanted(min_nodes=1)) for entry in nodes], wanted(min_nodes=1)
    )
    assert statuses(findings) == [("gpu_nodes", "ok"), ("gpu_node", "warning")]
    findings = gpu_findings.findings_of(
        [gpu_requirement.judge(entry, wanted(min_nodes=2)) for entry in nodes], wanted(min_nodes=2)
    )
    assert statuses(findings) == [("gpu_nodes", "failed"), ("gpu_node", "failed")]
    assert findings[1].subject == "bad"
    assert all(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("tested", "resource", "status"),
    [
        (node(T4, 2), "nvidia.com/gpu", None),
        (node(T4, 1), "nvidia.com/gpu", "warning"),
        (node(SHARED, 4), "nvidia.com/gpu", None),
        (node(SHARED, 1), "nvidia.com/gpu", "warning"),
        (node(RENAMED, 4, resource="nvidia.com/gpu.shared"), "nvidia.com/gpu.shared", None),
        (node(MIG_MIXED, 2, resource="nvidia.com/mig-1g.5gb"), "nvidia.com/mig-1g.5gb", None),
        (node({}, 2), "nvidia.com/gpu", "unknown"),
    ],
)
def test_labels_that_disagree_with_what_is_offered(tested, resource, status):
    need = wanted(resource=resource)
    findings = gpu_findings.findings_of([gpu_requirement.judge(tested, need)], need)
    assert findings[0].status == "ok"
    assert [finding.status for finding in findings[1:]] == ([status] if status else [])


def test_no_gpu_anywhere_says_what_to_install():
    nodes = [node({}, None, name=f"n{i}") for i in range(3)]
    (finding,) = gpu_findings.findings_of([gpu_requirement.judge(entry, wanted()) for entry in nodes], wanted())
    assert "no node shows a GPU" in finding.message
    assert "GPU Operator" in finding.remedy
    (finding,) = gpu_findings.findings_of([], wanted())
    assert "node_selector" in finding.message


def test_findings_are_capped_with_a_count():
    verdicts = [gpu_requirement.judge(node(T4, None, name=f"n{i}"), wanted()) for i in range(200)]
    findings = gpu_findings.findings_of(verdicts, wanted())
    assert len(findings) == 1 + gpu_findings.MOST_NODE_FINDINGS + 1
    assert "150 more" in findings[-1].message


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": None, "spec": None, "status": None},
        {"metadata": {"labels": {"nvidia.com/gpu.count": None, 3: 4}}, "spec": {"taints": [None, 1]}},
        {"metadata": {"labels": ["x"]}, "status": {"conditions": "x", "allocatable": {"nvidia.com/gpu": "1e3"}}},
        {"metadata": {"labels": {"nvidia.com/gpu.count": "9" * 400}}},
        {"metadata": {"labels": {"nvidia.com/gpu.count": "1"}}, "status": {"allocatable": {"nvidia.com/gpu": "-1"}}},
    ],
)
def test_hostile_nodes_never_meet_it_and_never_break_it(item):
    verdict = gpu_requirement.judge(gpu_labels.project_node(item), wanted())
    assert not verdict.matches
    assert verdict.to_dict()["gpus"] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"min_gpus_per_node": 0}, "min_gpus_per_node is 0"),
        ({"min_nodes": -1}, "min_nodes is -1"),
        ({"min_compute_capability": "seven"}, "min_compute_capability is 'seven'"),
        ({"min_driver": "580-open"}, "min_driver is '580-open'"),
        ({"memory_tolerance": 1.0}, "memory_tolerance is 1.0"),
        ({"resource": "gpu"}, "resource is 'gpu'"),
        ({"mig_profiles": ("big",)}, "mig_profiles names 'big'"),
    ],
)
def test_a_wrong_requirement_is_named(options, text):
    assert text in gpu_requirement.requirement_errors(wanted(**options))[0]
    assert gpu_requirement.requirement_errors(wanted()) == []


TRUTH = {"labels": {key: value for key, value in T4.items() if not key.endswith("gpu.present")}, "either": {}}


@pytest.mark.parametrize(
    ("node_labels", "status", "words"),
    [
        (T4, "ok", "labels are those of its hardware"),
        (
            {**T4, "nvidia.com/gpu.product": "NVIDIA-A10"},
            "failed",
            "gpu.product is NVIDIA-A10, its hardware is Tesla-T4",
        ),
        ({**T4, "nvidia.com/gpu.count": "1"}, "failed", "gpu.count is 1, its hardware is 2"),
        ({**T4, "nvidia.com/mig.strategy": "single"}, "failed", "mig.strategy is single, its hardware has none"),
        ({**T4, "nvidia.com/cuda.driver-version.full": "570.1"}, "warning", "driver-version.full is 570.1"),
        ({}, "failed", "gpu.compute.major is missing"),
    ],
)
def test_labels_are_held_against_the_hardware(node_labels, status, words):
    (found,) = gpu_findings.hardware_findings([node(node_labels)], {"n": TRUTH})
    assert (found.check, found.subject, found.status) == ("gpu_labels", "n", status)
    assert words in found.message
    assert bool(found.remedy) == (status != "ok")


def test_hardware_of_a_node_that_is_not_in_the_cluster():
    (found,) = gpu_findings.hardware_findings([node()], {"other": TRUTH})
    assert (found.status, "no node of this name" in found.message) == ("failed", True)


@pytest.mark.parametrize("wanted", [None, "x", [], {}, {"labels": "x"}])
def test_expected_hardware_has_to_be_of_its_form(wanted):
    assert "expected_hardware.n" in gpu_findings.hardware_errors({"n": wanted})[0]
    assert gpu_findings.hardware_errors({"n": TRUTH}) == []
