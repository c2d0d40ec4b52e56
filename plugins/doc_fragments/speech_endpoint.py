# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    # How a module that sends streams finds its way to the server, and what a stream is like.
    DOCUMENTATION = r"""
options:
  balancer_namespace:
    description: Namespace of the load balancer's Service; used without O(endpoint).
    type: str
    default: traefik
  balancer_service:
    description: Name of the load balancer's Service; used without O(endpoint).
    type: str
    default: traefik
  tls:
    description: Whether the endpoint speaks TLS.
    type: bool
    default: false
  tls_ca_file:
    description: CA certificates of the endpoint, in PEM; the system's where left out.
    type: path
  tls_certificate_file:
    description: Certificate of this client, in PEM.
    type: path
  tls_key_file:
    description: Key of O(tls_certificate_file), in PEM.
    type: path
  tls_server_name:
    description:
      - Name that the endpoint's certificate is for; O(route_host) where left out, the endpoint's address where empty.
    type: str
  chunk_duration_ms:
    description: Length of the pieces in which the audio is sent.
    type: int
    default: 160
  language_code:
    description: Language that the streams ask for.
    type: str
    default: en-US
  stop_with_process:
    description:
      - Number of a process on the same machine; the module stops when that process is gone.
      - With a local connection it is set to Ansible's own process, so that no load goes on without it.
    type: int
requirements:
  - python >= 3.11
  - kubernetes >= 24.2.0
  - the collection kubernetes.core
  - nvidia-riva-client >= 2.28.0
"""
