# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/supply-chain.md against the tree: what is downloaded is pinned, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import INDEX, is_digest

from lab import binaries

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "supply-chain.md").read_text(encoding="utf-8")
DECISION = (ROOT / "docs" / "decisions" / "0009-charts-are-held-against-digests.md").read_text(encoding="utf-8")
DEFAULTS = {
    path.parents[1].name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("roles/*/defaults/main.yml"))
}
CHARTED = sorted(role for role, values in DEFAULTS.items() if values.get(f"{role}_chart_repo_url"))
GO = sorted(path.parent for path in ROOT.glob("lab/go/*/go.mod"))
SHELL = (
    *("playbooks/*.yml", "playbooks/tasks/*.yml", "roles/*/tasks/*.yml", "roles/*/files/chart/templates/*"),
    *("plugins/*/*.py", "lab/*.py", "lab/*.sh"),
)


def test_there_are_roles_with_charts_from_elsewhere():
    assert len(CHARTED) >= 7


@pytest.mark.parametrize("role", CHARTED)
def test_a_role_s_chart_has_a_version_and_a_digest(role):
    version, digest = DEFAULTS[role][f"{role}_chart_version"], DEFAULTS[role][f"{role}_chart_digest"]
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", version)
    # The one of which no digest could be had; the decision says so.
    assert is_digest(digest) or (role, digest) == ("traefik", INDEX)
    name = DEFAULTS[role][f"{role}_chart_ref"]
    assert f"{name} {version}" in DECISION or role == "traefik"


@pytest.mark.parametrize("role", CHARTED)
def test_a_role_hands_the_digest_on(role):
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "roles" / role / "tasks").glob("*.yml")]
    installing = [text for text in texts if "_release_chart_version" in text]
    assert installing
    assert all(f'_release_chart_digest: "{{{{ {role}_chart_digest }}}}"' in text for text in installing)


def test_helm_in_its_default_version_is_known_by_its_checksum():
    known = yaml.safe_load((ROOT / "roles/helm/vars/main.yml").read_text(encoding="utf-8"))["__helm_known"]
    version = DEFAULTS["helm"]["helm_version"]
    assert {name for name in known if name.startswith(f"{version}-")} == {
        f"{version}-linux-amd64",
        f"{version}-linux-arm64",
    }
    assert all(is_digest(value) for value in known.values())


@pytest.mark.parametrize("folder", GO, ids=lambda folder: folder.name)
def test_what_is_built_has_checksums_of_its_go_modules(folder):
    wanted = re.findall(r"^\s*(?:require )?([\w.-]+\.[\w./~-]+) (v\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    sums = (folder / "go.sum").read_text()
    assert wanted
    replaced = re.findall(
        r"^\s*(?:replace )?\S+(?: v\S+)? => (\S+) (v\S+)$", (folder / "go.mod").read_text(), re.MULTILINE
    )
    names = {name for name, _version in replaced}
    for name, version in [*wanted, *replaced]:
        assert (
            f"{name} {version}/go.mod h1:" in sums or name in names or f"{name} => " in (folder / "go.mod").read_text()
        ), name


def test_what_is_downloaded_for_the_lab_has_a_checksum_file():
    modules = [module for module in vars(binaries).values() if isinstance(module, binaries.Module)]
    for module in [*binaries.MODULES, *modules]:
        assert (module.release is None) == (module.checksums is None), module.name
        assert re.fullmatch(r"\d+\.\d+\.\d+", module.version), module.name


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_python_packages_are_pinned(name):
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] not in "#-"]
    # Of these any that is new enough will do in the list; the lock has one version of each.
    loose = {"Jinja2", "PyYAML"} if name == "requirements.txt" else set()
    assert {re.split("[=<>]", line)[0] for line in lines if "==" not in line} <= loose


def test_nothing_is_piped_from_the_network_into_a_shell_or_fetched_unseen():
    for path in (path for pattern in SHELL for path in ROOT.glob(pattern) if path.is_file()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(curl|wget)\b[^\n|]*\|\s*(ba)?sh", text), path
        assert not re.search(
            r"validate_certs: (false|no)|--insecure(-skip-tls-verify)?\b|--no-check-certificate", text
        ), path


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"\b((?:tests|extensions)/[\w/.-]+)", PAGE)
    assert len(named) >= 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_variables_that_the_page_names_are_there():
    known = {name for values in DEFAULTS.values() for name in values} | {"riva_nim_image_tag", "riva_model_bucket"}
    options = yaml.safe_load((ROOT / "roles/riva/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    named = set(re.findall(r"`((?:riva|helm|nvidia_driver)_[a-z_]+)`", PAGE))
    assert named <= known | set(options)
    assert named
