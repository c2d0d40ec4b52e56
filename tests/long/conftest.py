"""The long tests run on the same fresh lab as the integration tests, with the same services to break."""

from tests.integration.conftest import frail, installed, lab

__all__ = ["frail", "installed", "lab"]
