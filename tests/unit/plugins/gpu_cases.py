# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""GPUs for the tests, as gpu_hardware.read_smi gives them."""

from __future__ import annotations

# name, PCI device id, class, compute capability, memory in MiB as NVML reports it, can it do MIG
CARDS = {
    "T4": ("Tesla T4", "0x1eb8", "7.5", 15360, False),
    "V100": ("Tesla V100-SXM2-16GB", "0x1db1", "7.0", 16384, False),
    "A100-40": ("NVIDIA A100-SXM4-40GB", "0x20b0", "8.0", 40960, True),
    "A100-80": ("NVIDIA A100 80GB PCIe", "0x20b5", "8.0", 81920, True),
    "A10": ("NVIDIA A10", "0x2236", "8.6", 23028, False),
    "L4": ("NVIDIA L4", "0x27b8", "8.9", 23034, False),
    "L40S": ("NVIDIA L40S", "0x26b9", "8.9", 46068, False),
    "H100-PCIe": ("NVIDIA H100 PCIe", "0x2331", "9.0", 81559, True),
    "H100-SXM": ("NVIDIA H100 80GB HBM3", "0x2330", "9.0", 81559, True),
    "H200": ("NVIDIA H200", "0x2335", "9.0", 143771, True),
    "B200": ("NVIDIA B200", "0x2901", "10.0", 183359, True),
    "GH200": ("NVIDIA GH200 480GB", "0x2342", "9.0", 97871, True),
}


def gpu(card: str, *profiles: str, number: int = 0, mig: bool | None = None, memory: int | None = 4864) -> dict:
    """One GPU; MIG is on where it has profiles, or where the test says so."""
    name, device, capability, mib, capable = CARDS[card]
    return {
        "address": f"0000:{number:02x}:00.0",
        "device_id": device,
        "pci_class": "0x030200",
        "name": name,
        "generation": None,
        "compute_capability": capability,
        "memory_mib": mib,
        "persistence": True,
        "vgpu": False,
        "mig": {
            "capable": capable,
            "enabled": bool(profiles) if mig is None else mig,
            "pending": bool(profiles) if mig is None else mig,
            "devices": [
                {
                    "index": index,
                    "profile": profile,
                    "memory_mib": memory,
                    "multiprocessors": 14,
                    "engines": {"copy": 1, "decoder": 0, "encoder": 0, "jpeg": 0, "ofa": 0},
                }
                for index, profile in enumerate(profiles)
            ],
        },
        "fabric": {"state": None, "status": None, "cluster": None, "clique": None},
    }
