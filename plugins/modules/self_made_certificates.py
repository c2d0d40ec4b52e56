#!/usr/bin/python
# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: self_made_certificates
short_description: Certificates of a CA of one's own for TLS and mTLS, kept and renewed
version_added: 0.1.0
author:
  - speechops.riva maintainers (@speechops)
description:
  - For a start without a CA. It makes a CA, a server certificate and, with O(client), a client certificate, and makes
    them anew where they end soon, are for other names, or are another CA's. What is fine stays.
  - The CA and the server's pair are Secrets of type kubernetes.io/tls; they are written to the API server directly.
    What clients need (C(ca.crt), C(client.crt), C(client.key)) lies in a folder on this machine, which its owner
    alone can read.
  - Private keys are never returned, logged or part of a diff.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
options:
  namespace:
    description: Namespace of the Secrets; it has to be there.
    type: str
    required: true
  ca_secret:
    description: Name of the CA's Secret.
    type: str
    default: riva-ca
  server_secret:
    description: Name of the server's Secret.
    type: str
    default: riva-tls
  client_ca_secret:
    description: Name of the Secret that holds the CA's certificate alone (key C(ca.crt)), for the check of clients.
    type: str
    default: riva-client-ca
  names:
    description: Host names and addresses that the server's certificate is for.
    type: list
    elements: str
    default: []
  client:
    description: Whether clients need a certificate as well.
    type: bool
    default: false
  client_folder:
    description: Folder on this machine for what clients need.
    type: path
    required: true
  days:
    description: Days that the server's and the client's certificates last. The CA lasts ten years.
    type: int
    default: 90
  renew_days:
    description: A certificate that ends within so many days is made anew.
    type: int
    default: 30
  timeout:
    description: Seconds that the apiserver has for its answers.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: full
    description: Shows names, ends and fingerprints.
"""

EXAMPLES = r"""
- name: The certificates are there
  speechops.riva.self_made_certificates:
    kubeconfig: "{{ cluster_kubeconfig }}"
    namespace: traefik
    names: [asr.example.com, 192.0.2.10]
    client: true
    client_folder: ~/.config/speechops/speech
"""

RETURN = r"""
renewed:
  description: What was made, and why.
  type: dict
  returned: success
ca_file:
  description: The CA's certificate on this machine.
  type: str
  returned: success
