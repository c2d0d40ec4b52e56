# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a bundle says of itself: the images of charts, where a mirror has them, the bill of materials."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import bundles, driver_plan
from ansible_collections.speechops.riva.plugins.module_utils.gpu_generations import REPOSITORIES
from ansible_collections.speechops.riva.plugins.module_utils.riva_values import merged

from tests.unit import charts
from tests.unit.plugins.test_gpu_pains import changed
from tests.unit.roles.test_driver_plan import BARE, SETTINGS, system

ROOT = Path(__file__).resolve().parents[3]
CHARTS = [*sorted(path.parent for path in (ROOT / "lab/charts").glob("*/Chart.yaml")), ROOT / "roles/riva/files/chart"]
MIRROR = "registry.example.com:5000/mirror"

IMAGES = [
    ({"spec": {"containers": [{"image": "quay.io/a/b:1"}]}}, ["quay.io/a/b:1"]),
    ({"spec": {"containers": [{"image": "a:1@sha256:" + "0" * 64}]}}, ["a:1@sha256:" + "0" * 64]),
    ({"driver": {"repository": "nvcr.io/nvidia", "image": "driver", "version": "580"}}, ["nvcr.io/nvidia/driver:580"]),
    (
        {"driver": {"repository": "nvcr.io/nvidia", "image": "driver", "version": "sha256:ab"}},
        ["nvcr.io/nvidia/driver@sha256:ab"],
    ),
    ({"args": ["--prometheus-config-reloader=quay.io/r:1", "--other=x/y:1"]}, ["quay.io/r:1"]),
    (
        {"env": [{"name": "VALIDATOR_IMAGE", "value": "nvcr.io/v:1"}, {"name": "OTHER", "value": "a/b:1"}]},
        ["nvcr.io/v:1"],
    ),
    ({"env": [{"name": "EMPTY_IMAGE", "value": ""}], "image": ""}, []),
    ({"image": "not an image"}, []),
    ({"spec": {"gdrcopy": {"enabled": False, "image": "nvcr.io/a:1"}}}, []),
    ({"vgpuManager": {"repository": "", "image": "vgpu-manager", "version": ""}}, []),
]


@pytest.mark.parametrize(("item", "images"), IMAGES)
def test_images_of(item, images):
    assert list(bundles.images_of(item)) == images


MIRRORED = [
    ({"image": {"registry": "quay.io", "repository": "a/b", "tag": "1"}}, {"image": {"registry": MIRROR}}),
    ({"image": {"repository": "quay.io/a/b"}}, {"image": {"repository": f"{MIRROR}/a/b"}}),
    ({"repository": "nvcr.io/nvidia", "image": "driver"}, {"repository": f"{MIRROR}/nvidia"}),
    ({"global": {"imageRegistry": None}}, {"global": {"imageRegistry": MIRROR}}),
    ({"image": "localhost/a:1"}, {"image": f"{MIRROR}/a:1"}),
    # No host in it, so it belongs below a registry that stands elsewhere.
    ({"image": {"repository": "prometheus/prometheus"}, "registry": ""}, {}),
    ({"replicas": 1, "list": [{"image": "quay.io/a"}]}, {}),
    (None, {}),
]


@pytest.mark.parametrize(("values", "wanted"), MIRRORED)
def test_mirrored(values, wanted):
    assert bundles.mirrored(values, MIRROR) == wanted


PINNED = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("image", "there"),
    [
        ("nvcr.io/nvidia/riva/riva-speech:2.19.0", "nvidia/riva/riva-speech:2.19.0"),
        ("docker.io/traefik:v3", "traefik:v3"),
        ("registry.local:5000/a/b:1", "a/b:1"),
        ("busybox:1.36", "busybox:1.36"),
        ("library/busybox", "library/busybox"),
        # Who names both means the digest.
        (f"quay.io/a/b:1@{PINNED}", f"a/b@{PINNED}"),
        (f"registry.local:5000/a@{PINNED}", f"a@{PINNED}"),
    ],
)
def test_in_registry(image, there):
    assert bundles.in_registry(image, MIRROR) == f"{MIRROR}/{there}"


