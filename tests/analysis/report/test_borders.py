"""The best values at the border of a space, and the wider space, which Hydra must be able to read."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.report.borders import Axis, side, wider
from nanosq.sweeps.distributions import from_override

LOG = FloatDistribution(1e-3, 1e-1, log=True)
LINEAR = FloatDistribution(0.0, 0.2)
LAYERS = IntDistribution(1, 4)


@pytest.mark.parametrize(
    ("axis", "value", "border"),
    [
        *[(LOG, 1e-3, "lower"), (LOG, 1.25e-3, "lower"), (LOG, 1.3e-3, ""), (LOG, 0.05, ""), (LOG, 0.08, "upper")],
        *[(LINEAR, 0.01, "lower"), (LINEAR, 0.011, ""), (LINEAR, 0.19, "upper"), (LINEAR, 0.1, "")],
        *[(LAYERS, 1, "lower"), (LAYERS, 2, ""), (LAYERS, 3, ""), (LAYERS, 4, "upper")],
        (FloatDistribution(1.0, 1.0), 1.0, ""),
    ],
)
def test_border(axis: Axis, value: float, border: str) -> None:
    assert side(axis, value) == border


@pytest.mark.parametrize(
    ("axis", "border", "expected"),
    [
        (LOG, "upper", FloatDistribution(1e-3, 1.0, log=True)),
        (LOG, "lower", FloatDistribution(1e-4, 1e-1, log=True)),
        (LINEAR, "lower", None),
        (LINEAR, "upper", FloatDistribution(0.0, 0.4)),
        (FloatDistribution(0.0, 3.0), "upper", FloatDistribution(0.0, 6.0)),
        (FloatDistribution(-1.0, 3.0), "lower", FloatDistribution(-5.0, 3.0)),
        (FloatDistribution(0.5, 2.0), "lower", FloatDistribution(0.0, 2.0)),
        (LAYERS, "lower", None),
        (LAYERS, "upper", IntDistribution(1, 7)),
        (IntDistribution(8, 12), "lower", IntDistribution(4, 12)),
        (IntDistribution(16, 64, log=True), "upper", IntDistribution(16, 640, log=True)),
    ],
)
def test_wider_space(axis: Axis, border: str, expected: Axis | None) -> None:
    text = wider(axis, border)
    actual = from_override(OverridesParser.create().parse_override(f"a={text}")) if text else None
    assert actual == expected
