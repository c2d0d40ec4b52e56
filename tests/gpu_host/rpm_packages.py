# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Signed dnf repositories with stubs under the true names of NVIDIA's packages, with module streams as NVIDIA's has.

They are built inside the host, by its own rpmbuild, rpmsign and createrepo_c; the stubs do what those for Debian do.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from textwrap import indent

from tests.gpu_host.packages import (
    CAPABILITIES,
    FIXTURES,
    NEW,
    NEXT_BRANCH,
    NVIDIA_CTK,
    NVIDIA_SMI,
    OLD,
    TOOLKIT,
    UNIT,
    kernel_module,
)

# NVIDIA's driver packages have an epoch; those of the toolkit have none.
EPOCH = 3
# Of Rocky Linux 9.6; the packages of its headers carry it in their names.
KERNEL = "5.14.0-570.12.1.el9_6.x86_64"
BUILD = """
set -e
export HOME=/root/build
rpmbuild --quiet --define '_topdir /root/build' -bb /root/build/*.spec
for name in key stranger; do
  mkdir -m 700 /root/build/$name
  gpg --homedir /root/build/$name --batch --quiet --passphrase '' --quick-generate-key $name rsa2048 sign never
  gpg --homedir /root/build/$name --batch --armor --export > /srv/$name.asc
  gpgconf --homedir /root/build/$name --kill all
done
for repository in system driver toolkit; do
  mkdir -p /srv/$repository
  mv $(cat /root/build/$repository.list) /srv/$repository
  rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_path /root/build/key' --define '_gpg_name key' \\
    --addsign /srv/$repository/*.rpm > /dev/null
  createrepo_c --quiet --no-database /srv/$repository
done
gpgconf --homedir /root/build/key --kill all
modifyrepo_c --mdtype=modules /root/build/modules.yaml /srv/driver/repodata > /dev/null
rm -rf /root/build
"""
SPEC = """
Name: {name}
Version: {version}
Release: {release}
{epoch}
Summary: stub of {name}, for tests
License: none
{more}
AutoReqProv: no
%description
A stub, for tests.
%install
{install}
{scripts}
%files
%defattr(-,root,root)
{files}
"""
STREAM = """---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "{stream}"
  version: {number}
  context: c0ffee42
  arch: x86_64
  summary: stub of NVIDIA's driver {stream}
  description: A stub, for tests.
  license:
    module: [none]
  artifacts:
    rpms:
{artifacts}
...
"""


def spec(name, version, files=None, more="", epoch=0, scripts="", release="1.el9"):
    """A spec file whose files are written by its %install."""
    install, listed = [], []
    for number, (path, text) in enumerate((files or {}).items()):
        end = f"END_OF_FILE_{number}"
        # rpm would take what follows a percent sign for a macro.
        text = text.replace("%", "%%")
        install += [f"mkdir -p %{{buildroot}}$(dirname /{path})", f"cat > %{{buildroot}}/{path} <<'{end}'", text, end]
        mode = "0755" if "/bin/" in path else "0644"
        listed.append(f"%attr({mode},root,root) /{path}")
    return SPEC.format(
        name=name,
        version=version,
        release=release,
        epoch=f"Epoch: {epoch}" if epoch else "",
        more=more,
        install="\n".join(install) or ":",
        scripts=scripts,
        files="\n".join(listed),
    )


def driver(version: str) -> dict[str, str]:
    """Spec files of one driver by package name."""
    full = f"{EPOCH}:{version}-1.el9"
    smi = (FIXTURES / "h100-nvidia-smi.xml").read_text()
    unit = "usr/lib/systemd/system/{}.service"
    # A driver whose build fails, as one against missing headers: only where a test wishes it.
    broken = '%pre\n[ ! -e /etc/break-the-build ] || { echo "dkms: no headers" >&2; exit 10; }\n'

    def kernel(name: str, other: str) -> str:
        files = {"usr/lib/nvidia/module": kernel_module(name, version)}
        more = f"Requires: dkms, kernel-devel\nConflicts: {other}\nProvides: nvidia-kmod = {full}"
        return spec(name, version, files, more, EPOCH, broken)

    def daemon(name: str) -> str:
        return spec(name, version, {unit.format(name): UNIT.format(name=name)}, epoch=EPOCH)

    files = {
        "usr/bin/nvidia-smi": NVIDIA_SMI.replace("{version}", version),
        "usr/share/nvidia/smi.xml": smi,
        "usr/share/nvidia/capabilities": CAPABILITIES,
    }
    return {
        "nvidia-driver-cuda": spec(
            "nvidia-driver-cuda",
            version,
            files,
            f"Requires: nvidia-driver-cuda-libs = {full}, nvidia-kmod = {full}",
            EPOCH,
        ),
        "nvidia-driver-cuda-libs": spec("nvidia-driver-cuda-libs", version, epoch=EPOCH),
        "kmod-nvidia-open-dkms": kernel("kmod-nvidia-open-dkms", "kmod-nvidia-latest-dkms"),
        "kmod-nvidia-latest-dkms": kernel("kmod-nvidia-latest-dkms", "kmod-nvidia-open-dkms"),
        "nvidia-persistenced": daemon("nvidia-persistenced"),
        "nvidia-fabricmanager": daemon("nvidia-fabricmanager"),
    }


