"""Gives each Service of type LoadBalancer an address, as MetalLB or kube-vip would on bare metal.

The machine routes these addresses to the first node, where kube-proxy sends them on to the pods.
"""

from __future__ import annotations

import argparse
import ipaddress
import time
from collections.abc import Iterable

from kubernetes import client, config, watch

# A connection that died in silence is noticed after so long.
ANSWER_SECONDS = 10
WATCH_SECONDS = 60


def pick_address(pool: ipaddress.IPv4Network, taken: Iterable[str], wanted: str | None = None) -> str:
    """The wanted address if it is in the pool and free, else the first free one.

    Raises:
        LookupError: the pool has no free address, or the wanted one is not to be had.
    """
    taken = set(taken)
    free = [str(address) for address in pool.hosts() if str(address) not in taken]
    if wanted:
        if wanted in free:
            return wanted
        raise LookupError(f"address {wanted} is taken or not in {pool}")
    if not free:
        raise LookupError(f"no free address is left in {pool}")
    return free[0]


def addresses_of(service) -> list[str]:
    return [entry.ip for entry in (service.status.load_balancer.ingress or []) if entry.ip]


class Balancer:
    """Addresses of the pool, and who has them."""

    def __init__(self, api: client.CoreV1Api, pool: ipaddress.IPv4Network) -> None:
        self.api = api
        self.pool = pool
        self.given: dict[str, str] = {}

    def look(self, service) -> None:
        """Gives the Service an address if it is of the type and has none."""
        if found := addresses_of(service):
            self.given[service.metadata.uid] = found[0]
            return
        # A class names another controller.
        if service.spec.type != "LoadBalancer" or service.spec.load_balancer_class:
            return
        where = f"{service.metadata.namespace}/{service.metadata.name}"
        try:
            address = pick_address(self.pool, self.given.values(), service.spec.load_balancer_ip)
        except LookupError as error:
            print(f"{where}: {error}", flush=True)
            return
        self.api.patch_namespaced_service_status(
            service.metadata.name,
            service.metadata.namespace,
            {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}},
            _request_timeout=ANSWER_SECONDS,
        )
        self.given[service.metadata.uid] = address
        print(f"{where} has address {address}", flush=True)

    def forget(self, service) -> None:
        self.given.pop(service.metadata.uid, None)


def serve(pool: ipaddress.IPv4Network) -> None:
    """All Services as they are, then each change for WATCH_SECONDS."""
    balancer = Balancer(client.CoreV1Api(), pool)
    listed = balancer.api.list_service_for_all_namespaces(_request_timeout=ANSWER_SECONDS)
    # What has an address keeps it.
    for service in sorted(listed.items, key=lambda entry: not addresses_of(entry)):
        balancer.look(service)
    # From the list on: a watch «from now» would miss what changed in between.
    changes = watch.Watch().stream(
        balancer.api.list_service_for_all_namespaces,
        resource_version=listed.metadata.resource_version,
        timeout_seconds=WATCH_SECONDS,
        _request_timeout=(ANSWER_SECONDS, WATCH_SECONDS + ANSWER_SECONDS),
    )
    for event in changes:
        (balancer.forget if event["type"] == "DELETED" else balancer.look)(event["object"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--addresses", type=ipaddress.IPv4Network, required=True)
    arguments = parser.parse_args()
    config.load_kube_config(arguments.kubeconfig)
    while True:
        try:
            serve(arguments.addresses)
        except Exception as error:
            # The apiserver may be away: say so and look again.
            print(f"{type(error).__name__}: {error}", flush=True)
            time.sleep(2)


if __name__ == "__main__":
    main()
