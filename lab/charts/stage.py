"""Make the lab's charts ready to install: copy them, and add the custom resource definitions of the real programs.

The definitions are long texts of other projects. They come from those projects' Go modules, which must lie in the
module cache (``go mod download MODULE`` for each of ``GO_MODULES``).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

CHARTS = ("gpu-operator", "keda", "kube-prometheus-stack", "nvidia-device-plugin", "prometheus-adapter", "traefik")

PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.93.1"
TRAEFIK = "github.com/traefik/traefik/v3@v3.7.13"
KEDA = "github.com/kedacore/keda/v2@v2.20.2"
GO_MODULES = (PROMETHEUS_OPERATOR, TRAEFIK, KEDA)

# (module, files in it, folder of ours)
DEFINITIONS = (
    (
        PROMETHEUS_OPERATOR,
        "example/prometheus-operator-crd/monitoring.coreos.com_*.yaml",
        "kube-prometheus-stack/charts/crds/crds",
    ),
    # Upstream's chart has them among its templates.
    (KEDA, "config/crd/bases/*keda.sh_*.yaml", "keda/definitions"),
    (TRAEFIK, "docs/content/reference/dynamic-configuration/traefik.io_*.yaml", "traefik/crds"),
)


class ModuleMissingError(Exception):
    """A Go module that carries custom resource definitions is not in the cache."""


def stage(destination: Path, go_module_cache: Path) -> Path:
    """Write the charts to ``destination``, which is replaced as a whole, and return it."""
    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as work:
        made = Path(work) / "charts"
        for chart in CHARTS:
            shutil.copytree(Path(__file__).parent / chart, made / chart)
        for module, pattern, folder in DEFINITIONS:
            _add_definitions(Path(go_module_cache), module, pattern, made / folder)
        if destination.exists():
            destination.rename(Path(work) / "before")
        made.rename(destination)
    return destination


def _add_definitions(cache: Path, module: str, pattern: str, folder: Path) -> None:
    found = sorted((cache / module).glob(pattern))
    if not found:
        raise ModuleMissingError(
            f"no {pattern} of the Go module {module} in {cache}: run `go mod download {module}`, "
            "or name the cache that `go env GOMODCACHE` prints"
        )
    folder.mkdir(parents=True)
    for source in found:
        # copyfile, not copy: the cache is read-only and the copy must be removable.
        shutil.copyfile(source, folder / source.name)