@pytest.mark.parametrize(
    ("values", "others", "left"),
    [
        ({"a": 1, "b": 2}, {"a": 5}, {"b": 2}),
        ({"image": {"repository": "x", "registry": "y"}}, {"image": {"repository": "z"}}, {"image": {"registry": "y"}}),
        ({"image": {"repository": "x"}}, {"image": {"repository": "z"}}, {}),
        (
            {"streams": {"image": {"repository": "x"}}},
            {"streams": {"limit": 1}},
            {"streams": {"image": {"repository": "x"}}},
        ),
        ({"a": {"b": 1}}, {"a": None}, {}),
        ({}, {"a": 1}, {}),
    ],
)
def test_what_of_values_is_left_without_others(values, others, left):
    assert bundles.without(values, others) == left


def in_layout(name: str, digest: str) -> dict:
    return {"digest": digest, "annotations": {"org.opencontainers.image.ref.name": name}}


def test_a_layout_has_the_images_of_the_list_in_their_order():
    nameless = {"digest": "sha256:n", "annotations": {}}
    index = {"schemaVersion": 2, "manifests": [in_layout("b", "sha256:b"), nameless, in_layout("a", "sha256:a")]}
    assert bundles.layout_images(index) == {"a": "sha256:a", "b": "sha256:b"}
    assert bundles.layout_of(index, {"a", "b"})["manifests"] == [in_layout("a", "sha256:a"), in_layout("b", "sha256:b")]
    assert bundles.layout_images(bundles.layout_of(index, {"b", "c"})) == {"b": "sha256:b"}


