# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other GPUs than the H100 for a host: those that a node of the lab says it has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.gpu_host.packages import FIXTURES

# PCI device ids of the lab's products, by the labels that they get.
DEVICES = {"Tesla-T4": "1eb8", "NVIDIA-A100-PCIE-40GB": "20f1"}


def pretend(root: Path, gpus: Mapping) -> None:
    """Give the host below `root` the GPUs of one entry of lab.settings.GPU_MODELS, on its bus and in nvidia-smi."""
    device = DEVICES[gpus["product"]]
    text = (FIXTURES / "h100-nvidia-smi.xml").read_text()
    head, one, tail = re.split(r"(?s)(\t<gpu id=.*</gpu>\n)", text)
    one = one.replace("NVIDIA H100 80GB HBM3", gpus["product"].replace("-", " "))
    one = one.replace("233010DE", f"{device.upper()}10DE").replace("81559 MiB", f"{gpus['memory_mib']} MiB")
    if not gpus["mig_capable"]:
        one = re.sub(r"(<(current|pending)_mig>)Disabled", r"\1N/A", one)
    devices = root / "sys/bus/pci/devices"
    shutil.rmtree(devices)
    cards, capabilities = "", ""
    for number in range(gpus["count"]):
        address = f"0000:00:{6 + number:02x}.0"
        for name, value in (("vendor", "0x10de"), ("device", f"0x{device}"), ("class", "0x030200")):
            (devices / address).mkdir(parents=True, exist_ok=True)
            (devices / address / name).write_text(f"{value}\n")
        cards += one.replace("00000000:00:06.0", f"0000{address}")
        capabilities += f"0000{address}, {gpus['compute_major']}.{gpus['compute_minor']}\n"
    answers = root / "etc/pretended-gpus"
    answers.mkdir()
    (answers / "smi.xml").write_text(f"{head}{cards}{tail}")
    (answers / "capabilities").write_text(capabilities)
    product_name = root / "sys/class/dmi/id/product_name"
    product_name.parent.mkdir(parents=True, exist_ok=True)
    product_name.write_text(f"{gpus['machine']}\n")
