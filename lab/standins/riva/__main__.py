"""`python3 -m standins.riva` is the same as `python3 -m standins.riva.start`."""

import sys

from .start import main

sys.exit(main())
