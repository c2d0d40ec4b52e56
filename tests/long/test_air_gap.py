"""site.yml from a bundle, in a network namespace that has a way to the cluster and to nowhere else.

Nothing of this checkout takes part but the inventory: Ansible, the collection, Helm, the charts and all images are the
bundle's. A registry stands in that namespace; the nodes lose the images that the lab gave them, and pull from there.
Outside stands another one, in place of nvcr.io, quay.io and the others, with the images that the lab is made of.
AIR_GAP_FOLDER keeps bundle and controller, which take minutes, for another run.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from lab import cluster, extras, network, processes
from lab.settings import Lab
from tests.integration.running_lab import PLAYBOOK, REPOSITORY, eventually, run
from tests.integration.test_site import changes, recap

SPACE = "speechops-gap"
PORT = "gap"
HOSTS = ("docker.io", "nvcr.io", "quay.io", "registry.k8s.io")
# What a cluster has before it has a registry: its own DNS and what holds a pod together.
OF_THE_CLUSTER = ("coredns/coredns", "pause")
FOLDER = "mirror"


def address_of(lab) -> ipaddress.IPv4Address:
    """Of the namespace: between the nodes' addresses, from below, and those of LoadBalancer Services."""
    return ipaddress.IPv4Network(lab.network)[500]


@pytest.fixture(scope="module")
def gap(lab):
    """Words that begin a command in a network namespace with a cable to the lab's switch, and no other one."""
    of_lab = Lab(lab.name, lab.network)
    pid = processes.switch_process(of_lab)
    address = f"{address_of(lab)}/{of_lab.addresses.prefixlen}"
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


@contextmanager
def serving(program: Path, folder: Path, address: str, enter: list[str], tls: dict | None = None):
    """Distribution's registry on an address, with its images in a folder; gives the file of its access log."""
    folder.mkdir(parents=True, exist_ok=True)
    port = int(address.rpartition(":")[2])
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": address, "secret": "of one process alone", **({"tls": tls} if tls else {})},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    log = folder / "log"
    with open(log, "wb") as written:
        words = [*enter, program, "serve", folder / "config.yml"]
        server = subprocess.Popen([str(word) for word in words], stdout=written, stderr=written)
    try:
        look = f"import socket; socket.create_connection(({address.rpartition(':')[0]!r}, {port}), 3)"
        eventually(
            lambda: subprocess.run([*enter, sys.executable, "-c", look], stderr=subprocess.DEVNULL).returncode == 0
        )
        yield log
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def sources(lab, kept, tmp_path_factory):
    """Words that begin a command for which nvcr.io and the others are a registry of this machine."""
    of_lab = Lab(lab.name, lab.network)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = tmp_path_factory.mktemp("outside") / "registries.conf"
    location = '[[registry]]\nprefix = "{0}"\nlocation = "{1}/{0}"\ninsecure = true\n'
    settings.write_text("".join(location.format(host, address) for host in HOSTS))
    with serving(extras.registry(of_lab), kept / "outside", address, []):
        for archive in cluster.prepare(of_lab):
            with tarfile.open(archive) as opened:
                named = json.load(opened.extractfile("manifest.json"))
            for tag in (tag for image in named for tag in image["RepoTags"]):
                words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}:{tag}"]
                run(*words, f"docker://{address}/{tag}")
        yield [
            "unshare",
            "-m",
            "sh",
            "-c",
            f'mount --bind {settings} /etc/containers/registries.conf && exec "$@"',
            "sh",
        ]


@pytest.fixture(scope="module")
def registry(lab, gap, kept):
    """A registry inside, with a certificate that nobody knows yet; and the file of its access log."""
    address = f"{address_of(lab)}:5000"
    folder = kept / "inside"
    folder.mkdir(exist_ok=True)
    names = {"certificate": str(folder / "ca.crt"), "key": str(folder / "tls.key")}
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    alternative = f"subjectAltName=IP:{address_of(lab)}"
    run(*words, "-subj", "/CN=registry", "-addext", alternative, "-out", names["certificate"], "-keyout", names["key"])
    with serving(extras.registry(Lab(lab.name)), folder, address, gap, names) as log:
        yield address, log


