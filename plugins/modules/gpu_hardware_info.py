#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_hardware_info
short_description: Says what hardware and kernel of a node know of its GPUs, and which labels it should have
version_added: 0.2.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - Runs on the GPU node. It reads the PCI bus, the driver (C(nvidia-smi) or NVML, C(/proc/driver/nvidia)), the loaded
    modules, UEFI Secure Boot, NVSwitches, packages, and how containerd, k3s, RKE2 or CRI-O is configured.
  - It returns what it found, a finding for each well-known pain of GPU nodes, and the labels that GPU Feature
    Discovery should set for this hardware. M(speechops.riva.validate_gpu_nodes) takes RV(labels) as the expected truth.
  - Nothing of it identifies a single card, so no serial number and no UUID is read out.
  - Python 3.9 is enough on the node, without further packages.
extends_documentation_fragment:
  - speechops.riva.validation.attributes
options:
  node:
    description: Name for the findings, best the one of the Kubernetes node. The host name by default.
    type: str
  source:
    description:
      - What is asked about the GPUs.
      - V(nvidia-smi) takes the driver's own program, V(nvml) the Python package C(nvidia-ml-py), V(auto) the program,
        and NVML where there is no program.
    type: str
    default: auto
    choices: [auto, nvidia-smi, nvml]
  mig_strategy:
    description: The MIG strategy that GPU Feature Discovery runs with, for RV(labels).
    type: str
    default: none
    choices: [none, single, mixed]
  sharing:
    description: How the device plugin shares the GPUs, for RV(labels). Not shared by default.
    type: dict
    suboptions:
      strategy:
        description: The way in which GPUs are shared.
        type: str
        required: true
        choices: [none, time-slicing, mps]
      resources:
        description: Replicas by resource, for example 4 for C(nvidia.com/gpu).
        type: dict
        default: {}
      rename:
        description: Whether the shared resource has a name of its own (C(renameByDefault)).
        type: bool
        default: false
  root:
    description: Folder where the host's file system is, for a container that has it mounted; programs are its own.
    type: path
    default: /
  fail_on:
    description: From which status of a finding on the task fails.
    type: str
    default: never
    choices: [failed, warning, never]
"""

EXAMPLES = r"""
- name: The hardware of the GPU node is known
  speechops.riva.gpu_hardware_info:
    node: "{{ inventory_hostname }}"
  register: hardware

- name: The labels are known that its A100s should have
  speechops.riva.gpu_hardware_info:
    mig_strategy: single
    sharing:
      strategy: time-slicing
      resources:
        nvidia.com/gpu: 4
"""

RETURN = r"""
hardware:
  description: What was found.
  returned: always
  type: dict
  contains:
    node:
      description: The node's name.
      type: str
      returned: always
    os:
      description: C(id) and C(version) of os-release, and the machine's C(architecture).
      type: dict
      returned: always
    kernel:
      description:
        - The running kernel's C(release), whether its C(headers) are there, whether C(nouveau) is loaded, and
          C(secure_boot).
        - C(secure_boot) is null where the machine has no UEFI.
      type: dict
      returned: always
    pci:
      description: C(gpus) on the bus (address, PCI id, class, generation, bound driver) and how many C(nvswitches).
      type: dict
      returned: always
    gpus:
      description: The GPUs that the driver shows, with name, memory (MiB), compute capability, MIG devices and fabric.
      type: list
      elements: dict
      returned: always
    driver:
      description:
        - C(version), C(cuda), the kernel C(module), and C(origin), which is one of packages, runfile, container, other,
          none.
      type: dict
      returned: always
    fabric_manager:
      description: Its C(version), and whether it is C(running).
      type: dict
      returned: always
    packages:
      description:
        - C(manager), NVIDIA's packages with their versions as C(nvidia), those C(held), and C(broken) ones of any name.
      type: dict
      returned: always
    toolkit:
      description: C(version) of the NVIDIA Container Toolkit.
      type: dict
      returned: always
    runtime:
      description: C(name) of the container runtime, and whether the runtime nvidia is C(configured) in its C(config).
      type: dict
      returned: always
    space:
      description: Free space in MiB where a driver is installed, as C(path) and C(free_mib).
      type: list
      elements: dict
      returned: always
labels:
  description:
    - The C(labels) that GPU Feature Discovery should set, and C(either) where one of several values is right.
  returned: always
  type: dict
