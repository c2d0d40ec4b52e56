"""The programs of each node: their command lines, their configuration files, and what each waits for.

Paths are those inside a node: its own /run, /var/lib/kubelet and /var/lib/containerd (see ``lab.node``).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field

import yaml

from lab import real_gpus
from lab.settings import DNS_SERVICE_ADDRESS, POD_NETWORK, REPOSITORY, SERVICE_NETWORK, Lab, Node

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10.1"

# Where Debian and Ubuntu put the CNI plugins.
CNI_FOLDER = "/usr/lib/cni"


@dataclass(frozen=True)
class Component:
    """One supervised program of a node.

    ``after`` is a local TCP port, an ``address:port`` or a socket path that must answer before the program is started.
    """

    name: str
    command: list[str]
    after: int | str | None = None


@dataclass(frozen=True)
class NodeSpec:
    """All that a node's first process needs to know; written as JSON, read by ``lab.node``."""

    name: str
    folder: str
    cgroup: str
    address: str
    prefix_length: int
    routes: dict[str, str]
    components: list[Component]
    kept: list[str]
    gpu: dict | None = None
    real_gpu: dict | None = None
    files: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def etcd(lab: Lab) -> Component:
    return Component(
        "etcd",
        [
            f"{lab.binaries}/etcd",
            "--name=lab",
            "--data-dir=/var/lib/etcd",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
        ],
    )


def apiserver(lab: Lab) -> Component:
    """kube-apiserver; without ``lab.aggregation`` its requestheader flags are left out, as on a broken cluster."""
    certificates = lab.certificates
    command = [
        f"{lab.binaries}/kube-apiserver",
        f"--advertise-address={lab.address(lab.control_plane)}",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        f"--client-ca-file={certificates}/cluster-ca.crt",
        f"--tls-cert-file={certificates}/kube-apiserver.crt",
        f"--tls-private-key-file={certificates}/kube-apiserver.key",
        f"--kubelet-certificate-authority={certificates}/cluster-ca.crt",
        f"--kubelet-client-certificate={certificates}/kube-apiserver-kubelet-client.crt",
        f"--kubelet-client-key={certificates}/kube-apiserver-kubelet-client.key",
        # Node names are not in DNS here: without this, logs and exec hang.
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={certificates}/service-account.key",
        f"--service-account-signing-key-file={certificates}/service-account.key",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    ]
    if lab.aggregation:
        command += [
            f"--requestheader-client-ca-file={certificates}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={certificates}/front-proxy-client.crt",
            f"--proxy-client-key-file={certificates}/front-proxy-client.key",
            # The control plane's own network has no kube-proxy rules before its kubelet runs.
            "--enable-aggregator-routing=true",
        ]
    return Component("kube-apiserver", command, after=2379)


def controller_manager(lab: Lab) -> Component:
    certificates = lab.certificates
    return Component(
        "kube-controller-manager",
        [
            f"{lab.binaries}/kube-controller-manager",
            f"--kubeconfig={certificates}/controller-manager.kubeconfig",
            f"--authentication-kubeconfig={certificates}/controller-manager.kubeconfig",
            f"--authorization-kubeconfig={certificates}/controller-manager.kubeconfig",
            f"--service-account-private-key-file={certificates}/service-account.key",
            f"--root-ca-file={certificates}/cluster-ca.crt",
            f"--cluster-signing-cert-file={certificates}/cluster-ca.crt",
            f"--cluster-signing-key-file={certificates}/cluster-ca.key",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",
            f"--cluster-cidr={POD_NETWORK}",
            "--leader-elect=false",
            "--profiling=false",
        ],
        after=6443,
    )


def scheduler(lab: Lab) -> Component:
    kubeconfig = f"{lab.certificates}/scheduler.kubeconfig"
    return Component(
        "kube-scheduler",
        [
            f"{lab.binaries}/kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--profiling=false",
        ],
        after=6443,
    )


def load_balancer(lab: Lab, python: str) -> Component:
    return Component(
        "load-balancer",
        [
            *(python, "-m", "lab.load_balancer"),
            f"--kubeconfig={lab.kubeconfig}",
            f"--addresses={lab.load_balancer_addresses}",
        ],
        after=6443,
    )


def containerd() -> Component:
    return Component("containerd", ["containerd", "--config=/run/lab/containerd.toml"])


def kubelet(lab: Lab, node: Node) -> Component:
    labels = "node-role.kubernetes.io/control-plane=" if node.is_control_plane else ""
    return Component(
        "kubelet",
        [
            f"{lab.binaries}/kubelet",
            "--config=/run/lab/kubelet.yaml",
            f"--kubeconfig={lab.certificates}/kubelet-{node.name}.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={lab.address(node)}",
            # The kubelet may not give itself a node-role label; the lab sets it after the start.
            f"--node-labels=speechops.io/lab={lab.name}" + ("" if labels else ",speechops.io/lab-gpu=true"),
        ],
        after=CONTAINERD_SOCKET,
    )