@pytest.fixture(scope="module")
def bare_nodes(lab, registry):
    """Nodes with no image but the cluster's own, and a containerd that knows the registry's CA."""
    address, log = registry
    of_lab = Lab(lab.name, lab.network)
    certificate = of_lab.registries / "ca.crt"
    certificate.parent.mkdir(exist_ok=True)
    shutil.copyfile(log.with_name("ca.crt"), certificate)
    (of_lab.registries / address).mkdir(exist_ok=True)
    (of_lab.registries / address / "hosts.toml").write_text(f'[host."https://{address}"]\n  ca = "{certificate}"\n')
    for node in of_lab.nodes:
        found = images_on(of_lab, node)
        kept = {digest for name, digest in found.items() if any(word in name for word in OF_THE_CLUSTER)}
        containerd(of_lab, node, "rm", "--sync", *(name for name, digest in found.items() if digest not in kept))
        # The next `lab up` brings them again.
        shutil.rmtree(of_lab.node_folder(node) / "imported")
        assert set(images_on(of_lab, node).values()) == kept
    yield of_lab
    shutil.rmtree(of_lab.registries)
    lab.up()
    for node in of_lab.nodes:
        # A kubelet remembers the names that it pulled an image by, and takes the same bytes by no other.
        shutil.rmtree(of_lab.node_folder(node) / "lib-kubelet" / "image_manager")
        enter = ["nsenter", f"--target={processes.node_process(of_lab, node.name)}", "--mount", "--pid"]
        run(*enter, "pkill", "-x", "kubelet")
    # With the images' own names, for whoever comes next on this lab.
    lab.play("site.yml")


def containerd(lab: Lab, node, *words: str) -> str:
    enter = ["nsenter", f"--target={processes.node_process(lab, node.name)}", "--mount", "--net", "--pid"]
    return run(*enter, "ctr", "--namespace=k8s.io", "images", *words).stdout


def images_on(lab: Lab, node) -> dict[str, str]:
    """Names of the images in a node's containerd, with the digests of their manifests."""
    lines = containerd(lab, node, "ls").splitlines()[1:]
    return {words[0]: words[2] for words in map(str.split, lines)}


@pytest.fixture(scope="module")
def bundle(kept, lab, sources):
    """Made where there is a way out; a second time nothing is different."""
    folder = kept / "bundle"
    words = [
        *sources,
        PLAYBOOK,
        "playbooks/bundle.yml",
        "-e",
        f"bundle_folder={folder}",
        "-e",
        "bundle_copy_images=true",
    ]
    words += ["-e", f"bundle_registry={address_of(lab)}:5000/{FOLDER}"]
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


