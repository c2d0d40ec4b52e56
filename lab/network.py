"""The links between the machine and the nodes of a lab.

A network namespace of its own holds the switch (a bridge), so that neither the machine's firewall nor its bridges
matter to the nodes. The machine has one link into it, with a route to the addresses of LoadBalancer Services.
"""

from __future__ import annotations

import ipaddress
import subprocess

from lab.settings import Lab

BRIDGE = "switch"


class NetworkError(RuntimeError):
    """A link or a route could not be made."""


def ip(*arguments: str, inside: int | None = None, check: bool = True) -> str:
    """Run iproute2's ``ip``, inside the network namespace of a process if one is given."""
    enter = ["nsenter", f"--net=/proc/{inside}/ns/net"] if inside else []
    done = subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def has_link(name: str, inside: int | None = None) -> bool:
    return bool(ip("-brief", "link", "show", "dev", name, inside=inside, check=False))


def connect_machine(lab: Lab, switch: int) -> None:
    """Make the switch and the machine's own link into it, with its address and route."""
    if not has_link(BRIDGE, switch):
        ip("link", "add", BRIDGE, "type", "bridge", inside=switch)
    ip("link", "set", BRIDGE, "up", inside=switch)
    if not has_link(lab.host_link):
        ip("link", "add", lab.host_link, "type", "veth", "peer", "name", "machine", "netns", str(switch))
    ip("link", "set", "machine", "master", BRIDGE, "up", inside=switch)
    ip("address", "replace", f"{lab.host_address}/{lab.addresses.prefixlen}", "dev", lab.host_link)
    ip("link", "set", lab.host_link, "up")
    # More specific than the link's own route: these addresses live behind the first node.
    ip("route", "replace", str(lab.load_balancer_addresses), "via", str(lab.address(lab.control_plane)))


def connect_node(switch: int, node: int, port: str, is_new: bool) -> None:
    """Put ``eth0`` into a node's namespace, its other end into the switch.

    Args:
        switch: process id of the switch.
        node: process id of the node's first process.
        port: name of the node's link in the switch.
        is_new: the node was just switched on. The cable of its former life may still hang in the switch: the kernel
            removes it a moment after the namespace.
    """
    if is_new and has_link(port, switch):
        ip("link", "delete", port, inside=switch, check=False)
    if not has_link(port, switch):
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(node), inside=switch)
    ip("link", "set", port, "master", BRIDGE, "up", inside=switch)


def set_port(switch: int, port: str, up: bool) -> None:
    """Plug or unplug a node's cable."""
    ip("link", "set", port, "up" if up else "down", inside=switch)


def network_in_use(lab: Lab) -> str | None:
    """What on this machine already uses the lab's network, apart from the lab's own link."""
    for line in ip("-oneline", "-4", "address", "show").splitlines():
        words = line.split()
        link, address = words[1], words[3]
        if link != lab.host_link and ipaddress.ip_interface(address).network.overlaps(lab.addresses):
            return f"{link} has {address}"
    return None


def disconnect_machine(lab: Lab) -> None:
    """Remove the machine's link; its address and routes go with it."""
    if has_link(lab.host_link):
        ip("link", "delete", lab.host_link)
