# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where charts come from and what their archives have to be: tables of cases."""

from __future__ import annotations

import pytest
from ansible_collections.speechops.riva.plugins.module_utils import input_contradictions
from ansible_collections.speechops.riva.plugins.module_utils.chart_sources import (
    Source,
    in_index,
    is_digest,
    is_path,
    normal,
    problem,
    refusal,
)

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("traefik", False),
        ("/srv/charts/traefik", True),
        ("./traefik", True),
        ("~/traefik", True),
        ("traefik-41.3.0.tgz", True),
        ("charts/traefik.tar.gz", True),
        ("oci://registry/traefik", False),
        ("https://mirror.example.com/traefik-41.3.0.tgz", False),
    ],
)
def test_a_chart_on_the_disk(reference, path):
    assert is_path(reference) is path


@pytest.mark.parametrize(
    ("digest", "fine"),
    [
        (A, True),
        (f"sha256:{A}", True),
        (f" SHA256:{A.upper()} ", True),
        (A[:-1], False),
        (f"{A}0", False),
        (f"sha512:{A}", False),
        ("g" * 64, False),
        ("index", False),
        ("", False),
    ],
)
def test_a_digest(digest, fine):
    assert is_digest(digest) is fine
    assert not fine or normal(digest) == A


@pytest.mark.parametrize(
    ("reference", "digest", "words"),
    [
        ("traefik", A, None),
        ("traefik", "index", None),
        ("oci://registry/traefik", f"sha256:{A}", None),
        ("https://mirror.example.com/traefik-41.3.0.tgz", A, None),
        # What lies here is the user's own.
        ("./traefik", "", None),
        ("./traefik", "index", None),
        ("traefik", "", "nothing says which bytes the chart traefik 41.3.0 has"),
        ("oci://registry/traefik", "index", "lies in no repository"),
        ("https://mirror.example.com/traefik-41.3.0.tgz", "index", "lies in no repository"),
        ("traefik", "unverified", "is unverified, which is no SHA-256"),
        ("traefik", A[1:], "is no SHA-256"),
    ],
)
def test_what_pins_a_chart(reference, digest, words):
    wrong = problem(Source(reference, "41.3.0", "https://charts.example.com", digest, "traefik_chart_digest"))
    assert (wrong is None) if words is None else (words in wrong[0] and "traefik_chart_digest" in wrong[1])


ENTRIES = {
    "traefik": [
        {"version": "41.3.0", "digest": A},
        {"version": "v41.2.0", "digest": f"sha256:{B}"},
        {"version": "1.0.0"},
    ]
}


@pytest.mark.parametrize(
    ("index", "name", "version", "digest"),
    [
        ({"entries": ENTRIES}, "traefik", "41.3.0", A),
        ({"entries": ENTRIES}, "traefik", "v41.3.0", A),
        ({"entries": ENTRIES}, "traefik", "41.2.0", B),
        # Nexus writes none.
        ({"entries": ENTRIES}, "traefik", "1.0.0", ""),
        ({"entries": ENTRIES}, "traefik", "41.3.1", ""),
        ({"entries": ENTRIES}, "other", "41.3.0", ""),
        ({"entries": {"traefik": [{"version": "41.3.0", "digest": "sha512:1"}]}}, "traefik", "41.3.0", ""),
        ({"entries": {"traefik": [None, "text"]}}, "traefik", "41.3.0", ""),
        ({"entries": {"traefik": None}}, "traefik", "41.3.0", ""),
        ({"entries": None}, "traefik", "41.3.0", ""),
        ("<html>", "traefik", "41.3.0", ""),
        (None, "traefik", "41.3.0", ""),
    ],
)
def test_the_digest_in_an_index(index, name, version, digest):
    assert in_index(index, name, version) == digest


@pytest.mark.parametrize(
    ("digest", "indexed", "words"),
    [
        (A, B, ["keda_chart_digest belongs to another version than 2.20.2", "replaced after it was published"]),
        (A, A, ["this one was changed. Do not use it."]),
        (A, "", ["Set keda_chart_digest together with the chart's version"]),
        ("index", A, ["not the one that the repository's index names", "this one was changed"]),
    ],
)
def test_what_is_said_of_another_archive(digest, indexed, words):
    said = refusal(Source("keda", "2.20.2", "https://charts", digest, "keda_chart_digest"), A, B, indexed)
    assert f"wanted: sha256:{A}" in said
    assert f"got:    sha256:{B}" in said
    assert "keda 2.20.2" in said
    assert all(part in said for part in words)


OPTIONS = {
    "keda_chart_ref": {"default": "keda"},
    "keda_chart_version": {"default": "2.20.2"},
    "keda_chart_digest": {"default": A},
    "traefik_chart_ref": {"default": "traefik"},
    "traefik_chart_version": {"default": "41.3.0"},
    "traefik_chart_digest": {"default": "index"},
    "riva_chart_ref": {},
    "riva_chart_version": {"default": ""},
    "riva_chart_digest": {"default": ""},
}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, []),
        ({"keda_chart_version": "2.20.2"}, []),
        ({"keda_chart_version": "2.21.0", "keda_chart_digest": B}, []),
        ({"keda_chart_version": "2.21.0", "keda_chart_digest": "index"}, []),
        ({"keda_chart_version": "2.21.0"}, ["keda_chart_digest is still the one of 2.20.2"]),
        ({"keda_chart_version": "2.21.0", "keda_chart_ref": "./keda"}, []),
        ({"keda_chart_ref": "oci://registry/keda"}, []),
        ({"keda_chart_digest": ""}, ["nothing says which bytes"]),
        # Traefik's own index is for the version that was tested; another one is the user's word.
        ({"traefik_chart_version": "41.4.0"}, ["traefik_chart_digest is still the one of 41.3.0"]),
        ({"traefik_chart_version": "41.4.0", "traefik_chart_digest": "index"}, []),
        ({"traefik_chart_ref": "oci://registry/traefik"}, ["lies in no repository"]),
        ({"riva_chart_version": "1.0.0"}, []),
        ({"riva_chart_ref": "/srv/riva"}, []),
        ({"riva_chart_ref": "oci://registry/riva", "riva_chart_version": "1.0.0"}, ["riva_chart_digest is empty"]),
        ({"riva_chart_ref": "oci://registry/riva", "riva_chart_version": "1.0.0", "riva_chart_digest": B}, []),
    ],
)
def test_versions_and_digests_that_do_not_go_together(variables, words):
    found = input_contradictions.check_chart_digests(OPTIONS, variables)
    assert len(found) == len(words)
    assert all(part in item["message"] for part, item in zip(words, found, strict=True))
