# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`python -m tests.gpu_host FOLDER [SYSTEM]` makes a host in a folder, for Molecule: debian12 or rocky9."""

import sys
from pathlib import Path

from tests.gpu_host.systems import SYSTEMS, make_base

make_base(Path(sys.argv[1]), SYSTEMS[sys.argv[2] if len(sys.argv) > 2 else "debian12"])
