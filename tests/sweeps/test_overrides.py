"""Overrides that are left to the trials of a sweep, without the command line."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nanosq.sweeps import overrides

TEXTS = [
    *[
        "loss.weight=0.01",
        "loss.b=null",
        "loss.b=",
        "loss.b=true",
        "+loss.b=1",
        "++loss.b=x y",
        "~loss.b",
        "~loss.b=3",
        "loss.b=int(3)",
    ],
    *[
        "loss.b='1'",
        "loss.b='c,d'",
        'loss.b="it\'s"',
        "loss.b='back\\\\'",
        "loss.b=c\\,d",
        "loss.b=[1,'c d']",
        "loss.b={c: [1], d: e}",
    ],
    *["loss.b=${seed}", "loss.b=${oc.env:X,y}", "loss.b='choice(1)'", "loss.b=s/*.txt"],
]
KEPT = [
    "loss.b=1,2",
    "loss.b=choice(1)",
    "loss.b=interval(1,2)",
    "seed=3",
    "loss=focal",
    "hydra.job.num=1",
    "a/b=c",
    "--cfg",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_deferred_override_keeps_its_text(text: str) -> None:
    flag, deferred = overrides.defer(["-m", text])
    (override,) = OverridesParser.create().parse_overrides([deferred])
    assert flag == "-m"
    assert override.is_sweep_override()  # Hydra's first composition leaves it out
    assert not overrides.is_axis(override)
    assert overrides.text(override) == text


@pytest.mark.parametrize("arguments", [["loss.b=1"], ["--help", "-m", "loss.b=1"], ["-m", "loss.b=(1)"], ["-m", *KEPT]])
def test_other_arguments_stay(arguments: list[str]) -> None:
    assert overrides.defer(arguments) == arguments
