# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a bundle says of itself: the images of charts, where a mirror has them, the bill of materials."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils import bundles
from ansible_collections.speechops.riva.plugins.module_utils.riva_values import merged

ROOT = Path(__file__).resolve().parents[3]
HELM = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
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


def rendered(chart: Path, values: dict) -> set[str]:
    done = subprocess.run(
        [HELM, "template", "x", chart, "--namespace=y", "-f", "-"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=True,
    )
    return {image for item in yaml.safe_load_all(done.stdout) for image in bundles.images_of(item)}


@pytest.mark.skipif(not HELM, reason="helm is not installed here")
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
