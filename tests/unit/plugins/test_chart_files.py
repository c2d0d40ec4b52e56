# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a chart in a folder or a tgz file says of itself."""

import io
import tarfile

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import chart_files

CHART = "apiVersion: v2\nname: traefik\nversion: 41.3.0\n"
PART = "name: a part of it\nversion: 1.0.0\n"


def packed(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            item = tarfile.TarInfo(name.replace("__", "/").replace("_yaml", ".yaml"))
            item.size = len(text.encode())
            archive.addfile(item, io.BytesIO(text.encode()))
    return path


def test_a_folder(tmp_path):
    (tmp_path / "Chart.yaml").write_text(CHART)
    assert chart_files.metadata(str(tmp_path)) == {"apiVersion": "v2", "name": "traefik", "version": "41.3.0"}


def test_a_tgz_with_parts(tmp_path):
    path = packed(tmp_path / "a.tgz", traefik__charts__part__Chart_yaml=PART, traefik__Chart_yaml=CHART)
    assert chart_files.metadata(str(path))["name"] == "traefik"


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: b: c", "\x00", "just a text"])
def test_what_is_no_chart_says_nothing(tmp_path, text):
    (tmp_path / "Chart.yaml").write_text(text)
    assert chart_files.metadata(str(tmp_path)) == {}
    assert chart_files.metadata(str(packed(tmp_path / "a.tgz", traefik__Chart_yaml=text))) == {}


def test_what_can_not_be_read_says_nothing(tmp_path):
    half = tmp_path / "half.tgz"
    half.write_bytes(packed(tmp_path / "a.tgz", traefik__Chart_yaml=CHART).read_bytes()[:60])
    no_tgz = tmp_path / "no.tgz"
    no_tgz.write_text(CHART)
    without = packed(tmp_path / "without.tgz", traefik__values_yaml="a: 1\n")
    for path in (half, no_tgz, without, tmp_path / "missing.tgz", tmp_path):
        assert chart_files.metadata(str(path)) == {}, path