findings:
  description: What was checked and how it is.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: What was checked.
      type: str
      returned: always
    subject:
      description: The node.
      type: str
      returned: always
    status:
      description: One of V(ok), V(unknown), V(warning), V(failed).
      type: str
      returned: always
    message:
      description: What was found.
      type: str
      returned: always
    remedy:
      description: What to do or type next. Empty where nothing has to be done.
      type: str
      returned: always
table:
  description: The findings as text, one line each.
  returned: always
  type: str
status:
  description: The worst status among the findings.
  returned: always
  type: str
  sample: ok
"""

import os
import platform
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import gpu_hardware, gpu_pains
from ansible_collections.speechops.riva.plugins.module_utils.findings import fails, summary, table, worst

SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Besides PATH: where container images and cloud providers put the driver's programs.
PLACES = ["/usr/bin", "/usr/local/nvidia/bin", "/opt/bin"]
# The root file system of the GPU Operator's driver container, seen from the host.
CONTAINER = "/run/nvidia/driver"
PACKAGE_NAMES = re.compile(
    r"(lib)?nvidia|kmod-nvidia|cuda-(drivers|keyring)|libcuda1$|linux-modules-nvidia|firmware-nvidia"
)
# containerd's own file and what it imports, in the order in which one wins over the other.
CONTAINERD_FILES = ["etc/containerd/config.toml", "etc/containerd/conf.d"]
SMI_FAILURE_LENGTH = 200
UNITS = {
    "containerd": ["containerd"],
    "crio": ["crio"],
    "k3s": ["k3s-agent", "k3s"],
    "rke2": ["rke2-agent", "rke2-server"],
}
UNIT_PLACES = ["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"]


class Host:
    """The host's files and programs."""

    def __init__(self, module):
        self.module = module
        self.root = module.params["root"]

    def path(self, name):
        return os.path.join(self.root, name.lstrip("/"))

    def read(self, name):
        """The text of a file, None where there is none or it can't be read."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def raw(self, name):
        try:
            with open(self.path(name), "rb") as file:
                return file.read()
        except OSError:
            return None

    def exists(self, name):
        return os.path.exists(self.path(name))

    def names(self, folder):
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def run(self, *command):
        """(exit status, output, error) of a program; 127 where it is not there."""
        program = self.module.get_bin_path(command[0], opt_dirs=PLACES)
        if not program:
            return 127, "", "not found"
        return self.module.run_command([program, *command[1:]], environ_update={"LC_ALL": "C"})


def read_os(host):
    text = host.read("etc/os-release") or host.read("usr/lib/os-release") or ""
    values = dict(re.findall(r"^([A-Z_]+)=\"?(.*?)\"?$", text, re.MULTILINE))
    return {
        "id": values.get("ID", ""),
        "version": values.get("VERSION_ID", ""),
        "architecture": platform.machine(),
    }


def read_kernel(host, modules):
    release = (host.read("proc/sys/kernel/osrelease") or os.uname().release).strip()
    boot = host.raw(SECURE_BOOT)
    return {
        "release": release,
        "headers": host.exists(f"lib/modules/{release}/build") or host.exists(f"usr/src/linux-headers-{release}"),
        "nouveau": "nouveau" in modules,
        "secure_boot": None if boot is None else boot[-1:] == b"\x01",
    }


def read_pci(host):
    folder = "sys/bus/pci/devices"
    devices = []
    for address in host.names(folder):
        device = {"address": address}
        for name in ("vendor", "device", "class"):
            device[name] = (host.read(f"{folder}/{address}/{name}") or "").strip()
        try:
            device["driver"] = os.path.basename(os.readlink(host.path(f"{folder}/{address}/driver")))
        except OSError:
            device["driver"] = None
        devices.append(device)
    return gpu_hardware.read_pci(devices)


def read_module(host, modules):
    """The loaded kernel module: the kernel's own words, since packages may be newer."""
    text = host.read("proc/driver/nvidia/version") or ""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version")), "")
    version = re.search(r"\s([0-9]+\.[0-9]+(\.[0-9]+)?)\s", line)
    signer = None
    if host.root == "/" and ("nvidia" in modules or line):
        code, output, _error = host.run("modinfo", "-F", "signer", "nvidia")
        signer = output.strip() or None if code == 0 else None
    return {
        "loaded": bool(line) or "nvidia" in modules,
        "version": version.group(1) if version else None,
        "flavour": ("open" if "Open Kernel Module" in line else "proprietary") if line else None,
        "signer": signer,
    }


