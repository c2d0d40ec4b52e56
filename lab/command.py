"""The lab's command line: ``python -m lab up | down | status | kubeconfig | fault | bundle | add``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from lab import bundle, cluster, extras, faults, real_gpus, unbundle
from lab.binaries import BinaryError
from lab.bundle_format import BundleError
from lab.network import NetworkError
from lab.preconditions import CannotRun
from lab.settings import Lab, SettingError


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lab", description="A real Kubernetes with fake GPUs, on one machine.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="lab", help="name of the lab; several can run side by side (default: lab)")
    commands = top.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", parents=[common], help="bring the lab up, or complete one left half-way")
    up.add_argument("--gpu-nodes", type=int, default=2, metavar="N", help="number of GPU nodes (default: 2)")
    up.add_argument("--network", default="10.87.0.0/22", help="addresses of the nodes (default: 10.87.0.0/22)")
    up.add_argument("--timeout", type=float, default=300, help="seconds for the cluster to be ready (default: 300)")
    up.add_argument(
        "--no-aggregation",
        dest="aggregation",
        action="store_false",
        help="start the apiserver without its requestheader flags, to see a broken aggregation layer",
    )
    up.add_argument(
        "--bundle",
        metavar="DIR",
        help="take programs, images and Python packages from a folder that `bundle` made: no network is needed",
    )
    up.add_argument(
        "--gpus",
        default="stand-in",
        choices=["stand-in", "real"],
        help="real: the machine's own GPUs, shared out among the GPU nodes (default: stand-in)",
    )
    up.add_argument("--torch", default="", metavar="PYTHON", help="with --gpus real: a Python that has PyTorch")
    make = commands.add_parser("bundle", parents=[common], help="put all that a lab needs into a folder of parts")
    make.add_argument("folder", metavar="DIR")
    make.add_argument(
        "--python",
        action="append",
        metavar="VERSION",
        help="a Python that the bundle is used with, such as 3.12; several times for several (default: 3.11, 3.12)",
    )
    make.add_argument(
        "--gpus",
        default="stand-in",
        choices=["stand-in", "real"],
        help="real: take NVIDIA's device plugin along, for a machine with GPUs (default: stand-in)",
    )
    commands.add_parser("prepare", parents=[common], help="make programs, images and charts; start nothing")
    commands.add_parser("down", parents=[common], help="end the lab and leave nothing behind but the cache")
    status = commands.add_parser("status", parents=[common], help="show the state of every part")
    status.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("kubeconfig", parents=[common], help="print the path of the admin kubeconfig")

    add = commands.add_parser("add", parents=[common], help="load the images of what not every lab needs")
    add.add_argument("what", choices=sorted(extras.ARCHIVES), help="; ".join(extras.ARCHIVES_HELP))

    fault = commands.add_parser("fault", help="break something on purpose; `fault heal` mends all of it")
    kinds = fault.add_subparsers(dest="fault", required=True)
    for kind, text in {
        "node-stop": "cut a node's power",
        "node-start": "switch a node on again",
        "node-cut": "unplug a node's network cable",
        "node-plug": "plug it in again",
    }.items():
        kinds.add_parser(kind, parents=[common], help=text).add_argument("node")
    for kind, text in {"pod-cut": "cut the network of a pod", "pod-plug": "mend it"}.items():
        one = kinds.add_parser(kind, parents=[common], help=text)
        one.add_argument("namespace")
        one.add_argument("pod")
    for kind, text in {
        "apiserver-stop": "end the apiserver and keep it down",
        "apiserver-start": "start it again",
        "apiserver-hang": "let it accept connections and answer nothing",
        "apiserver-slow": "leave it a twenty-fifth of a processor",
        "heal": "take back every fault",
    }.items():
        kinds.add_parser(kind, parents=[common], help=text)
    return top


def run_fault(lab: Lab, arguments: argparse.Namespace) -> None:
    actions = {
        "node-stop": lambda: faults.stop_node(lab, arguments.node),
        "node-start": lambda: faults.start_node(lab, arguments.node),
        "node-cut": lambda: faults.cut_node(lab, arguments.node),
        "node-plug": lambda: faults.cut_node(lab, arguments.node, cut=False),
        "pod-cut": lambda: faults.cut_pod(lab, arguments.namespace, arguments.pod),
        "pod-plug": lambda: faults.cut_pod(lab, arguments.namespace, arguments.pod, cut=False),
        "apiserver-stop": lambda: faults.stop_apiserver(lab),
        "apiserver-start": lambda: faults.start_apiserver(lab),
        "apiserver-hang": lambda: faults.hang_apiserver(lab),
        "apiserver-slow": lambda: faults.slow_apiserver(lab),
        "heal": lambda: faults.heal(lab),
    }
    actions[arguments.fault]()


def print_status(state: dict) -> None:
    if not state["exists"]:
        print(f"lab {state['name']} does not exist: python -m lab up")
        return
    print(f"lab {state['name']}: Kubernetes {state['kubernetes']}, {'ready' if state['ready'] else 'NOT ready'}")
    print(f"  kubeconfig  {state['kubeconfig']}")
    print(f"  apiserver   {'answers' if state['api'] else 'does not answer'}")
    print(f"  memory      {state['memory_mib']} MiB")
    for node in state["nodes"]:
        gpu = f"{node['gpu']['count']} x {node['gpu']['product']} (stand-in)" if node["gpu"] else "no GPU"
        gpu = "the machine's own GPUs" if node["real_gpus"] else gpu
        word = "Ready" if node["ready"] else ("not Ready" if node["running"] else "off")
        print(f"  {node['name']:<22} {node['address']:<12} {word:<10} {gpu}")
        for name, part in node["components"].items():
            if part["starts"] > 1 or (not part["pid"] and part.get("last_exit") != 0):
                print(f"    {name}: started {part['starts']} times, last exit {part.get('last_exit')}")


def main() -> int:
    arguments = parser().parse_args()
    unbundle.use_tools()
    try:
        if arguments.command == "up":
            wanted = Lab(
                arguments.name,
                arguments.network,
                arguments.gpu_nodes,
                arguments.aggregation,
                arguments.gpus,
                arguments.torch,
            )
            cluster.up(wanted, arguments.timeout)
            return 0
        lab = Lab(arguments.name)
        if arguments.command == "bundle":
            pythons = arguments.python or ["3.11", "3.12"]
            bundle.make(Path(arguments.folder).resolve(), lab, pythons, arguments.gpus == "real")
        elif arguments.command == "prepare":
            cluster.prepare(lab)
        elif arguments.command == "down":
            cluster.down(lab)
        elif arguments.command == "kubeconfig":
            print(lab.kubeconfig)
        elif arguments.command == "status":
            state = cluster.status(lab)
            print(json.dumps(state, indent=1)) if arguments.json else print_status(state)
            return 0 if state["ready"] else 1
        else:
            existing = cluster.saved(lab)
            if not existing:
                raise cluster.LabError(f"lab {lab.name} does not exist: python -m lab up --name {lab.name}")
            if arguments.command == "add":
                cluster.load_images(existing, [extras.ARCHIVES[arguments.what](existing)])
            else:
                run_fault(existing, arguments)
    except (
        *(SettingError, CannotRun, BinaryError, NetworkError, TimeoutError),
        *(BundleError, real_gpus.GpuError, cluster.LabError, faults.FaultError, subprocess.CalledProcessError),
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command again completes the work", file=sys.stderr)
        return 130
    return 0