"""

import base64
import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.speechops.riva.plugins.module_utils import certificates
from ansible_collections.speechops.riva.plugins.module_utils.certificates import CA, CLIENT, SERVER, Pair
from ansible_collections.speechops.riva.plugins.module_utils.cluster import Deadline, auth_argument_spec, connect
from ansible_collections.speechops.riva.plugins.module_utils.cluster_errors import ClusterError
from ansible_collections.speechops.riva.plugins.module_utils.leftovers import MANAGER


def read_secret(cluster, namespace, name):
    """The data of a Secret as text; empty where there is none."""
    data = (cluster.find(f"/api/v1/namespaces/{namespace}/secrets/{name}") or {}).get("data") or {}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def pair_of(data, certificate="tls.crt", key="tls.key"):
    return Pair(data.get(certificate, ""), data.get(key, "")) if data else None


def write_secret(cluster, namespace, name, kind, data):
    item = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": MANAGER}},
        "type": kind,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    cluster.apply(f"/api/v1/namespaces/{namespace}/secrets/{name}", item, MANAGER)


def read_file(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def write_file(path, text):
    """Whole or not at all, and never readable by others, not even for a moment."""
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(partial, path)


class Keeper:
    """What is there, what is wanted, and what has to be written for it."""

    def __init__(self, cluster, params, check_mode):
        self.cluster = cluster
        self.params = params
        self.check_mode = check_mode
        self.renewed = {}
        self.before = {}
        self.after = {}

    def keep(self, what, there, kind, common_name, issuer=None, names=(), days=90, renew_days=30):
        """The pair that is there, where it is as wanted; else a new one."""
        why = certificates.why_renew(there, issuer, names, renew_days)
        self.before[what] = certificates.described(there)
        pair = certificates.issue(kind, common_name, issuer, names, days) if why else there
        if why:
            self.renewed[what] = why
        self.after[what] = certificates.described(pair)
        return pair, bool(why) and not self.check_mode

    def secret(self, name, kind, data):
        write_secret(self.cluster, self.params["namespace"], name, kind, data)

    def run(self):
        params = self.params
        place = params["namespace"]
        times = {"days": params["days"], "renew_days": params["renew_days"]}
        there = pair_of(read_secret(self.cluster, place, params["ca_secret"]))
        ca, write = self.keep("ca", there, CA, "speechops.riva CA", days=certificates.CA_DAYS)
        if write:
            self.secret(params["ca_secret"], "kubernetes.io/tls", {"tls.crt": ca.certificate, "tls.key": ca.key})
        there = pair_of(read_secret(self.cluster, place, params["server_secret"]))
        names = list(dict.fromkeys(params["names"]))
        server, write = self.keep("server", there, SERVER, "riva", ca, names, **times)
        if write:
            data = {"tls.crt": server.certificate, "tls.key": server.key}
            self.secret(params["server_secret"], "kubernetes.io/tls", data)
        self.public("client_ca_secret", read_secret(self.cluster, place, params["client_ca_secret"]), ca)
        self.clients(ca, times)

    def public(self, option, there, ca):
        if there.get("ca.crt") == ca.certificate:
            return
        self.renewed[option] = "it is another certificate" if there else "there is none"
        if not self.check_mode:
            self.secret(self.params[option], "Opaque", {"ca.crt": ca.certificate})

    def clients(self, ca, times):
        """The files on this machine."""
        folder = self.params["client_folder"]
        if read_file(os.path.join(folder, "ca.crt")) != ca.certificate:
            self.renewed["ca.crt"] = f"{folder}/ca.crt is not there, or another CA's"
            if not self.check_mode:
                write_file(os.path.join(folder, "ca.crt"), ca.certificate)
        if not self.params["client"]:
            return
        files = [os.path.join(folder, name) for name in ("client.crt", "client.key")]
        there = Pair(*(read_file(path) for path in files))
        client, write = self.keep("client", there, CLIENT, "riva-client", ca, **times)
        if write:
            write_file(files[1], client.key)
            write_file(files[0], client.certificate)


def shown(parts):
    lines = []
    for what, about in parts.items():
        for key, value in about.items():
            lines.append(f"{what} {key}: {', '.join(value) if isinstance(value, list) else value}")
    return "\n".join(lines) + "\n"


def main():
    spec = auth_argument_spec()
    spec.update(
        namespace={"type": "str", "required": True},
        ca_secret={"type": "str", "default": "riva-ca", "no_log": False},
        server_secret={"type": "str", "default": "riva-tls", "no_log": False},
        client_ca_secret={"type": "str", "default": "riva-client-ca", "no_log": False},
        names={"type": "list", "elements": "str", "default": []},
        client={"type": "bool", "default": False},
        client_folder={"type": "path", "required": True},
        days={"type": "int", "default": 90},
        renew_days={"type": "int", "default": 30},
        timeout={"type": "int", "default": 30},
    )
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    if certificates.MISSING_LIBRARY:
        module.fail_json(msg="The Python package cryptography is missing here: pip install cryptography")
    params = module.params
    if params["renew_days"] >= params["days"]:
        module.fail_json(msg=f"renew_days is {params['renew_days']}: set it to less than days ({params['days']})")
    try:
        keeper = Keeper(connect(module, Deadline(params["timeout"])), params, module.check_mode)
        keeper.run()
    except ClusterError as error:
        module.fail_json(msg=f"The certificates can't be kept in the cluster: {error}\n    {error.remedy}")
    except OSError as error:
        folder = params["client_folder"]
        module.fail_json(msg=f"client_folder is {folder}, where nothing can be written: {error.strerror}")
    module.exit_json(
        changed=bool(keeper.renewed),
        renewed=keeper.renewed,
        ca_file=os.path.join(params["client_folder"], "ca.crt"),
        diff={"before": shown(keeper.before), "after": shown(keeper.after)},
    )


if __name__ == "__main__":
    main()
