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


def serve(pool: ipaddress.IPv4Network) -> None:
    api = client.CoreV1Api()
    given: dict[str, str] = {}
    listed = api.list_service_for_all_namespaces(_request_timeout=ANSWER_SECONDS)
    for service in listed.items:
        for address in addresses_of(service):
            given[service.metadata.uid] = address
    changes = watch.Watch().stream(
        api.list_service_for_all_namespaces,
        timeout_seconds=WATCH_SECONDS,
        _request_timeout=(ANSWER_SECONDS, WATCH_SECONDS + ANSWER_SECONDS),
    )
    for event in changes:
        service = event["object"]
        if event["type"] == "DELETED":
            given.pop(service.metadata.uid, None)
        elif service.spec.type == "LoadBalancer" and not addresses_of(service):
            where = f"{service.metadata.namespace}/{service.metadata.name}"
            try:
                address = pick_address(pool, given.values(), service.spec.load_balancer_ip)
            except LookupError as error:
                print(f"{where}: {error}", flush=True)
                continue
            api.patch_namespaced_service_status(
                service.metadata.name,
                service.metadata.namespace,
                {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}},
                _request_timeout=ANSWER_SECONDS,
            )
            given[service.metadata.uid] = address
            print(f"{where} has address {address}", flush=True)


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
