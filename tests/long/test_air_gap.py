"""site.yml from a bundle, in a network namespace that has a way to the cluster and to nowhere else.

Nothing of this checkout takes part but the inventory: Ansible, the collection, Helm and the charts are the bundle's.
AIR_GAP_FOLDER keeps bundle and controller, which take minutes, for another run.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab import network, processes
from lab.settings import Lab
from tests.integration.running_lab import PLAYBOOK, REPOSITORY, run
from tests.integration.test_site import changes, recap

SPACE = "speechops-gap"
PORT = "gap"


@pytest.fixture(scope="module")
def gap(lab):
    """Words that begin a command in a network namespace with a cable to the lab's switch, and no other one."""
    of_lab = Lab(lab.name, lab.network)
    pid = processes.switch_process(of_lab)
    # Between the nodes' addresses, from below, and those of LoadBalancer Services.
    address = f"{ipaddress.ip_network(lab.network)[500]}/{of_lab.addresses.prefixlen}"
    run("ip", "netns", "del", SPACE, check=False)
    run("ip", "netns", "add", SPACE)
    enter = ["ip", "netns", "exec", SPACE]
    try:
        ip = ["ip", "link", "add", PORT, "type", "veth", "peer", "name", "eth0", "netns", f"/var/run/netns/{SPACE}"]
        run("nsenter", f"--net=/proc/{pid}/ns/net", *ip)
        run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", PORT, "master", network.BRIDGE, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
            ["addr", "add", address, "dev", "eth0"],
            ["route", "add", str(of_lab.load_balancer_addresses), "via", str(of_lab.address(of_lab.control_plane))],
        ):
            run("ip", "-n", SPACE, *words)
        yield enter
    finally:
        # Its cable goes with it.
        run("ip", "netns", "del", SPACE)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Path(os.environ.get("AIR_GAP_FOLDER") or tmp_path_factory.mktemp("gap"))


@pytest.fixture(scope="module")
def bundle(kept):
    """Made where there is a way out; a second time nothing is different."""
    folder = kept / "bundle"
    words = [PLAYBOOK, "playbooks/bundle.yml", "-e", f"bundle_folder={folder}"]
    if not folder.exists():
        assert recap(run(*words, timeout=1200).stdout)["changed"] == 1
    assert recap(run(*words, timeout=1200).stdout)["changed"] == 0
    return folder


@pytest.fixture(scope="module")
def there(bundle, gap, kept):
    """A controller on the other side: Python and what the bundle has."""
    home = kept / "there"
    if home.exists():
        return home
    run(sys.executable, "-m", "venv", home / "venv")
    python = home / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    run(*gap, *install, *sorted((bundle / "wheels").iterdir()), timeout=1200)
    (collection,) = (bundle / "collections").glob("*.tar.gz")
    galaxy = python.with_name("ansible-galaxy")
    words = ["collection", "install", collection, "--offline", "--no-deps", "-p", home / "collections"]
    # Not in this checkout, whose ansible.cfg says that the collection is there already.
    subprocess.run([*gap, galaxy, *words], cwd=home, env={**os.environ, "ANSIBLE_HOME": str(home)}, check=True)
    assert (home / "collections/ansible_collections/speechops/riva/MANIFEST.json").exists()
    shutil.copytree(REPOSITORY / "inventories" / "lab", home / "inventory")
    return home