def play(there: Path, gap: list[str], lab, *words, check: bool = True, home: str = "bin", book: str = "site", **more):
    """Run a playbook of the installed collection in the namespace, with no Helm but its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON", "PIP_"))}
    command = [*gap, there / "venv/bin/ansible-playbook", "-i", there / "inventory", f"speechops.riva.{book}"]
    command += ["-e", json.dumps({"lab_name": lab.name, "helm_install_dir": str(there / home)}), *words]
    done = subprocess.run(
        [str(word) for word in command],
        cwd=there,
        env={**kept, "ANSIBLE_COLLECTIONS_PATH": str(there / "collections"), "ANSIBLE_HOME": str(there / ".ansible")}
        | more,
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
    blobs = [path for path in (bundle / "images" / "blobs" / "sha256").iterdir()]
    every = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file() and path not in blobs}
    assert listed == every - {"SHA256SUMS"}
    assert [path.name for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.name] == []


def digests(bundle) -> dict[str, str]:
    """Each image of the bundle with the digest that its bill of materials has."""
    bill = json.loads((bundle / "sbom.cdx.json").read_text())
    images = [item for item in bill["components"] if item["type"] == "container"]
    return {f"{item['name']}:{item['version']}": f"sha256:{item['hashes'][0]['content']}" for item in images}


def test_the_images_in_it_are_those_of_their_registries(bundle, sources):
    named = (bundle / "images.txt").read_text().split()
    assert sorted(digests(bundle)) == named
    for image, digest in digests(bundle).items():
        raw = subprocess.run(
            [*sources, "skopeo", "inspect", "--raw", f"docker://{image}"], capture_output=True, check=True
        )
        assert f"sha256:{hashlib.sha256(raw.stdout).hexdigest()}" == digest


def test_without_the_bundle_it_cannot_go_on(there, gap, lab):
    """Else the next test would show nothing."""
    done = play(there, gap, lab, "--tags", "always,helm", check=False, home="empty")
    assert done.returncode != 0
    assert "get.helm.sh" in done.stdout


def push(there, gap, lab, bundle, registry, *words, check: bool = True):
    known = {"SSL_CERT_FILE": str(registry[1].with_name("ca.crt"))}
    return play(there, gap, lab, *from_bundle(bundle), *words, check=check, book="push_images", **known)


def test_a_registry_that_cannot_be_trusted_gets_nothing(there, gap, lab, bundle, registry):
    done = play(there, gap, lab, *from_bundle(bundle), check=False, book="push_images")
    assert done.returncode != 0
    assert "certificate signed by unknown authority" in done.stdout
    assert not (registry[1].parent / "storage").exists()


@pytest.mark.parametrize("victim", ["a layer", "a manifest", "the index"])
def test_a_changed_image_does_not_get_into_the_registry(there, gap, lab, bundle, registry, tmp_path, victim):
    """Before the registry has that one: else its bytes would never be read. The others get there all the same."""
    shutil.rmtree(registry[1].parent / "storage", ignore_errors=True)
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-rl", bundle, copy], check=True)
    blobs = copy / "images" / "blobs" / "sha256"
    index = copy / "images" / "index.json"
    file = {
        "a layer": max(blobs.iterdir(), key=lambda one: one.stat().st_size),
        "a manifest": blobs / json.loads(index.read_text())["manifests"][-1]["digest"].partition(":")[2],
        "the index": index,
    }[victim]
    data = file.read_bytes()
    file.unlink()
    middle = len(data) // 2
    file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    done = push(there, gap, lab, copy, registry, check=False)
    assert done.returncode != 0
    assert ("images/index.json" if victim == "the index" else file.name) in done.stdout


def test_the_registry_gets_the_images_of_the_bundle(there, gap, lab, bundle, registry):
    address, log = registry
    storage = log.parent / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    output = push(there, gap, lab, bundle, registry, "--check", "--diff").stdout
    assert recap(output)["changed"] == 1
    assert all(digest in output for digest in digests(bundle).values())
    assert not storage.exists()
    output = push(there, gap, lab, bundle, registry).stdout
    assert recap(output)["changed"] == 1
    number = len(digests(bundle))
    assert f"{address}/{FOLDER}: {number} of {number} images were not there" in output
    assert recap(push(there, gap, lab, bundle, registry).stdout)["changed"] == 0


def test_site_from_the_bundle_and_the_registry(there, gap, lab, bundle, registry, bare_nodes):
    log = registry[1]
    before = len(log.read_text())
    output = play(there, gap, lab, *from_bundle(bundle)).stdout
    assert recap(output)["failed"] == 0
    assert (there / "bin" / "helm").exists()
    assert "riva-asr: clients connect to" in output
    assert changes(play(there, gap, lab, *from_bundle(bundle)).stdout) == []

    # Every pod runs the very bytes that the bundle's bill of materials names, from the registry.
    inside = f"{registry[0]}/{FOLDER}/"
    wanted = {
        f"{inside}{name.partition('/')[2].rpartition(':')[0]}@{digest}" for name, digest in digests(bundle).items()
    }
    pods = [pod for pod in lab.get("pods", "-A")["items"] if pod["metadata"]["namespace"] != "kube-system"]
    kinds = ("containerStatuses", "initContainerStatuses")
    running = [state for pod in pods for kind in kinds for state in pod["status"].get(kind, [])]
    assert len(pods) > 5
    assert {state["imageID"] for state in running} <= wanted
    assert {state["image"].startswith(inside) for state in running} == {True}
    # Nothing else is on the nodes, and it was the nodes' containerd that asked.
    nodes = {str(bare_nodes.address(node)): images_on(bare_nodes, node) for node in bare_nodes.nodes}
    named = {name for images in nodes.values() for name in images if not name.startswith("sha256:")}
    assert {name for name in named if not name.startswith(inside)} == {
        name for name in named if any(word in name for word in OF_THE_CLUSTER)
    }
    asked = re.findall(
        r'^(\S+) - .*"GET /v2/(\S+)/manifests/\S+ HTTP/[\d.]+" 200 .*containerd', log.read_text()[before:], re.M
    )
    assert {client for client, _path in asked} <= set(nodes)
    assert {path for _client, path in asked} >= {
        name.split("@")[0].partition("/")[2] for name in (state["imageID"] for state in running)
    }


def test_nodes_may_know_the_mirror_in_place_of_the_inventory(lab, bare_nodes, bundle, registry):
    """The other way: names stay, and containerd looks for each host's images in the registry."""
    name, digest = next((name, digest) for name, digest in digests(bundle).items() if "/haproxy:" in name)
    ca = bare_nodes.registries / "ca.crt"
    (bare_nodes.registries / "_default").mkdir()
    host = f'[host."https://{registry[0]}/v2/{FOLDER}"]\n  ca = "{ca}"\n  override_path = true\n'
    (bare_nodes.registries / "_default" / "hosts.toml").write_text(f'{host}  capabilities = ["pull", "resolve"]\n')
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-its-own-name", "namespace": "default"},
        "spec": {
            "containers": [{"name": "one", "image": name, "command": ["haproxy", "-v"]}],
            "restartPolicy": "Never",
        },
    }
    try:
        run(
            "sh",
            "-c",
            f"echo '{json.dumps(pod)}' | {bare_nodes.binaries}/kubectl --kubeconfig={lab.kubeconfig} apply -f -",
        )
        state = eventually(
            lambda: (lab.get("pod", "by-its-own-name")["status"].get("containerStatuses") or [{}])[0].get("imageID")
        )
        assert state == f"{name.rpartition(':')[0]}@{digest}"
    finally:
        lab.kubectl("delete", "pod", "by-its-own-name", "--now", "--ignore-not-found")


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


