# Copyright: (c) 2026, speechops.riva maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

"""The libraries that a load test or a calibration needs, beside those of the cluster."""

from ansible_collections.speechops.riva.plugins.module_utils.load_streams import RIVA_CLIENT_IMPORT_ERROR
from ansible_collections.speechops.riva.plugins.module_utils.report_page import JINJA2_IMPORT_ERROR
from ansible_collections.speechops.riva.plugins.module_utils.report_pictures import MATPLOTLIB_IMPORT_ERROR

ERRORS = {
    "nvidia-riva-client": RIVA_CLIENT_IMPORT_ERROR,
    "matplotlib": MATPLOTLIB_IMPORT_ERROR,
    "jinja2": JINJA2_IMPORT_ERROR,
}


def missing() -> tuple[str, str] | None:
    """(name, traceback of its import) of the first one that is not there; None where all are."""
    return next(((name, error) for name, error in ERRORS.items() if error), None)
