"""What a few tests and scenarios want on a lab that runs, and not every lab needs: ``python -m lab add metallb``.

Built from the projects' own Go modules, once: MetalLB with its unmodified chart, KEDA, cert-manager's controllers,
rclone, External Secrets, a registry.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.binaries import Module, build_here, install_program, module_sources, provide
from lab.images import NOBODY, Image, program_layer, write_archive
from lab.settings import Lab

METALLB_VERSION = "0.16.1"
METALLB = f"go.universe.tf/metallb@v{METALLB_VERSION}"
METALLB_PROGRAMS = ("controller", "speaker")

# A router that speaks BGP with MetalLB.
GOBGP_VERSION = "4.8.0"
GOBGP = f"github.com/osrg/gobgp/v4@v{GOBGP_VERSION}"
GOBGP_PROGRAMS = ("gobgpd", "gobgp")

# The registry of the CNCF's Distribution, which Docker Hub and others are made of.
REGISTRY_VERSION = "3.1.2"
REGISTRY = f"github.com/distribution/distribution/v3/cmd/registry@v{REGISTRY_VERSION}"

# The last one whose Go module is whole: in later ones each provider is a module beside it, which nobody publishes.
EXTERNAL_SECRETS = "github.com/external-secrets/external-secrets@v0.20.4"
# It registers the SDKs of some forty clouds there; here the provider alone that reads another namespace.
EXTERNAL_SECRETS_REGISTERS = {
    "pkg/provider/register/register.go": (
        'package register\n\nimport _ "github.com/external-secrets/external-secrets/pkg/provider/kubernetes"\n'
    ),
    "pkg/generator/register/register.go": "package register\n",
}

CERT_MANAGER_VERSION = "1.20.2"
CERT_MANAGER_SOURCES = f"github.com/cert-manager/cert-manager@v{CERT_MANAGER_VERSION}"
CERT_MANAGER = Module(name="cert-manager", version=CERT_MANAGER_VERSION, programs=("cert-manager",))

# Its metrics sources are the SDKs of every cloud: 2,600 packages, as many as Kubernetes itself has.
KEDA_VERSION = "2.20.2"
KEDA = Module(
    name="keda",
    version=KEDA_VERSION,
    programs=("keda", "keda-adapter"),
    ldflags=f"-X github.com/kedacore/keda/v2/version.Version={KEDA_VERSION}",
    built_names={"keda": "operator", "keda-adapter": "adapter"},
)

# rclone, with S3 alone of what it knows; copies models from a bucket, and serves one to test that with.
RCLONE_VERSION = "1.76.0"
RCLONE = Module(name="rclone", version=RCLONE_VERSION, programs=("rclone",))

# The kinds of the Gateway API, in the version that Traefik is built with.
GATEWAY_API_SOURCES = "sigs.k8s.io/gateway-api@v1.6.1"


def metallb(lab: Lab) -> Path:
    """MetalLB's programs as an archive of images; beside it, in ``metallb/chart``, lies the unmodified chart.

    Raises:
        BinaryError: its Go module could not be had or built.
    """
    folder = lab.cache_folder / "metallb"
    folder.mkdir(parents=True, exist_ok=True)
    for name in METALLB_PROGRAMS:
        install_program(folder, lab.cache_folder / "tools", METALLB.replace("@", f"/{name}@"))
    chart = folder / "chart"
    shutil.rmtree(chart, ignore_errors=True)
    # copyfile, not copy: Go's cache is read-only and the copy must be removable.
    shutil.copytree(
        module_sources(lab.binaries, (METALLB,)) / METALLB / "charts" / "metallb", chart, copy_function=shutil.copyfile
    )
    archive = lab.cache_folder / "images" / f"metallb-v{METALLB_VERSION}.archive"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        images = []
        for name in METALLB_PROGRAMS:
            layer = program_layer(folder / f"{name}.layer", {name: folder / name})
            # The speaker sends ARP and NDP: as root, with the capabilities that its chart leaves it.
            user = NOBODY if name == "controller" else ""
            tags = (f"quay.io/metallb/{name}:v{METALLB_VERSION}",)
            images.append(Image(tags, (layer,), entrypoint=(f"/{name}",), user=user))
        write_archive(archive, images)
    return archive


def gobgp(lab: Lab) -> Path:
    """The folder of GoBGP's daemon and of its command line. Raises BinaryError."""
    folder = lab.cache_folder / f"gobgp-{GOBGP_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in GOBGP_PROGRAMS:
        install_program(folder, lab.cache_folder / "tools", GOBGP.replace("@", f"/cmd/{name}@"))
    return folder


