# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A signed package repository with stubs under the true names of NVIDIA's packages.

The stubs do what the tests look at: `nvidia-smi` answers as a real H100 did, with its package's version, once the
kernel module is «loaded»; `nvidia-ctk` writes the drop-in that the real one writes; daemons are empty units.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "gpu"
OLD, NEW, NEXT_BRANCH = "580.95.05", "580.159.04", "590.44.01"
TOOLKIT = "1.20.0"
# Of Debian 12.
KERNEL = "6.1.0-32-amd64"

NVIDIA_SMI = """#!/bin/sh
# A stub: answers as nvidia-smi did on a real H100, once the module is loaded.
if [ ! -e /proc/driver/nvidia/version ]; then
  echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9
fi
if ! grep -q " {version} " /proc/driver/nvidia/version; then
  echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18
fi
answers=/usr/share/nvidia
[ -e /etc/pretended-gpus ] && answers=/etc/pretended-gpus
case "$1" in
  -q) sed 's/580[.]159[.]04/{version}/' $answers/smi.xml;;
  --query-gpu*) cat $answers/capabilities;;
  -L) echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-00000000-0000-0000-0000-000000000000)";;
esac
"""
# What the true nvidia-ctk 1.20.0 wrote, built from its Go module.
CTK_WRITES = FIXTURES / "nvidia-ctk-1.20.0"
NVIDIA_CTK = f"""#!/bin/sh
# A stub: writes the drop-in that the real one writes.
[ "$1 $2" = "runtime configure" ] || exit 0
case "$*" in
*--runtime=crio*)
file=$(echo "$*" | sed -n 's/.*--drop-in-config=\\([^ ]*\\).*/\\1/p')
mkdir -p $(dirname $file)
cat > $file <<'END'
{(CTK_WRITES / "crio.toml").read_text()}
END
;;
*--runtime=containerd*)
mkdir -p /etc/containerd/conf.d
cat > /etc/containerd/conf.d/99-nvidia.toml <<'END'
{(CTK_WRITES / "containerd-2.toml").read_text()}
END
file=/etc/containerd/config.toml
grep -q conf.d $file || sed -i '1i imports = ["/etc/containerd/conf.d/*.toml"]' $file
;;
esac
"""
CAPABILITIES = "00000000:00:06.0, 9.0\n"
UNIT = "[Unit]\nDescription=stub of {name}\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
MODULES = {
    "open": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\n",
    "proprietary": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Sun Nov 22 00:00:00 UTC 2026\n",
}


def kernel_module(package: str, version: str) -> str:
    """What /proc/driver/nvidia/version says once the module of this package is loaded."""
    return MODULES["open" if "open" in package else "proprietary"].format(version=version)


@dataclass
class Package:
    name: str
    version: str
    files: dict[str, str] = field(default_factory=dict)
    depends: str = ""
    conflicts: str = ""
    postinst: str = ""

    def build(self, folder: Path, work: Path) -> None:
        root = work / self.name
        shutil.rmtree(root, ignore_errors=True)
        control = [
            f"Package: {self.name}",
            f"Version: {self.version}",
            "Architecture: amd64",
            "Maintainer: tests <t@t>",
        ]
        control += [f"Depends: {self.depends}"] if self.depends else []
        control += [f"Conflicts: {self.conflicts}"] if self.conflicts else []
        control += [f"Description: stub of {self.name}, for tests"]
        (root / "DEBIAN").mkdir(parents=True)
        (root / "DEBIAN" / "control").write_text("\n".join(control) + "\n")
        if self.postinst:
            (root / "DEBIAN" / "postinst").write_text(self.postinst)
            (root / "DEBIAN" / "postinst").chmod(0o755)
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if "/bin/" in name else 0o644)
        command = ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(root), str(folder)]
        subprocess.run(command, check=True, capture_output=True)