def test_the_variables_name_a_mirror(tmp_path):
    """Every image of every chart below the registry, by each chart's own keys."""
    words = ["-e", f"bundle_folder={tmp_path / 'b'}", "-e", "bundle_wheels=false"]
    words += ["-e", "gpu_stack=manual", "-e", "bundle_registry=mirror.example:5000/x"]
    assert "no value of the chart moves" not in run(PLAYBOOK, "playbooks/bundle.yml", *words).stdout
    assert "ubuntu2404 https://developer.download.nvidia.com/" in (tmp_path / "b" / "packages.txt").read_text()
    variables = yaml.safe_load((tmp_path / "b" / "variables.yml").read_text())
    assert variables["traefik_values"]["image"]["registry"] == "mirror.example:5000/x"
    assert variables["riva_image_repository"] == "mirror.example:5000/x/nvidia/riva/riva-speech"
    assert variables["riva_nim_registry"] == "mirror.example:5000/x/nim/nvidia"
    # The registry and nothing else: how many streams a pod takes is not said by a bundle.
    assert variables["riva_values"]["streams"] == {"image": {"repository": "mirror.example:5000/x/library/haproxy"}}
    assert "image" not in variables["riva_values"]


def test_nims_have_their_own_images(tmp_path):
    """And Riva's, the largest of all, is left out where no service needs it."""
    folder = tmp_path / "b"
    services = [{"name": "a"}, {"name": "b", "container_id": "magpie", "image_tag": "2.0"}]
    inventory = json.dumps({"riva_engine": "nim", "riva_nim_image_tag": "1.0", "riva_services": services})
    run(PLAYBOOK, "playbooks/bundle.yml", "-e", f"bundle_folder={folder}", "-e", "bundle_wheels=false", "-e", inventory)
    speech = [name for name in (folder / "images.txt").read_text().split() if "/nim/" in name or "riva" in name]
    assert speech == ["nvcr.io/nim/nvidia/magpie:2.0", "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us:1.0"]
