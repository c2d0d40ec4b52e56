# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The pages in docs/ say what the code says: links lead somewhere, variables exist, defaults and versions are right."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.speechops.riva.plugins.action.preflight import specs
from ansible_collections.speechops.riva.plugins.module_utils import inputs

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("roles/*/README.md")])
OPTIONS, ROLES = specs()
CHARTS = {
    "gpu_operator_values": "gpu-operator",
    "kube_prometheus_stack_values": "kube-prometheus-stack",
    "nvidia_device_plugin_values": "nvidia-device-plugin",
    "prometheus_adapter_values": "prometheus-adapter",
    "traefik_values": "traefik",
}
PLAYBOOKS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").glob("*.yml")}


def name_of(path):
    return str(path.relative_to(ROOT))


def text_of(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def unknown_keys(values, chart):
    spec = importlib.util.spec_from_file_location("upstream_keys", ROOT / "tests" / "unit" / "lab" / "upstream_keys.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.unknown_keys(values, chart)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_leads_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    near = [target for target in targets if target and "://" not in target]
    assert [target for target in near if not (path.parent / target).exists()] == []


def anchors(path):
    """What GitHub makes of a page's headings: small letters, no punctuation, hyphens for spaces."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_to_a_heading_finds_it(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", text)
    lost = [f"{page}#{name}" for page, name in links if name not in anchors(path.parent / page if page else path)]
    assert lost == []


def test_the_index_names_every_page():
    linked = set(re.findall(r"\]\(([^)\s]+)\)", text_of("README.md")))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"decisions"}
    assert linked == pages - {"README.md"}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_variable_that_a_page_names_exists(path):
    """In backticks and with a role's prefix: a variable of that role, or the name of a role or plugin."""
    named = set(re.findall(r"`(?:-e )?([a-z][a-z0-9_]*)(?::[^`]*)?`", path.read_text(encoding="utf-8")))
    ours = {name for name in named if any(name.startswith(f"{role}_") for role in ROLES)}
    plugins = {plugin.stem for plugin in (ROOT / "plugins").glob("*/*")}
    assert ours - set(OPTIONS) - set(ROLES) - plugins == set()
    of_playbooks = {name for name in named if re.match(r"(load_test|verify|calibrate|capacity)_", name)}
    assert {name for name in of_playbooks if not any(name in text for text in PLAYBOOKS.values())} <= plugins


def examples():
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"```ya?ml\n(.*?)```", text, flags=re.DOTALL)):
            yield pytest.param(yaml.safe_load(block), id=f"{name_of(path)}-{number}")


@pytest.mark.parametrize("block", list(examples()))
def test_every_example_of_variables_would_pass_the_input_check(block):
    if not isinstance(block, dict):
        return  # a play
    found = inputs.check_variables(OPTIONS, ROLES, {"cluster_kubeconfig": "/k", **block})
    assert inputs.as_text(found + inputs.check_services(block.get("riva_services"))) == ""
    for variable, chart in CHARTS.items():
        assert unknown_keys(block.get(variable) or {}, chart) == []


def rows(page, variable):
    """Cells of the table rows that begin with a variable."""
    lines = text_of(page).splitlines()
    return {
        found.group(1): [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if (found := re.match(rf"\| `({variable})`", line))
    }


def test_the_load_test_page_has_every_variable_and_its_default():
    table = rows("load-test.md", "load_test_[a-z_]+")
    known = re.findall(r"^      - (load_test_\w+)$", PLAYBOOKS["load_test"], re.MULTILINE)
    assert list(table) == known
    module = (ROOT / "plugins" / "modules" / "speech_load_test.py").read_text(encoding="utf-8")
    options = yaml.safe_load(module.split('r"""')[1].split('"""')[0])["options"]
    for name, cells in table.items():
        default = options.get(name.removeprefix("load_test_"), {}).get("default")
        if default is not None and name not in ("load_test_name", "load_test_namespace"):
            assert cells[1] == str(default), name


@pytest.mark.parametrize(
    ("page", "playbook", "known"),
    [
        ("calibrate.md", "calibrate", r"^      - (calibrate_\w+)$"),
        ("capacity.md", "capacity", r"\b(capacity_(?:format|report_file))(?=[,\]])"),
    ],
)
def test_a_page_of_a_playbook_has_every_variable(page, playbook, known):
    names = re.findall(known, PLAYBOOKS[playbook], re.MULTILINE)
    assert names
    assert set(rows(page, f"{playbook}_[a-z_]+")) == set(names)
    # … and so does the head of the playbook.
    head = PLAYBOOKS[playbook].partition("\n- name:")[0]
    assert [name for name in names if f"#   {name} " not in head] == []


def test_compatibility_names_the_versions_that_are_installed():
    text = text_of("compatibility.md")
    pinned = [name for name in OPTIONS if name.endswith("_version") and OPTIONS[name].get("default")]
    lines = [f"| {OPTIONS[name]['default']} | `{name}` |" for name in [*pinned, "riva_image_tag"]]
    assert [line for line in lines if line not in text] == []
    oldest = ".".join(map(str, inputs.OLDEST_KUBERNETES))
    assert f"| Kubernetes | {oldest} or newer |" in text
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    assert f"| ansible-core | {runtime['requires_ansible'].removeprefix('>=').removesuffix('.0')} or newer |" in text
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    assert f"| {galaxy['dependencies']['kubernetes.core'].removeprefix('>=')} or newer |" in text
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for package in ("ansible", "kubernetes", "nvidia-riva-client"):
        (version,) = re.findall(rf"^{package}==(.+)$", requirements, re.MULTILINE)
        assert f"{package} {version}" in text


def test_tags_of_the_install_page_are_those_of_the_playbooks():
    tags = set()
    for name in ("site", "verify"):
        for play in yaml.safe_load(PLAYBOOKS[name]):
            tags |= set(play.get("tags") or [])
    (line,) = (line for line in text_of("install.md").splitlines() if "`--tags helm`" in line)
    named = set(re.findall(r"`(?:--tags )?([a-z_]+)`", line))
    assert tags - {"always"} == named
