"""Sweeps that cannot be run."""

from tests.bad_input import Case

CASES = [Case("run.py hydra/sweeper=grid", "needs -m")]
