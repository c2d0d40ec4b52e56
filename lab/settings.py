"""What a lab is made of: its name, its addresses, its nodes and where everything lies."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("SPEECHOPS_LAB_CACHE", Path.home() / ".cache" / "speechops-lab"))
STATE = Path(os.environ.get("SPEECHOPS_LAB_STATE", "/var/lib/speechops-lab"))

# Each process of a lab carries this variable, so that `down` finds them all, whatever else was lost.
MARKER = "SPEECHOPS_LAB"

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/16")
POD_NETWORK = ipaddress.IPv4Network("10.244.0.0/16")
API_SERVICE_ADDRESS = SERVICE_NETWORK[1]
DNS_SERVICE_ADDRESS = SERVICE_NETWORK[10]

# What a GPU node of the lab says it has. Memory is what NVML reports (MiB), below the nominal size.
GPU_MODELS = (
    {
        "product": "Tesla-T4",
        "count": 2,
        "memory_mib": 15360,
        "compute_major": 7,
        "compute_minor": 5,
        "family": "turing",
        "mig_capable": False,
    },
    {
        "product": "NVIDIA-A100-PCIE-40GB",
        "count": 2,
        "memory_mib": 39538,
        "compute_major": 8,
        "compute_minor": 0,
        "family": "ampere",
        "mig_capable": True,
    },
)
GPU_SOFTWARE = {"driver_version": "580.159.04", "cuda_version": "13.0", "machine": "speechops-lab"}


class SettingError(ValueError):
    """A setting of the lab that cannot work; the message names it and says what would be right."""


@dataclass(frozen=True)
class Node:
    """One node: a name, a place in the lab's network, and its (fake) GPUs, if any."""

    name: str
    index: int
    gpu: dict | None = None

    @property
    def is_control_plane(self) -> bool:
        return self.index == 0


@dataclass(frozen=True)
class Lab:
    """One lab. ``network`` is a /22 or larger: the nodes' addresses, then those of LoadBalancer Services."""

    name: str = "lab"
    network: str = "10.87.0.0/22"
    gpu_nodes: int = 2
    aggregation: bool = True
    # The machine's own GPUs instead of described ones, and the Python whose PyTorch their pods use.
    gpus: str = "stand-in"
    torch: str = ""
    state_folder: Path = field(default=STATE)
    cache_folder: Path = field(default=CACHE)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.name):
            raise SettingError(
                f"--name {self.name!r}: use 1 to 8 lower-case letters and digits, starting with a letter "
                "(network links are named after it)"
            )
        try:
            network = ipaddress.ip_network(self.network)
        except ValueError as error:
            raise SettingError(f"--network {self.network!r}: {error}; use for example 10.87.0.0/22") from error
        if network.version != 4 or network.prefixlen > 22:
            raise SettingError(f"--network {self.network}: an IPv4 network of /22 or larger is needed")
        for taken in (SERVICE_NETWORK, POD_NETWORK):
            if network.overlaps(taken):
                raise SettingError(f"--network {self.network} overlaps {taken}, which the cluster uses inside")
        if self.gpus not in ("stand-in", "real"):
            raise SettingError(f"--gpus {self.gpus!r}: use stand-in or real")
        if self.gpus == "real" and not self.torch:
            raise SettingError("--gpus real: --torch names the Python whose PyTorch the speech pods use")
        if not 1 <= self.gpu_nodes <= 50:
            raise SettingError(f"--gpu-nodes {self.gpu_nodes}: use 1 to 50")

    @property
    def root(self) -> Path:
        return self.state_folder / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.root / "admin.kubeconfig"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def registries(self) -> Path:
        """What the nodes' containerd knows of registries, as hosts.toml; nobody makes it but who has a registry."""
        return self.root / "registries"

    @property
    def binaries(self) -> Path:
        return self.cache_folder / "bin"

    @property
    def addresses(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.network)

    @property
    def host_address(self) -> ipaddress.IPv4Address:
        """The address of the machine itself on the lab's network."""
        return self.addresses[1]

    @property
    def load_balancer_addresses(self) -> ipaddress.IPv4Network:
        """The upper quarter of the network: reachable from the machine through the first node."""
        return list(self.addresses.subnets(prefixlen_diff=2))[3]

    @property
    def nodes(self) -> tuple[Node, ...]:
        gpu = (
            Node(
                f"{self.name}-gpu-{number}",
                number,
                None if self.gpus == "real" else {**GPU_MODELS[(number - 1) % len(GPU_MODELS)], **GPU_SOFTWARE},
            )
            for number in range(1, self.gpu_nodes + 1)
        )
        return (Node(f"{self.name}-control-plane", 0), *gpu)

    @property
    def control_plane(self) -> Node:
        return self.nodes[0]

    def address(self, node: Node) -> ipaddress.IPv4Address:
        return self.addresses[10 + node.index]

    def pod_network(self, node: Node) -> ipaddress.IPv4Network:
        return list(POD_NETWORK.subnets(new_prefix=24))[node.index]

    def node_folder(self, node: Node) -> Path:
        return self.root / "nodes" / node.name

    @property
    def api_url(self) -> str:
        return f"https://{self.address(self.control_plane)}:6443"

    @property
    def cgroup(self) -> str:
        """The cgroup, below each hierarchy's root, that holds all that the lab runs."""
        return f"speechops-lab-{self.name}"

    @property
    def host_link(self) -> str:
        return f"sol-{self.name}"