def toolkit(version: str) -> dict[str, str]:
    refresh = "[Path]\nPathChanged=/dev/nvidia0\n[Install]\nWantedBy=multi-user.target\n"
    base = {"usr/bin/nvidia-ctk": NVIDIA_CTK, "usr/lib/systemd/system/nvidia-cdi-refresh.path": refresh}
    return {
        "libnvidia-container1": spec("libnvidia-container1", version, release="1"),
        "libnvidia-container-tools": spec(
            "libnvidia-container-tools", version, more=f"Requires: libnvidia-container1 = {version}-1", release="1"
        ),
        "nvidia-container-toolkit-base": spec("nvidia-container-toolkit-base", version, base, release="1"),
        "nvidia-container-toolkit": spec(
            "nvidia-container-toolkit",
            version,
            {"usr/bin/nvidia-container-runtime": "#!/bin/sh"},
            f"Requires: nvidia-container-toolkit-base = {version}-1",
            release="1",
        ),
    }


def of_system(root: Path) -> dict[str, str]:
    """What comes from the distribution and EPEL. The plugin that locks versions is dnf's own, taken out of the root."""
    plugin, settings = root / "usr/lib/python3/dist-packages/dnf-plugins/versionlock.py", root / "etc/dnf/plugins"
    files = {
        "usr/lib/python3/dist-packages/dnf-plugins/versionlock.py": plugin.read_text(),
        "etc/dnf/plugins/versionlock.conf": (settings / "versionlock.conf").read_text(),
        "etc/dnf/plugins/versionlock.list": "",
    }
    plugin.unlink()
    (settings / "versionlock.conf").unlink()
    (settings / "versionlock.list").unlink()
    version, _dash, release = KERNEL.removesuffix(".x86_64").partition("-")
    return {
        "rocky-release": spec(
            # In place of bash too, whose /bin/sh scripts of packages need.
            "rocky-release",
            "9.6",
            more="Provides: system-release = 9.6, redhat-release = 9.6, /bin/sh",
        ),
        "dkms": spec("dkms", "3.2.1"),
        "kernel-devel": spec("kernel-devel", version, {f"usr/src/kernels/{KERNEL}/Makefile": ""}, release=release),
        "kernel-headers": spec("kernel-headers", version, release=release),
        "python3-dnf-plugin-versionlock": spec("python3-dnf-plugin-versionlock", "4.3.0", files),
    }


def modules(names: list[str]) -> str:
    """modules.yaml: the streams of two branches, each open and proprietary, as in NVIDIA's repository."""
    text = ""
    for branch, versions in (("580", (OLD, NEW)), ("590", (NEXT_BRANCH,))):
        for kind, other in (("open", "kmod-nvidia-latest-dkms"), ("dkms", "kmod-nvidia-open-dkms")):
            rpms = [
                f"- {name}-{EPOCH}:{version}-1.el9.x86_64" for version in versions for name in names if name != other
            ]
            text += STREAM.format(
                stream=f"{branch}-{kind}", number=20261122, artifacts=indent("\n".join(rpms), " " * 6)
            )
    return text


def make_repositories(root: Path) -> None:
    """`system`, `driver` and `toolkit` below /srv of the root, with the keys `key.asc` and `stranger.asc`."""
    build = root / "root/build"
    build.mkdir(parents=True)
    parts = {
        "system": [of_system(root)],
        "driver": [driver(version) for version in (OLD, NEW, NEXT_BRANCH)],
        "toolkit": [toolkit(TOOLKIT), toolkit("1.21.0")],
    }
    for repository, sets in parts.items():
        listed = []
        for number, packages in enumerate(sets):
            for name, text in packages.items():
                (build / f"{repository}-{name}-{number}.spec").write_text(text)
                version = text.partition("Version: ")[2].partition("\n")[0]
                listed.append(f"/root/build/RPMS/x86_64/{name}-{version}-*.rpm")
        (build / f"{repository}.list").write_text("\n".join(listed))
    (build / "modules.yaml").write_text(modules(list(driver(OLD))))
    done = subprocess.run(["chroot", str(root), "/bin/sh", "-c", BUILD], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the repositories could not be built: {done.stdout}{done.stderr}")