def run_smi(host, *arguments):
    """The host's program, else that of the GPU Operator's driver container, among its own libraries."""
    answer = host.run("nvidia-smi", *arguments)
    if answer[0] == 127 and host.exists(f"{CONTAINER}/usr/bin/nvidia-smi"):
        return host.run("chroot", CONTAINER, "nvidia-smi", *arguments)
    return answer


def ask_smi(host):
    """(answer of nvidia-smi, error); (None, "") where there is no program."""
    code, output, error = run_smi(host, "-q", "-x")
    if code == 127:
        return None, ""
    try:
        if code != 0:
            raise gpu_hardware.UnreadableError(" ".join((output + " " + error).split()) or f"exit status {code}")
        answer = gpu_hardware.read_smi(output)
    except gpu_hardware.UnreadableError as problem:
        return None, str(problem)[:SMI_FAILURE_LENGTH]
    query = ("--query-gpu=pci.bus_id,compute_cap", "--format=csv,noheader")
    gpu_hardware.add_capabilities(answer["gpus"], run_smi(host, *query)[1])
    if any(gpu["mig"]["devices"] for gpu in answer["gpus"]):
        gpu_hardware.add_mig_profiles(answer["gpus"], run_smi(host, "-L")[1])
    return answer, ""


def ask_nvml():
    """The same answer from the library; (None, error) where it can't be asked."""
    try:
        import pynvml as nvml
    except ImportError:
        return None, "the Python package nvidia-ml-py is missing on the node"
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return None, f"NVML: {error}"
    try:
        cuda = nvml.nvmlSystemGetCudaDriverVersion()
        gpus = [nvml_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(nvml.nvmlDeviceGetCount())]
        version = as_text(nvml.nvmlSystemGetDriverVersion())
        return {"driver": version, "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}", "gpus": gpus}, ""
    except nvml.NVMLError as error:
        return None, f"NVML: {error}"
    finally:
        nvml.nvmlShutdown()


def as_text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def nvml_gpu(nvml, handle):
    def ask(question, *more):
        try:
            return question(handle, *more)
        except nvml.NVMLError:
            return None

    pci = nvml.nvmlDeviceGetPciInfo(handle)
    number = pci.pciDeviceId >> 16
    known = gpu_hardware.generation_of(number)
    mode = ask(nvml.nvmlDeviceGetMigMode)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability)
    memory = ask(nvml.nvmlDeviceGetMemoryInfo)
    virtual = ask(nvml.nvmlDeviceGetVirtualizationMode)
    address = gpu_hardware.address_of(as_text(pci.busId))
    return {
        "address": address,
        "device_id": f"0x{number:04x}",
        "pci_class": None,
        "name": as_text(nvml.nvmlDeviceGetName(handle)),
        "generation": known.name if known else None,
        "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
        "memory_mib": memory.total // 1024**2 if memory else None,
        "persistence": ask(nvml.nvmlDeviceGetPersistenceMode) == 1,
        "vgpu": virtual == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU,
        "mig": {
            "capable": mode is not None,
            "enabled": bool(mode and mode[0]),
            "pending": bool(mode and mode[1]),
            "devices": nvml_mig_devices(nvml, handle) if mode and mode[0] else [],
        },
        "fabric": {"state": None, "status": None, "cluster": None, "clique": None},
    }


def nvml_mig_devices(nvml, handle):
    devices = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            about = nvml.nvmlDeviceGetAttributes(device)
            name = as_text(nvml.nvmlDeviceGetName(device))
        except nvml.NVMLError:
            continue
        devices.append(
            {
                "index": index,
                "profile": name.rpartition("MIG ")[2] or None,
                "memory_mib": about.memorySizeMB,
                "multiprocessors": about.multiprocessorCount,
                "engines": {
                    "copy": about.sharedCopyEngineCount,
                    "decoder": about.sharedDecoderCount,
                    "encoder": about.sharedEncoderCount,
                    "jpeg": about.sharedJpegCount,
                    "ofa": about.sharedOfaCount,
                },
            }
        )
    return devices


