# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""What releases leave behind in a cluster, and which of it may go. Pure rules: objects in, leftovers out."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

# apply_crds' field manager: it marks the CRDs that this collection brought.
MANAGER = "speechops.riva"
MANAGED_BY = "app.kubernetes.io/managed-by"
# What Kubernetes and OpenShift put into every namespace, and what comes and goes by itself.
ALWAYS_THERE = {
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "openshift-service-ca.crt"),
    ("ServiceAccount", "default"),
    ("ServiceAccount", "builder"),
    ("ServiceAccount", "deployer"),
}
FLEETING = {"Event", "Lease", "Endpoints", "EndpointSlice"}
SHOWN = 5

DEAD, CRD, DATA, SECRET, NAMESPACE = "dead", "crd", "data", "secret", "namespace"


@dataclass(frozen=True)
class Leftover:
    """One object that is still there. `removable`: nothing that somebody else may need goes with it."""

    group: str
    api_version: str
    kind: str
    name: str
    namespace: str
    removable: bool
    message: str

    def to_dict(self) -> dict:
        return asdict(self)


def metadata(item: Mapping) -> Mapping:
    found = item.get("metadata")
    return found if isinstance(found, Mapping) else {}


def name_of(item: Mapping) -> str:
    return str(metadata(item).get("name") or "")


def release_of(item: Mapping) -> tuple[str, str]:
    """(namespace, name) of the Helm release that an object belongs to; empty where it says none."""
    notes = metadata(item).get("annotations") or {}
    return str(notes.get("meta.helm.sh/release-namespace") or ""), str(notes.get("meta.helm.sh/release-name") or "")


def dead_apiservices(
    items: Iterable[Mapping], services: Collection[tuple[str, str]], releases: Collection[tuple[str, str]]
) -> list[Leftover]:
    """APIServices whose Service is gone. They break discovery, and no namespace can be deleted while they stand.

    `services` and `releases` are (namespace, name). One that another release made is told, not removed.
    """
    found = []
    for item in items:
        service = (item.get("spec") or {}).get("service") or {}
        where = (str(service.get("namespace") or ""), str(service.get("name") or ""))
        if not service or where in services:
            continue
        ours = release_of(item) in releases
        found.append(
            Leftover(
                DEAD,
                "apiregistration.k8s.io/v1",
                "APIService",
                name_of(item),
                "",
                ours,
                f"its Service {'/'.join(where)} is gone; "
                + ("it goes too" if ours else "it is not ours: kubectl delete apiservice if nobody brings that back"),
            )
        )
    return found


def dead_webhooks(
    items: Iterable[Mapping], services: Collection[tuple[str, str]], releases: Collection[tuple[str, str]]
) -> list[Leftover]:
    """Webhook configurations, all of whose Services are gone: what they watch can't be changed any more."""
    found = []
    for item in items:
        clients = [hook.get("clientConfig") or {} for hook in item.get("webhooks") or ()]
        wanted = [client["service"] for client in clients if client.get("service")]
        where = [(str(entry.get("namespace") or ""), str(entry.get("name") or "")) for entry in wanted]
        if not where or len(where) < len(clients) or any(entry in services for entry in where):
            continue
        ours = release_of(item) in releases
        found.append(
            Leftover(
                DEAD,
                "admissionregistration.k8s.io/v1",
                str(item.get("kind") or ""),
                name_of(item),
                "",
                ours,
                f"its Service {'/'.join(where[0])} is gone; " + ("it goes too" if ours else "it is not ours"),
            )
        )
    return found


def managers(item: Mapping) -> set[str]:
    """Who applied the object, the API server's own status aside."""
    fields = metadata(item).get("managedFields") or ()
    found = {str(entry.get("manager")) for entry in fields if isinstance(entry, Mapping)}
    return found - {"kube-apiserver"}


def ours_by_manager(item: Mapping) -> bool:
    """Whether this collection applied the object."""
    return MANAGER in managers(item)


def crds(items: Iterable[Mapping], objects: Mapping[str, Sequence[str]]) -> list[Leftover]:
    """The CRDs that this collection brought. `objects` names what exists of each; one that is in use has to stay, since
    its objects would be deleted with it, whoever made them."""
    found = []
    for item in items:
        if not ours_by_manager(item):
            continue
        used = list(objects.get(name_of(item), ()))
        others = sorted(managers(item) - {MANAGER})
        message = "no object of its kind is there"
        if used:
            message = f"in use by {shortened(used)}"
        elif others:
            message = f"also applied by {shortened(others)}"
        removable = not used and not others
        found.append(
            Leftover(CRD, "apiextensions.k8s.io/v1", "CustomResourceDefinition", name_of(item), "", removable, message)
        )
    return found


def claims(items: Iterable[Mapping], releases: Collection[tuple[str, str]]) -> list[Leftover]:
    """The volumes that our releases asked for and that Helm keeps: models, metrics."""
    found = []
    for item in items:
        labels = metadata(item).get("labels") or {}
        namespace = str(metadata(item).get("namespace") or "")
        instance = str(labels.get("app.kubernetes.io/instance") or labels.get("operator.prometheus.io/name") or "")
        if release_of(item) not in releases and (namespace, instance) not in releases:
            continue
        size = (((item.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage", "")
        found.append(
            Leftover(DATA, "v1", "PersistentVolumeClaim", name_of(item), namespace, True, f"data, {size}".rstrip(", "))
        )
    return found


def secrets(items: Iterable[Mapping]) -> list[Leftover]:
    """The Secrets that this collection made by tasks, outside any release."""
    return [
        Leftover(SECRET, "v1", "Secret", name_of(item), str(metadata(item).get("namespace") or ""), True, "made by us")
        for item in items
        if (metadata(item).get("labels") or {}).get(MANAGED_BY) == MANAGER
    ]


def stands_alone(item: Mapping) -> bool:
    """Whether an object stays by itself: it is not going already, and no owner takes it along."""
    return not metadata(item).get("deletionTimestamp") and not metadata(item).get("ownerReferences")


def namespace_state(item: Mapping, contents: Iterable[tuple[str, str]]) -> Leftover:
    """One namespace, and whether anything is in it. `contents` are (kind, name) of what stands alone."""
    held = sorted(
        f"{kind} {name}" for kind, name in contents if kind not in FLEETING and (kind, name) not in ALWAYS_THERE
    )
    if (item.get("status") or {}).get("phase") == "Terminating":
        conditions = (item.get("status") or {}).get("conditions") or ()
        reasons = [str(entry.get("message")) for entry in conditions if entry.get("status") == "True"]
        message = "is Terminating" + (f": {'; '.join(reasons)}" if reasons else "")
        return Leftover(NAMESPACE, "v1", "Namespace", name_of(item), "", False, message)
    message = f"holds {shortened(held)}" if held else "is empty"
    return Leftover(NAMESPACE, "v1", "Namespace", name_of(item), "", not held, message)


def shortened(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def table(items: Sequence[Mapping]) -> str:
    """One line for each thing that is left: kind, name and why it stays."""
    if not items:
        return "nothing is left"
    rows = [
        (entry["kind"], "/".join(part for part in (entry["namespace"], entry["name"]) if part), entry["message"])
        for entry in items
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{kind:{widths[0]}}  {name:{widths[1]}}  {message}" for kind, name, message in rows)
