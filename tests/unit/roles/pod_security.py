# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kubernetes' Pod Security Standards as rules over a pod's spec.

Source: kubernetes.io/docs/concepts/security/pod-security-standards, for Kubernetes 1.36. Of what no chart here is about
(Windows, AppArmor, SELinux, sysctls, /proc) it is only looked whether it is set at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
UNUSUAL = ("windowsOptions", "appArmorProfile", "seLinuxOptions", "sysctls", "procMount")
SECCOMP = ("RuntimeDefault", "Localhost")


def containers(spec: dict) -> list[dict]:
    return [*spec.get("initContainers", []), *spec.get("containers", []), *spec.get("ephemeralContainers", [])]


def contexts(spec: dict) -> Iterator[tuple[str, dict, dict]]:
    """Name of each container, its own security context, and the pod's."""
    for container in containers(spec):
        yield container["name"], container.get("securityContext") or {}, spec.get("securityContext") or {}


def _hosts_namespaces(spec):
    return [name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]


def _privileged(spec):
    return [name for name, own, _pod in contexts(spec) if own.get("privileged")]


def _added_capabilities(spec):
    return [
        name
        for name, own, _pod in contexts(spec)
        if set((own.get("capabilities") or {}).get("add", [])) - BASELINE_CAPABILITIES
    ]


def _host_paths(spec):
    return [volume["name"] for volume in spec.get("volumes", []) if "hostPath" in volume]


def _host_ports(spec):
    return [item["name"] for item in containers(spec) if any(port.get("hostPort") for port in item.get("ports", []))]


def _unconfined(spec):
    return [
        name
        for name, own, pod in contexts(spec)
        if "Unconfined" in [(context.get("seccompProfile") or {}).get("type") for context in (own, pod)]
    ]


def _unusual(spec):
    return [name for name, own, pod in contexts(spec) if any(key in own or key in pod for key in UNUSUAL)]


def _volume_types(spec):
    return [item["name"] for item in spec.get("volumes", []) if not set(item) - {"name"} <= RESTRICTED_VOLUMES]


def _escalation(spec):
    return [name for name, own, _pod in contexts(spec) if own.get("allowPrivilegeEscalation") is not False]


def _may_be_root(spec):
    return [name for name, own, pod in contexts(spec) if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True]


def _is_root(spec):
    return [name for name, own, pod in contexts(spec) if own.get("runAsUser", pod.get("runAsUser")) == 0]


def _no_seccomp(spec):
    return [
        name
        for name, own, pod in contexts(spec)
        if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in SECCOMP
    ]


def _kept_capabilities(spec):
    return [
        name
        for name, own, _pod in contexts(spec)
        if "ALL" not in (own.get("capabilities") or {}).get("drop", [])
        or set(own["capabilities"].get("add", [])) - {"NET_BIND_SERVICE"}
    ]


Rule = Callable[[dict], list[str]]
BASELINE: dict[str, Rule] = {
    "host namespaces": _hosts_namespaces,
    "privileged containers": _privileged,
    "added capabilities": _added_capabilities,
    "hostPath volumes": _host_paths,
    "host ports": _host_ports,
    "seccomp unconfined": _unconfined,
    "unusual settings": _unusual,
}
RESTRICTED: dict[str, Rule] = {
    **BASELINE,
    "volume types": _volume_types,
    "privilege escalation": _escalation,
    "running as non-root": _may_be_root,
    "user 0": _is_root,
    "seccomp": _no_seccomp,
    "capabilities": _kept_capabilities,
}


def broken(spec: dict, rules: dict[str, Rule]) -> dict[str, list[str]]:
    """The rules that the pod breaks, with the containers or volumes that break them."""
    return {name: found for name, rule in rules.items() if (found := rule(spec))}


def level(spec: dict) -> str:
    """The strictest standard that the pod meets."""
    if not broken(spec, RESTRICTED):
        return "restricted"
    return "privileged" if broken(spec, BASELINE) else "baseline"