def read_packages(host):
    """NVIDIA's packages and what is half installed, from dpkg's or rpm's own database."""
    found: dict = {"manager": None, "nvidia": {}, "held": [], "broken": []}
    options: tuple[str, ...]
    if host.exists("var/lib/dpkg/status"):
        found["manager"] = "dpkg"
        query = ("-W", "-f", "${db:Status-Abbrev}\\t${Package}\\t${Version}\\n")
        options = () if host.root == "/" else (f"--root={host.root}",)
        for line in host.run("dpkg-query", *options, *query)[1].splitlines():
            status, _tab, rest = line.partition("\t")
            name, _tab, version = rest.partition("\t")
            if len(status) < 2:
                continue
            if status[1] in "HUFWt" or (len(status) > 2 and status[2] == "R"):
                found["broken"].append(name)
            if PACKAGE_NAMES.match(name) and status[1] not in "nc":
                found["nvidia"][name] = version
                if status[0] == "h":
                    found["held"].append(name)
    elif host.exists("var/lib/rpm") or host.exists("usr/lib/sysimage/rpm"):
        found["manager"] = "rpm"
        options = () if host.root == "/" else ("--root", host.root)
        for line in host.run("rpm", *options, "-qa", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n")[1].splitlines():
            name, _tab, version = line.partition("\t")
            if PACKAGE_NAMES.match(name):
                found["nvidia"][name] = version
        locks = host.read("etc/dnf/plugins/versionlock.list") or ""
        found["held"] = sorted(name for name in found["nvidia"] if re.search(rf"^{re.escape(name)}-[0-9]", locks, re.M))
    return found


def read_fabric_manager(host, packages):
    version = next((v for name, v in packages["nvidia"].items() if gpu_pains.FABRIC_PACKAGES.match(name)), None)
    running = None
    if version and host.root == "/":
        code, output, _error = host.run("systemctl", "is-active", "nvidia-fabricmanager")
        # systemctl says `offline` or nothing where no systemd runs, as in a chroot.
        running = {"active": True, "inactive": False, "failed": False}.get(output.strip()) if code != 127 else None
    return {"version": version.split("-")[0] if version else None, "running": running}


def first_mention(host, places):
    return next((found for found in (mention_of(host, place) for place in places) if found), None)


def mention_of(host, name):
    """The file, or the file of a folder, that defines the runtime nvidia; None where none does."""
    path = host.path(name)
    files = [os.path.join(path, entry) for entry in host.names(name)] if os.path.isdir(path) else [path]
    for file in files:
        try:
            with open(file, encoding="utf-8", errors="replace") as stream:
                text = re.sub(r"^\s*#.*$", "", stream.read(), flags=re.MULTILINE)
        except OSError:
            continue
        if re.search(r"runtimes\.\"?'?nvidia\b", text) and "nvidia-container-runtime" in text:
            return file if host.root == "/" else file[len(host.root.rstrip("/")) :]
    return None


def read_runtime(host):
    rancher = {name: f"var/lib/rancher/{name}/agent" for name in ("rke2", "k3s")}
    name = next((name for name, folder in rancher.items() if host.exists(folder)), None)
    if not name and (host.exists("run/crio/crio.sock") or host.exists("etc/crio")):
        name = "crio"
    signs = ("run/containerd/containerd.sock", "etc/containerd", "usr/bin/containerd")
    if not name and any(host.exists(sign) for sign in signs):
        name = "containerd"
    if not name:
        return {"name": None, "configured": False, "config": None, "elsewhere": None, "service": None}
    if name in rancher:
        places = [f"{rancher[name]}/etc/containerd"]
    elif name == "crio":
        places = ["etc/crio/crio.conf", "etc/crio/crio.conf.d"]
    else:
        # What lies in conf.d counts only where the main file imports it.
        imports = re.search(r"^\s*imports\s*=.*conf\.d", host.read(CONTAINERD_FILES[0]) or "", re.MULTILINE)
        places = CONTAINERD_FILES if imports else CONTAINERD_FILES[:1]
    config = first_mention(host, places)
    # Where nvidia-ctk writes by itself: CRI-O does not read its folder.
    others = ["etc/crio/conf.d"] if name == "crio" else CONTAINERD_FILES
    elsewhere = None if config else first_mention(host, others)
    files = [(unit, f"{place}/{unit}.service") for unit in UNITS[name] for place in UNIT_PLACES]
    service = next((unit for unit, path in files if host.exists(path)), None)
    return {
        "name": name,
        "configured": bool(config),
        "config": config,
        "elsewhere": elsewhere,
        "service": service,
    }


def read_toolkit(host, packages):
    version = packages["nvidia"].get("nvidia-container-toolkit")
    if version:
        return {"version": version.split("-")[0]}
    # The GPU Operator's lies in a folder of its own.
    if host.exists("usr/local/nvidia/toolkit/nvidia-container-runtime"):
        return {"version": "of the GPU Operator"}
    code, output, _error = host.run("nvidia-ctk", "--version") if host.root == "/" else (127, "", "")
    match = re.search(r"version ([0-9][0-9A-Za-z.~-]*)", output) if code == 0 else None
    return {"version": match.group(1) if match else None}


def read_space(host):
    """Each file system once."""
    found, seen = [], set()
    for path in ("/usr", "/var", "/var/cache/apt", "/boot"):
        try:
            device, free = os.stat(host.path(path)).st_dev, os.statvfs(host.path(path))
        except OSError:
            continue
        if device not in seen and path != "/boot":
            found.append({"path": path, "free_mib": free.f_bavail * free.f_frsize // 1024**2})
        seen.add(device)
    return found


def read_driver(host, packages, answer, error, modules):
    driver = {
        "version": answer["driver"] if answer else None,
        "cuda": answer["cuda"] if answer else None,
        "module": read_module(host, modules),
        "package_version": gpu_pains.driver_package_version(packages["nvidia"]),
        "runfile": host.exists("usr/bin/nvidia-uninstall") or host.exists("usr/bin/nvidia-installer"),
        "container": host.exists("run/nvidia/driver/usr/bin/nvidia-smi"),
        "error": error,
    }
    driver["origin"] = gpu_pains.origin_of(driver)
    return driver


def merge_pci(gpus, pci):
    """What only sysfs knows of the GPUs that NVML shows."""
    classes = {gpu["address"]: gpu["pci_class"] for gpu in pci["gpus"]}
    for gpu in gpus:
        gpu["pci_class"] = classes.get(gpu["address"]) or gpu["pci_class"]


def look(module):
    host, params = Host(module), module.params
    modules = {line.split(" ", 1)[0] for line in (host.read("proc/modules") or "").splitlines()}
    answer, error = (None, "") if params["source"] == "nvml" else ask_smi(host)
    if params["source"] == "nvml" or (params["source"] == "auto" and answer is None and not error):
        answer, problem = ask_nvml()
        error = problem if params["source"] == "nvml" else error
    packages, pci = read_packages(host), read_pci(host)
    gpus = answer["gpus"] if answer else []
    merge_pci(gpus, pci)
    return host, {
        "node": params["node"] or platform.node(),
        "os": read_os(host),
        "kernel": read_kernel(host, modules),
        "pci": pci,
        "gpus": gpus,
        "driver": read_driver(host, packages, answer, error, modules),
        "fabric_manager": read_fabric_manager(host, packages),
        "packages": packages,
        "toolkit": read_toolkit(host, packages),
        "runtime": read_runtime(host),
        "space": read_space(host),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str"},
            "source": {"type": "str", "default": "auto", "choices": ["auto", "nvidia-smi", "nvml"]},
            "mig_strategy": {"type": "str", "default": "none", "choices": ["none", "single", "mixed"]},
            "sharing": {
                "type": "dict",
                "options": {
                    "strategy": {"type": "str", "required": True, "choices": ["none", "time-slicing", "mps"]},
                    "resources": {"type": "dict", "default": {}},
                    "rename": {"type": "bool", "default": False},
                },
            },
            "root": {"type": "path", "default": "/"},
            "fail_on": {"type": "str", "default": "never", "choices": ["failed", "warning", "never"]},
        },
        supports_check_mode=True,
    )
    host, facts = look(module)
    machine = host.read("sys/class/dmi/id/product_name")
    labels = gpu_hardware.predict(
        facts["gpus"],
        facts["driver"]["version"],
        facts["driver"]["cuda"],
        machine.strip() if machine is not None else None,
        module.params["mig_strategy"],
        module.params["sharing"],
    )
    findings = gpu_pains.findings_of(facts)
    result = {
        "changed": False,
        "hardware": facts,
        "labels": labels,
        "findings": [finding.to_dict() for finding in findings],
        "table": table(findings),
        "status": worst(findings),
    }
    if fails(findings, module.params["fail_on"]):
        module.fail_json(msg=summary("the node is not fit for GPU work:", findings, module.params["fail_on"]), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
