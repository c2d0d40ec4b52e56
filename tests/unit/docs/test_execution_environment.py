# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ansible-builder makes of the collection for an execution environment; an image takes a container engine."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from bindep.depends import Depends

ROOT = Path(__file__).resolve().parents[3]
BUILDER = Path(sys.executable).with_name("ansible-builder")
# Comes with ansible-core in every execution environment, and so ansible-builder leaves it out.
WITH_ANSIBLE = {"ansible", "PyYAML"}
# What modules of Ansible's own call on the machine that a task runs on.
PROGRAMS = {"ansible.builtin.unarchive": {"gzip", "tar"}}


def words_of(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def build(*words, cwd):
    return subprocess.run([BUILDER, *words], cwd=cwd, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a collection path that has the built collection."""
    folder = tmp_path_factory.mktemp("environment")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    words = [galaxy, "collection", "build", "--output-path", folder]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "ansible_collections" / "speechops" / "riva", filter="data")
    return folder


@pytest.fixture(scope="module")
def found(installed):
    build("introspect", "--write-pip=python.txt", "--write-bindep=system.txt", ".", cwd=installed)
    return {
        kind: {line.split("  # from")[0].strip() for line in words_of(installed / f"{kind}.txt")}
        for kind in ("python", "system")
    }


def test_it_has_the_python_packages_of_the_collection(found):
    wanted = words_of(ROOT / "requirements.txt")
    kept = {line for line in wanted if re.match(r"[A-Za-z-]+", line).group() not in WITH_ANSIBLE}
    assert len(kept) < len(wanted)
    assert found["python"] == kept


def test_it_has_the_system_packages_of_the_collection(found):
    assert found["system"] == set(words_of(ROOT / "bindep.txt"))


@pytest.mark.parametrize(
    ("platform", "ssh"), [("platform:dpkg", "openssh-client"), ("platform:rpm", "openssh-clients")]
)
def test_bindep_names_the_packages_of_a_distribution(platform, ssh):
    rules = Depends((ROOT / "bindep.txt").read_text(encoding="utf-8")).active_rules([platform])
    assert {rule[0] for rule in rules} == {"gzip", "tar", ssh}


def test_a_program_that_modules_call_is_among_them():
    used = set()
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/*.yml")]:
        text = path.read_text(encoding="utf-8")
        used |= {program for module, programs in PROGRAMS.items() if f"{module}:" in text for program in programs}
    assert used
    assert used <= set(words_of(ROOT / "bindep.txt"))


def test_the_example_of_the_install_page_makes_a_build_context(installed):
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(# execution-environment\.yml\n.*?)```", page, re.DOTALL)
    definition = yaml.safe_load(text)
    (ours,) = definition["dependencies"]["galaxy"]["collections"]
    # It names the archive that `ansible-galaxy collection build` makes.
    assert (installed / ours["name"]).exists()
    (installed / "execution-environment.yml").write_text(text)
    build("create", "--context=context", cwd=installed)
    assert yaml.safe_load((installed / "context/_build/requirements.yml").read_text())["collections"] == [ours]
    recipe = (installed / "context" / "Dockerfile").read_text()
    assert f'EE_BASE_IMAGE="{definition["images"]["base_image"]["name"]}"' in recipe
    assert "introspect" in recipe
    assert (installed / "context/_build/scripts/introspect.py").exists()
