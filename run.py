"""Train one model or a sweep from a checkout; an installed package has the command `nanosq` instead.

python run.py loss=squentropy                     one run
python run.py -m hydra/sweeper=grid               a sweep
python run.py --help                              every setting
"""

import sys

# The completion of commands in bash works only for a file that contains the text @hydra.main.
from nanosq.main import main

if __name__ == "__main__":
    sys.exit(main())