def registry(lab: Lab) -> Path:
    """The program of a container registry. Raises BinaryError."""
    folder = lab.cache_folder / f"registry-{REGISTRY_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    return install_program(folder, lab.cache_folder / "tools", REGISTRY)


def external_secrets(lab: Lab) -> tuple[Path, Path]:
    """The External Secrets Operator's program, and the file of its custom resource definitions.

    Raises:
        BinaryError: its Go module could not be had or built.
    """
    folder = lab.cache_folder / f"external-secrets-{EXTERNAL_SECRETS.rpartition('@')[2]}"
    program, kinds = folder / "external-secrets", folder / "kinds.yaml"
    if not (program.exists() and kinds.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        sources = module_sources(lab.binaries, (EXTERNAL_SECRETS,)) / EXTERNAL_SECRETS
        shutil.copyfile(sources / "deploy" / "crds" / "bundle.yaml", kinds)
        with TemporaryDirectory(dir=folder) as work:
            # copyfile, not copy: Go's cache is read-only.
            copy = shutil.copytree(sources, Path(work) / "source", copy_function=shutil.copyfile)
            for name, text in EXTERNAL_SECRETS_REGISTERS.items():
                (copy / name).write_text(text)
            build_here(copy, program, lab.cache_folder / "tools")
    return program, kinds


def _archive(lab: Lab, module: Module, images: Callable[[Path], list[Image]]) -> Path:
    """The archive of the images that are made of a module's programs, which lie in its folder of the cache.

    Raises:
        BinaryError: its Go module could not be had or built.
    """
    folder = lab.cache_folder / module.name
    archive = lab.cache_folder / "images" / f"{module.name}-v{module.version}.archive"
    if provide(module, folder) != "cache" or not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        write_archive(archive, images(folder))
    return archive


def keda(lab: Lab) -> Path:
    """KEDA's operator and metrics server as an archive; its chart is ``lab/charts/keda``. Raises BinaryError."""

    def images(folder: Path) -> list[Image]:
        found = []
        for image, program in (("keda", "keda"), ("keda-metrics-apiserver", "keda-adapter")):
            layer = program_layer(folder / f"{program}.layer", {program: folder / program})
            found.append(Image((f"ghcr.io/kedacore/{image}:{KEDA_VERSION}",), (layer,), user=NOBODY))
        return found

    return _archive(lab, KEDA, images)


def rclone(lab: Lab) -> Path:
    """rclone as an archive of its image; the program lies in ``rclone/rclone`` of the cache. Raises BinaryError."""

    def images(folder: Path) -> list[Image]:
        layer = program_layer(folder / "rclone.layer", {"usr/local/bin/rclone": folder / "rclone"})
        return [Image((f"docker.io/rclone/rclone:{RCLONE_VERSION}",), (layer,), entrypoint=("rclone",))]

    return _archive(lab, RCLONE, images)


def cert_manager(lab: Lab) -> tuple[Path, Path]:
    """cert-manager's controllers as one program, and the folder of its custom resource definitions.

    Raises:
        BinaryError: its Go module could not be had or built.
    """
    folder = lab.cache_folder / "cert-manager"
    provide(CERT_MANAGER, folder)
    return folder / "cert-manager", module_sources(lab.binaries, (CERT_MANAGER_SOURCES,)) / CERT_MANAGER_SOURCES / (
        "deploy/crds"
    )


def gateway_api(lab: Lab) -> Path:
    """The folder of the Gateway API's custom resource definitions. Raises BinaryError."""
    return module_sources(lab.binaries, (GATEWAY_API_SOURCES,)) / GATEWAY_API_SOURCES / "config/crd/standard"


# What `lab add` can load, and what it says of it.
ARCHIVES: dict[str, Callable[[Lab], Path]] = {"keda": keda, "metallb": metallb, "rclone": rclone}
ARCHIVES_HELP = (
    "keda: operator and metrics server, for riva_autoscaler keda",
    "metallb: the unmodified chart lies in metallb/chart of the cache",
    "rclone: for riva_model_bucket",
)
