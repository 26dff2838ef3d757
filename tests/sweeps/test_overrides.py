"""Overrides that are left to the trials of a sweep, without the command line."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nanosq.sweeps import overrides

TEXTS = [
    *["loss.weight=0.01", "a.b=null", "a.b=", "a.b=true", "+a.b=1", "++a.b=x y", "~a.b", "~a.b=3", "a.b=int(3)"],
    *["a.b='1'", "a.b='c,d'", 'a.b="it\'s"', "a.b='back\\\\'", "a.b=c\\,d", "a.b=[1,'c d']", "a.b={c: [1], d: e}"],
    *["a.b=${seed}", "a.b=${oc.env:X,y}", "a.b='choice(1)'", "a.b=s/*.txt"],
]
KEPT = ["a.b=1,2", "a.b=choice(1)", "a.b=interval(1,2)", "seed=3", "loss=focal", "hydra.job.num=1", "a/b=c", "--cfg"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_deferred_override_keeps_its_text(text: str) -> None:
    flag, deferred = overrides.defer(["-m", text])
    (override,) = OverridesParser.create().parse_overrides([deferred])
    assert flag == "-m"
    assert override.is_sweep_override()  # Hydra's first composition leaves it out
    assert not overrides.is_axis(override)
    assert overrides.text(override) == text


@pytest.mark.parametrize("arguments", [["a.b=1"], ["--help", "-m", "a.b=1"], ["-m", "a.b=(1)"], ["-m", *KEPT]])
def test_other_arguments_stay(arguments: list[str]) -> None:
    assert overrides.defer(arguments) == arguments
