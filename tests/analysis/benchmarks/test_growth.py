"""Growth in words."""

import math

import pytest

from analysis.benchmarks.growth import AXES
from analysis.benchmarks.lib.growth import exponent, in_words, show_curves, slope

SIZES = [1, 2, 4, 8, 16]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponent_of_a_power_is_its_exponent(power: float) -> None:
    assert exponent(SIZES, [3.0 * size**power for size in SIZES]) == pytest.approx(power, abs=1e-12)


def test_exponent_of_one_size_is_unknown() -> None:
    assert math.isnan(exponent([2], [1.0]))


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (-0.5, "falling with depth"),
        (0.03, "independent of depth"),
        (0.7, "less than linear in depth"),
        (1.02, "linear in depth"),
        (1.4, "more than linear in depth"),
        (1.95, "quadratic in depth"),
        (2.5, "more than quadratic in depth"),
    ],
)
def test_words(power: float, words: str) -> None:
    assert in_words("depth", power) == words


def test_linear_growth_has_no_more_words() -> None:
    assert slope("tokens", SIZES, [5.0 * size for size in SIZES]) == "linear in tokens: exponent 1.00"


def test_fixed_part_is_found() -> None:
    text = slope("depth", SIZES, [10.0 + 2.0 * size for size in SIZES])
    assert text.startswith("less than linear in depth: exponent 0.4")
    assert text.endswith("from 8 to 16; about 10 + 2 x depth")


def test_size_that_did_not_fit_is_left_out() -> None:
    assert slope("tokens", SIZES, [1.0, 2.0, 4.0, 8.0, math.nan]) == "linear in tokens: exponent 1.00"
    assert slope("tokens", SIZES, [1.0, 2.0, math.nan, math.nan, math.nan]) == "too few values"


def test_curves_fit_into_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    times = [12.345, 24.69, 49.38, 98.76, math.nan]
    show_curves("tokens", [1024 * size for size in SIZES], {"cross_entropy, head": times})
    header, row, _, words = capsys.readouterr().out.splitlines()
    assert header.split() == ["tokens", "1,024", "2,048", "4,096", "8,192", "16,384"]
    assert row.split()[2:] == ["12.3", "24.7", "49.4", "98.8", "\N{EN DASH}"]
    assert max(len(header), len(row)) <= 80
    assert words == "cross_entropy, head: linear in tokens: exponent 1.00"


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
def test_one_size_changes_on_an_axis(axis) -> None:
    fields = ("n_layer", "n_embd", "vocab_size", "block_size", "batch_size")
    values = {name: [getattr(shape, name) for shape in axis.shapes.values()] for name in fields}
    assert [*axis.shapes] in values.values()
    assert all(shape.n_embd % shape.n_head == 0 for shape in axis.shapes.values())
    if axis.name == "block size":
        assert len({shape.tokens for shape in axis.shapes.values()}) == 1
    else:
        assert sum(len({*sizes}) > 1 for sizes in values.values()) == 1
