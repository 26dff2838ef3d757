"""Analysis of recorded runs, and benchmarks. Run `python -m analysis.<name>` in the root of the repository."""

import sys

from nanosq import command

sys.excepthook = command.show_interruption