LIST = json.dumps({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": []}).encode()


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (LIST, "application/vnd.docker.distribution.manifest.list.v2+json"),
        (b'{"manifests": []}', "application/vnd.oci.image.index.v1+json"),
        (b'{"layers": []}', "application/vnd.oci.image.manifest.v1+json"),
    ],
)
def test_an_image_is_described_as_it_is(manifest, kind):
    told = bundles.descriptor(manifest, "a:1", "sha256:list")
    assert (told["mediaType"], told["size"]) == (kind, len(manifest))
    assert told["digest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    index = bundles.layout_of({"manifests": [in_layout("a:1", "sha256:old")]}, {"a:1"}, told)
    assert bundles.layout_images(index) == {"a:1": told["digest"]}
    # One platform of a list is not all of them.
    assert bundles.layout_has(index, "a:1", "sha256:list", every=False)
    assert not bundles.layout_has(index, "a:1", "sha256:list", every=True)
    assert not bundles.layout_has(index, "a:1", "sha256:newer", every=False)
    assert not bundles.layout_has(index, "b:1", "sha256:list", every=False)
    whole = bundles.descriptor(manifest, "a:1", told["digest"])
    assert bundles.layout_has({"manifests": [whole]}, "a:1", told["digest"], every=True)


def test_parts_of_a_manifest_and_of_an_index():
    manifest = {"config": {"digest": "c"}, "layers": [{"digest": "1"}, {"digest": "2"}]}
    assert bundles.parts_of(manifest) == ([], ["1", "2", "c"])
    assert bundles.parts_of({"manifests": [{"digest": "m"}]}) == (["m"], [])


@pytest.mark.parametrize(
    ("told", "missing"),
    [
        ("reading manifest 3 in 127.0.0.1:5000/a: manifest unknown: manifest unknown", True),
        ("name unknown: repository name not known to registry", True),
        ("unknown: artifact mirror/a:1 not found", True),
        ("x509: certificate signed by unknown authority", False),
        ("unauthorized: authentication required", False),
        ("dial tcp: lookup registry.local: no such host", False),
        ("dial tcp 10.0.0.1:5404: connect: connection refused", False),
    ],
)
def test_whether_a_registry_says_that_it_does_not_have_an_image(told, missing):
    assert bundles.is_missing(told) is missing


@pytest.mark.parametrize("version", ["", "580.159.04"])
def test_the_nodes_packages_are_those_that_the_role_installs(version):
    """By the role's own plan for a bare node with NVSwitches."""
    settings = {**SETTINGS, "version": version, "fabric_manager": "always"}
    lines = {line.split()[0]: line.split()[1:] for line in bundles.node_packages(settings)}
    for (name, number), folder in REPOSITORIES.items():
        made = driver_plan.plan(changed(BARE, system(name, number)), settings)
        wanted = {*made["packages"], *made["toolkit"], made["fabric_manager"]}
        wanted |= {package.replace(BARE["kernel"]["release"], "KERNEL") for package in made["headers"]}
        assert set(lines[folder][2:]) == wanted
        assert lines[folder][:2] == [made["repository"], made["toolkit_repository"]]
    assert set(lines) == set(REPOSITORIES.values())


def rendered(chart: Path, values: dict) -> set[str]:
    return {image for item in charts.rendered(chart, values) for image in bundles.images_of(item)}


@pytest.mark.parametrize("s3", [{}, {"path": "speech/a100"}], ids=["NGC", "a bucket"])
@pytest.mark.parametrize("chart", CHARTS, ids=[chart.name for chart in CHARTS])
def test_every_image_of_a_chart_comes_from_the_mirror(chart, s3):
    asked = {"streams": {"limit": 1}, "modelInit": {"enabled": True, "s3": s3}} if chart.name == "chart" else {}
    values = merged(yaml.safe_load((chart / "values.yaml").read_text()), asked)
    before = rendered(chart, asked)
    after = rendered(chart, merged(asked, bundles.mirrored(values, MIRROR)))
    assert before
    assert {image for image in after if not image.startswith(f"{MIRROR}/")} == set()
    assert len(after) == len(before)


def test_the_bill_is_the_same_for_the_same_and_has_what_cyclonedx_asks_for():
    wheel = bundles.file_component("pypi", "pyyaml", "6.0.2", "ab" * 32, "wheels/x.whl")
    image = bundles.image_component("nvcr.io:443/nvidia/riva:2.19.0")
    copied = bundles.image_component("nvcr.io/nvidia/riva:2.19.0", f"sha256:{'cd' * 32}")
    assert copied["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    assert "hashes" not in image
    bill = bundles.sbom("1.0.0", [wheel, image])
    assert bill == bundles.sbom("1.0.0", [image, wheel])
    assert bill["serialNumber"] != bundles.sbom("1.0.0", [wheel])["serialNumber"]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert image["purl"] == "pkg:oci/riva@2.19.0?repository_url=nvcr.io:443/nvidia/riva"
    assert wheel["purl"] == "pkg:pypi/pyyaml@6.0.2"
    assert wheel["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


@pytest.mark.parametrize(
    ("image", "name", "version"),
    [("a", "a", "latest"), ("h:5000/a", "h:5000/a", "latest"), ("h/a:1@sha256:00", "h/a", "sha256:00")],
)
def test_names_and_versions_of_images(image, name, version):
    component = bundles.image_component(image)
    assert (component["name"], component["version"]) == (name, version)


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("PyYAML-6.0.2-cp311-cp311-manylinux.whl", ("pyyaml", "6.0.2")),
        ("nvidia_riva_client-2.28.0-py3-none-any.whl", ("nvidia-riva-client", "2.28.0")),
        ("openshift-0.13.2.tar.gz", ("openshift", "0.13.2")),
        ("notes.txt", None),
    ],
)
def test_names_and_versions_of_python_packages(file, named):
    assert bundles.wheel_name(file) == named
