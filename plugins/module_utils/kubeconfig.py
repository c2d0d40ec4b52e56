# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""Which kubeconfig is meant, and what is wrong with it, before the client says that «no configuration» was found."""

import os
from collections.abc import Mapping

from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import KubeconfigError


def local_path(text: str) -> str:
    """A path with ~ for the home, of an option that may also be something else and so has no type of its own."""
    return os.path.expanduser(text)


def first_kubeconfig(params: Mapping, environment: Mapping = os.environ) -> tuple[str, str] | None:
    """(path, where it was set) of the kubeconfig named by option or environment, None where neither does."""
    if any(params.get(option) or environment.get(f"K8S_AUTH_{option.upper()}") for option in ("host", "api_key")):
        return None
    value = params.get("kubeconfig")
    if isinstance(value, str) and value:
        return value, "option kubeconfig"
    if value:
        return None
    for name in ("K8S_AUTH_KUBECONFIG", "KUBECONFIG"):
        if environment.get(name):
            return environment[name], f"environment variable {name}"
    return None


def check_kubeconfig(params: Mapping, environment: Mapping = os.environ) -> None:
    """Says which file is missing before the client says that «no configuration» was found."""
    found = first_kubeconfig(params, environment)
    if not found:
        return
    value, source = found
    paths = [local_path(path) for path in value.split(os.pathsep) if path]
    if not any(os.path.exists(path) for path in paths):
        raise KubeconfigError(
            f"the kubeconfig {value} does not exist (set by {source})",
            "set cluster_kubeconfig (or the option kubeconfig) to an existing file",
        )
    for path in paths:
        if os.path.isdir(path) or (os.path.exists(path) and not os.access(path, os.R_OK)):
            raise KubeconfigError(
                f"the kubeconfig {path} can't be read (set by {source})",
                "name a file that this user can read",
            )


def reveal_kubeconfig_path(module) -> None:
    """kubernetes.core hides the whole option; a path is no secret, and a message without it helps nobody."""
    value = module.params.get("kubeconfig")
    if isinstance(value, str) and "\n" not in value and not value.lstrip().startswith("{"):
        module.no_log_values.discard(value)


def check_files(configuration) -> None:
    """Certificates and keys are files; the pool would only miss them at the first request, without their name."""
    for attribute, option in (
        ("ssl_ca_cert", "ca_cert"),
        ("cert_file", "client_cert"),
        ("key_file", "client_key"),
    ):
        path = getattr(configuration, attribute, None)
        if path and not os.access(path, os.R_OK):
            raise KubeconfigError(
                f"the file {path} can't be read (option {option}, or the kubeconfig)",
                f"set {option} to a file that this user can read",
            )
