# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The built collection holds what its users need, and nothing else."""

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
GALAXY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
AT_THE_TOP = {
    "CHANGELOG.rst",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "bindep.txt",
    "changelogs",
    "docs",
    "inventories",
    "meta",
    "playbooks",
    "plugins",
    "requirements.lock",
    "requirements.txt",
    "roles",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run(
        [galaxy, "collection", "build", "--output-path", folder], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        yield archive, [member.name for member in tar.getmembers() if member.isfile()], tar


def test_it_has_the_version_of_galaxy_yml(built):
    archive, _names, tar = built
    assert archive.name == f"speechops-riva-{GALAXY['version']}.tar.gz"
    manifest = json.load(tar.extractfile("MANIFEST.json"))["collection_info"]
    assert manifest["version"] == GALAXY["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?", GALAXY["version"])


def test_nothing_is_at_its_top_that_nobody_needs(built):
    _archive, names, _tar = built
    assert {name.split("/")[0] for name in names} == AT_THE_TOP


def test_nothing_of_the_workshop_is_in_it(built):
    _archive, names, _tar = built
    odd = [name for name in names if re.search(r"(^|/)(\.|__pycache__|tests?/)|\.(pyc|retry)$", name)]
    assert [name for name in odd if not name.endswith("/.helmignore")] == []
    assert not [name for name in names if name.startswith(("inventories/lab", "changelogs/fragments"))]


def test_the_inventory_that_people_fill_in_is_neither_built_nor_committed():
    """It has their vault."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (filled_in,) = set(re.findall(r"cp -r inventories/onprem (inventories/\w+)", readme))
    assert filled_in in GALAXY["build_ignore"]
    assert f"{filled_in}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_all_that_git_has_of_the_product_is_in_it(built):
    """What git does not know would be missing on a fresh clone; what build_ignore hits by accident, here."""
    _archive, names, _tar = built
    folders = ("meta", "playbooks", "plugins", "roles", "inventories/onprem")
    listed = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert set(listed.stdout.split()) - set(names) == set()


def test_it_is_small(built):
    archive, _names, _tar = built
    assert archive.stat().st_size < 2_000_000


def test_the_readme_leads_to_nothing_that_is_not_in_it(built):
    _archive, names, tar = built
    readme = tar.extractfile("README.md").read().decode()
    folders = {str(parent) for name in names for parent in Path(name).parents}
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", readme) if not re.match(r"https?:|#", link)]
    assert [link for link in links if link.rstrip("/") not in {*names, *folders}] == []
