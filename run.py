"""Train one model or a sweep from a checkout; an installed package has the command `nanosq` instead.

python run.py loss=squentropy                     one run
python run.py -m hydra/sweeper=grid               a sweep
python run.py --help                              every setting
"""

import sys

from nanosq.main import main  # has the function with @hydra.main, a text that tab completion of bash looks for here

if __name__ == "__main__":
    sys.exit(main())