def play(there: Path, gap: list[str], lab, *words, check: bool = True, home: str = "bin"):
    """Run the installed collection's site.yml in the namespace, with no Helm but its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON", "PIP_"))}
    command = [*gap, there / "venv/bin/ansible-playbook", "-i", there / "inventory", "speechops.riva.site"]
    command += ["-e", json.dumps({"lab_name": lab.name, "helm_install_dir": str(there / home)}), *words]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=there,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(there / "collections"), "ANSIBLE_HOME": str(there / ".ansible")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1500,
    )
    assert not check or done.returncode == 0, done.stdout[-8000:]
    return done


def from_bundle(folder: Path) -> list[str]:
    return ["-e", f"@{folder / 'variables.yml'}", "-e", f"bundle_folder={folder}"]


def test_there_is_no_way_out(gap):
    look = "import socket; socket.create_connection(('192.0.2.1', 443), 3)"
    done = subprocess.run([*gap, sys.executable, "-c", look], capture_output=True, text=True)
    assert "Network is unreachable" in done.stderr


def test_the_bundle_tells_what_is_in_it(bundle):
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    named = {(item["name"], item["version"]) for item in bill["components"]}
    assert {("traefik", "41.3.0"), ("helm", "3.17.3"), ("nvcr.io/nvidia/riva/riva-speech", "2.19.0")} <= named
    wanted = [line.split("==") for line in (REPOSITORY / "requirements.txt").read_text().splitlines() if "==" in line]
    assert {(name.lower(), version) for name, version in wanted} <= {(name, version) for name, version in named}
    files = {item["properties"][0]["value"] for item in bill["components"] if "properties" in item}
    there = {
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.suffix in (".tgz", ".whl", ".gz")
    }
    assert files == there
    listed = {line.split("  ")[1] for line in (bundle / "SHA256SUMS").read_text().splitlines()}
    every = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert listed == every - {"SHA256SUMS"}


def test_without_the_bundle_it_cannot_go_on(there, gap, lab):
    """Else the next test would show nothing."""
    done = play(there, gap, lab, "--tags", "always,helm", check=False, home="empty")
    assert done.returncode != 0
    assert "get.helm.sh" in done.stdout


def test_site_from_the_bundle(there, gap, lab, bundle):
    output = play(there, gap, lab, *from_bundle(bundle)).stdout
    assert recap(output)["failed"] == 0
    assert (there / "bin" / "helm").exists()
    assert "riva-asr: clients connect to" in output
    assert changes(play(there, gap, lab, *from_bundle(bundle)).stdout) == []


@pytest.mark.parametrize("kind", ["charts", "helm", "wheels", "collections"])
def test_a_changed_byte_is_refused_before_anything_is_changed(there, gap, lab, bundle, tmp_path, kind):
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-rl", bundle, copy], check=True)
    victim = sorted((copy / kind).iterdir())[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(data)
    done = play(there, gap, lab, *from_bundle(copy), check=False)
    assert done.returncode != 0
    assert f"{kind}/{victim.name}" in done.stdout
    assert recap(done.stdout)["changed"] == 0


def test_a_changed_wheel_is_not_taken_into_a_bundle(bundle, tmp_path):
    """It lies where an interrupted run left it; the lock file knows better."""
    (tmp_path / "wheels").mkdir()
    wheel = next((bundle / "wheels").glob("riva_client*.whl"), None) or next((bundle / "wheels").glob("*yaml*.whl"))
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "wheels" / wheel.name).write_bytes(data)
    run(PLAYBOOK, "playbooks/bundle.yml", "-e", f"bundle_folder={tmp_path}", timeout=1200)
    assert (tmp_path / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()


def test_a_bundle_that_was_not_finished_is_refused(there, gap, lab, tmp_path):
    done = play(there, gap, lab, "-e", f"bundle_folder={tmp_path}", check=False)
    assert done.returncode != 0
    assert "SHA256SUMS" in done.stdout
    assert recap(done.stdout)["changed"] == 0


def test_the_variables_name_a_mirror(bundle, tmp_path):
    """Every image of every chart below the registry, by each chart's own keys."""
    words = ["-e", f"bundle_folder={tmp_path / 'b'}", "-e", "bundle_wheels=false"]
    run(PLAYBOOK, "playbooks/bundle.yml", *words, "-e", "bundle_registry=mirror.example:5000/x")
    variables = yaml.safe_load((tmp_path / "b" / "variables.yml").read_text())
    assert variables["traefik_values"]["image"]["registry"] == "mirror.example:5000/x"
    assert variables["riva_values"]["image"]["repository"] == "mirror.example:5000/x/nvidia/riva/riva-speech"
    assert variables["riva_values"]["streams"]["image"]["repository"].startswith("mirror.example:5000/x/")