def kube_proxy(lab: Lab, node: Node) -> Component:
    return Component(
        "kube-proxy",
        [
            f"{lab.binaries}/kube-proxy",
            f"--kubeconfig={lab.certificates}/kube-proxy.kubeconfig",
            f"--hostname-override={node.name}",
            f"--cluster-cidr={POD_NETWORK}",
            "--proxy-mode=iptables",
            # These would be changes to the machine, or need rights that a container lacks.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ],
        # It looks for its Node object with pauses that double up to 32 s: not before there can be one.
        after=f"{lab.address(lab.control_plane)}:6443",
    )


def cni_folder(lab: Lab) -> str:
    """The plugins of the bundle that was laid out, else the distribution's."""
    unpacked = lab.cache_folder / "tools" / "cni"
    return str(unpacked) if unpacked.is_dir() else CNI_FOLDER


def containerd_config(lab: Lab) -> str:
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  sandbox_image = "{PAUSE_IMAGE}"
  # Read at each pull: a folder for each registry, named host:port.
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{lab.registries}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_folder(lab)}"
    conf_dir = "/run/lab/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  # In place of NVIDIA's runtime, so that its RuntimeClass leads somewhere.
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
    runtime_type = "io.containerd.runc.v2"
"""


def kubelet_config(lab: Lab, node: Node) -> str:
    certificates = lab.certificates
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{certificates}/cluster-ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{certificates}/kubelet-server-{node.name}.crt",
            "tlsPrivateKeyFile": f"{certificates}/kubelet-server-{node.name}.key",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{lab.cgroup}/{node.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "clusterDomain": "cluster.local",
            "clusterDNS": [str(DNS_SERVICE_ADDRESS)],
            "resolvConf": "/run/lab/resolv.conf",
            "podCIDR": str(lab.pod_network(node)),
            "maxPods": 200,
            # The images are preloaded and cannot be pulled again; the machine's disk is shared with others.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "200Mi", "imagefs.available": "200Mi"},
            "nodeStatusUpdateFrequency": "4s",
            "shutdownGracePeriod": "0s",
            "serializeImagePulls": False,
        }
    )


def cni_config(lab: Lab, node: Node) -> str:
    # `ptp`, as in kind: all traffic of a pod passes the node's IP stack, so that replies of a Service on
    # the same node are translated back without br_netfilter.
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": "lab",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni-ipam",
                        "ranges": [[{"subnet": str(lab.pod_network(node))}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
    )


def node_spec(lab: Lab, node: Node, python: str) -> NodeSpec:
    """Everything that runs on one node of the lab."""
    components = []
    if node.is_control_plane:
        components += [
            etcd(lab),
            apiserver(lab),
            controller_manager(lab),
            scheduler(lab),
            load_balancer(lab, python),
        ]
    components += [containerd(), kubelet(lab, node), kube_proxy(lab, node)]
    real = None
    if lab.gpus == "real" and not node.is_control_plane:
        share = real_gpus.shared_out(real_gpus.found(), lab.gpu_nodes)[node.index - 1]
        real = real_gpus.laid_in_node(share, lab.torch)
    kept = {str(path) for path in (lab.root, lab.cache_folder, REPOSITORY, sys.prefix)}
    # The machine's own /usr is in the layer below: mounted, pods could write to it.
    kept.update(real_gpus.other_mounts(sys.base_prefix), real["mounts"] if real else ())
    return NodeSpec(
        name=node.name,
        folder=str(lab.node_folder(node)),
        cgroup=f"{lab.cgroup}/{node.name}",
        address=str(lab.address(node)),
        prefix_length=lab.addresses.prefixlen,
        routes={
            **{str(lab.pod_network(other)): str(lab.address(other)) for other in lab.nodes if other is not node},
            # Programs of the node itself need some route to Services before kube-proxy's rules see the packet.
            str(SERVICE_NETWORK): str(lab.host_address),
        },
        components=components,
        kept=sorted(kept),
        gpu=node.gpu,
        real_gpu=real,
        files={
            "containerd.toml": containerd_config(lab),
            "kubelet.yaml": kubelet_config(lab, node),
            "cni/10-lab.conflist": cni_config(lab, node),
            "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1\n",
        },
    )


def same_but_for_commands(before: str, after: str) -> bool:
    """Whether two node specs, as JSON, name the same programs and differ in nothing but their command lines."""

    def rest(text: str) -> dict:
        spec = json.loads(text)
        return {**spec, "components": [component["name"] for component in spec["components"]]}

    return rest(before) == rest(after)