def driver(version: str) -> list[Package]:
    full = f"{version}-1"
    smi = (FIXTURES / "h100-nvidia-smi.xml").read_text()

    def kernel(name: str, other: str) -> Package:
        files = {"usr/lib/nvidia/module": kernel_module(name, version)}
        # A driver whose build fails, as one against missing headers: only where a test wishes it.
        broken = '#!/bin/sh\n[ ! -e /etc/break-the-build ] || { echo "dkms: no headers" >&2; exit 10; }\n'
        return Package(name, full, files, f"linux-headers-{KERNEL}", other, broken)

    return [
        Package(
            "nvidia-driver-cuda",
            full,
            {
                "usr/bin/nvidia-smi": NVIDIA_SMI.replace("{version}", version),
                "usr/share/nvidia/smi.xml": smi,
                "usr/share/nvidia/capabilities": CAPABILITIES,
            },
            f"libcuda1 (= {full})",
        ),
        Package("libcuda1", full),
        kernel("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
        kernel("nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
        Package(
            "nvidia-persistenced",
            full,
            {"lib/systemd/system/nvidia-persistenced.service": UNIT.format(name="nvidia-persistenced")},
        ),
        Package(
            "nvidia-fabricmanager",
            full,
            {"lib/systemd/system/nvidia-fabricmanager.service": UNIT.format(name="nvidia-fabricmanager")},
        ),
    ]


def toolkit(version: str) -> list[Package]:
    full = f"{version}-1"
    refresh = "[Path]\nPathChanged=/dev/nvidia0\n[Install]\nWantedBy=multi-user.target\n"
    return [
        Package("libnvidia-container1", full),
        Package("libnvidia-container-tools", full, depends=f"libnvidia-container1 (= {full})"),
        Package(
            "nvidia-container-toolkit-base",
            full,
            {"usr/bin/nvidia-ctk": NVIDIA_CTK, "lib/systemd/system/nvidia-cdi-refresh.path": refresh},
        ),
        Package("nvidia-container-toolkit", full, {"usr/bin/nvidia-container-runtime": "#!/bin/sh\n"}),
    ]


def headers() -> Package:
    files = {f"lib/modules/{KERNEL}/build/Makefile": "", "usr/share/doc/headers": KERNEL}
    return Package(f"linux-headers-{KERNEL}", "1", files)


def make_key(home: Path) -> None:
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run(
        [*gpg, "--passphrase", "", "--quick-generate-key", "tests", "rsa2048", "sign", "never"],
        check=True,
        capture_output=True,
    )
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    home.with_suffix(".asc").write_bytes(key)


def index(folder: Path, home: Path) -> None:
    """Packages, Release and InRelease of a flat repository, as NVIDIA's are."""
    listed = subprocess.run(
        ["dpkg-scanpackages", "--multiversion", "."], cwd=folder, check=True, capture_output=True
    ).stdout
    (folder / "Packages").write_bytes(listed)
    (folder / "Packages.gz").write_bytes(gzip.compress(listed, mtime=0))
    lines = ["Origin: tests", "Label: tests", "Suite: ./", "Date: Sun, 22 Nov 2026 00:00:00 UTC", "SHA256:"]
    for name in ("Packages", "Packages.gz"):
        content = (folder / name).read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    (folder / "Release").write_text("\n".join(lines) + "\n")
    (folder / "InRelease").unlink(missing_ok=True)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    command = [*gpg, "--clearsign", "--output", str(folder / "InRelease"), str(folder / "Release")]
    subprocess.run(command, check=True, capture_output=True)


def make_repository(folder: Path) -> None:
    """`driver` and `toolkit`, each with its key beside it, and the key `stranger.asc` that signed neither."""
    work = folder / "work"
    for name in ("driver", "stranger"):
        make_key(folder / name) if name == "stranger" else make_key(folder / "key")
    drivers = [package for version in (OLD, NEW, NEXT_BRANCH) for package in driver(version)]
    for name, packages in (("driver", [*drivers, headers()]), ("toolkit", toolkit(TOOLKIT) + toolkit("1.21.0"))):
        (folder / name).mkdir(exist_ok=True)
        for package in packages:
            package.build(folder / name, work)
        index(folder / name, folder / "key")
    for home in ("key", "stranger"):
        subprocess.run(["gpgconf", "--homedir", str(folder / home), "--kill", "all"], check=True)
    shutil.rmtree(work)
