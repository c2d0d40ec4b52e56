# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Python's kubernetes library without its 700 models.

Its packages import every model and every API class when they are first named: 0.3 s and 40 MB in each module's process,
which read plain JSON and protobuf and use of it the configuration and the connection pool. After `prepare()` a package
is there without what its __init__ imports; the first name asked of it that is no module of its own runs that __init__,
so whoever does want a model gets it. `importlib.util.LazyLoader` can't do it: it loads a package as soon as one of its
modules is imported.
"""

import importlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

PACKAGES = ("kubernetes", "kubernetes.client", "kubernetes.client.models")
# What kubernetes.config and kubernetes.dynamic take from kubernetes.client, and the module that has it.
NAMES = {"Configuration": "configuration", "ApiClient": "api_client", "ApiException": "exceptions"}


def postponed(name: str) -> ModuleType:
    """A package in sys.modules whose __init__ runs at the first name that none of its modules has."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"No module named {name!r}", name=name)
    package, loader = importlib.util.module_from_spec(spec), spec.loader

    def missing(attribute: str):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if importlib.util.find_spec(f"{name}.{attribute}"):
            return importlib.import_module(f"{name}.{attribute}")
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = missing
    sys.modules[name] = package
    return package


def prepare() -> None:
    """Makes the packages light, where nobody has imported them yet.

    Raises:
        ImportError: the library is not there.
    """
    if "kubernetes" in sys.modules:
        return
    try:
        packages = {name: postponed(name) for name in PACKAGES}
        # kubernetes.dynamic asks for it while it is imported itself, too early for the whole __init__.
        packages["kubernetes"].__dict__["__version__"] = version("kubernetes")
        for name, module in NAMES.items():
            source = importlib.import_module(f"kubernetes.client.{module}")
            packages["kubernetes.client"].__dict__[name] = getattr(source, name)
    except (AttributeError, PackageNotFoundError):
        # Another layout than that of the versions from 24 to 37: as everybody else then.
        for name in [entry for entry in sys.modules if entry.split(".")[0] == "kubernetes"]:
            del sys.modules[name]
