"""What pyproject.toml says of paths, for `ansible-test units`, which brings a configuration of its own."""

import sys
from pathlib import Path

# The stand-ins are packages by themselves, as they are in their images.
LAB = str(Path(__file__).resolve().parents[2] / "lab")
if LAB not in sys.path:
    sys.path.append(LAB)
