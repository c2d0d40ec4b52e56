"""The long tests run on the same fresh lab as the integration tests, with the same services to break.

Those of GPU hosts have hosts of their own.
"""

import pytest

from tests.gpu_host.host import GpuHost
from tests.integration.conftest import frail, installed, lab

__all__ = ["frail", "installed", "lab"]


@pytest.fixture(scope="module")
def host(base, tmp_path_factory):
    """One GPU host for all tests of a file, whose fixture `base` is its distribution."""
    return GpuHost(base, tmp_path_factory.mktemp("host"))


@pytest.fixture
def fresh(base, tmp_path):
    """A GPU host for one test."""
    return GpuHost(base, tmp_path)
