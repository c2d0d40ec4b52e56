"""The machine's own GPUs, for nodes that have them: found by NVML, shared out, and what a pod needs to use them.

A pod that computes on a GPU uses the machine's PyTorch and driver, laid read-only where its node keeps models.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import subprocess
from pathlib import Path

NVML = "libnvidia-ml.so.1"
# Inside a node: the driver's libraries for NVIDIA's plugin, and what a speech pod mounts as its model store.
DRIVER = Path("/run/speechops-lab/driver")
STORE = Path("/run/speechops-lab/machine")
ABOUT = "pytorch.json"
QUESTION = (
    "import importlib.util, json, sys; found = importlib.util.find_spec('torch'); "
    "print(json.dumps({'version': list(sys.version_info[:2]), 'home': sys.base_prefix, "
    "'torch': found and found.origin}))"
)


class GpuError(RuntimeError):
    """The machine's GPUs cannot be used; the message says why and what to do."""


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


def found() -> list[dict]:
    """The machine's GPUs, in the driver's order: product, memory and the number of its device file; else none."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return []
    if nvml.nvmlInit_v2():
        return []
    count = ctypes.c_uint()
    if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    gpus = []
    for index in range(count.value):
        handle, name = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        minor, memory = ctypes.c_uint(), _Memory()
        codes = (
            nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)),
            nvml.nvmlDeviceGetName(handle, name, 96),
            nvml.nvmlDeviceGetMinorNumber(handle, ctypes.byref(minor)),
            nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)),
        )
        if any(codes):
            raise GpuError(f"NVML answers {codes} about GPU {index}: see nvidia-smi")
        gpus.append(
            {
                "product": name.value.decode().replace(" ", "-"),
                "memory_mib": memory.total // 2**20,
                "minor": minor.value,
            }
        )
    nvml.nvmlShutdown()
    return gpus


def shared_out(gpus: list[dict], nodes: int) -> list[list[dict]]:
    """Each node's GPUs: all on one, or the same number on each.

    Raises:
        GpuError: there are none, or they cannot be shared out evenly.
    """
    if not gpus:
        raise GpuError(f"--gpus real: NVML ({NVML}) finds no GPU on this machine; nvidia-smi says why")
    if len(gpus) % nodes:
        raise GpuError(f"--gpu-nodes {nodes}: {len(gpus)} GPUs cannot be shared out evenly; use a divisor of it")
    share = len(gpus) // nodes
    return [gpus[number * share : (number + 1) * share] for number in range(nodes)]


def driver_folder(listing: str | None = None) -> Path:
    """Where the driver's libraries lie, by the loader's own list.

    Raises:
        GpuError: the list has no NVML.
    """
    text = listing if listing is not None else subprocess.run(["ldconfig", "-p"], capture_output=True, text=True).stdout
    for line in text.splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.split(" ")[0] == NVML:
            return Path(path).parent
    raise GpuError(f"{NVML} is not in the loader's list (ldconfig -p): the driver's libraries are not installed")


def pytorch(interpreter: str) -> dict[str, str]:
    """Folders that PyTorch of this interpreter needs, and its version of Python.

    Raises:
        GpuError: it cannot be run, or it has no PyTorch.
    """
    try:
        answer = subprocess.run([interpreter, "-c", QUESTION], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise GpuError(f"--torch {interpreter}: it cannot be run ({error})") from error
    told = json.loads(answer)
    if not told["torch"]:
        raise GpuError(f"--torch {interpreter}: this Python has no package torch; name one that has")
    return {
        "python": ".".join(map(str, told["version"])),
        "home": told["home"],
        "packages": str(Path(told["torch"]).parent.parent),
    }


def other_mounts(*paths: str | Path) -> list[str]:
    """Those of these folders that do not lie on the root's file system, and so not in a node's lower layer."""
    root = os.stat("/").st_dev
    return sorted({str(path) for path in paths if Path(path).exists() and os.stat(path).st_dev != root})


def laid_in_node(gpus: list[dict], torch: str) -> dict:
    """What a node lays for its GPUs: bind mounts (place in the node: here), a file, hidden device files."""
    driver = str(driver_folder())
    about = pytorch(torch)
    binds = {
        str(DRIVER): driver,
        f"{STORE}/driver": driver,
        f"{STORE}/usr": "/usr",
        f"{STORE}/home": about["home"],
        f"{STORE}/packages": about["packages"],
    }
    mine = {gpu["minor"] for gpu in gpus}
    hidden = [str(path) for path in Path("/dev").glob("nvidia[0-9]*") if int(path.name[6:]) not in mine]
    return {
        "binds": binds,
        "files": {f"{STORE}/{ABOUT}": json.dumps({"python": about["python"]})},
        "hidden": sorted(hidden),
        "mounts": other_mounts(driver, about["home"], about["packages"], "/usr"),
    }
