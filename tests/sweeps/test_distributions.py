"""Overrides as distributions of Optuna, by the rules that hydra-optuna-sweeper documents."""

from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from nanosq.sweeps import distributions

PARSER = OverridesParser.create()


def parse(value: str) -> BaseDistribution:
    (override,) = PARSER.parse_overrides([f"key={value}"])
    return distributions.from_override(override)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("choice(1, 2.5, adam)", CategoricalDistribution([1, 2.5, "adam"])),
        ("1,2", CategoricalDistribution([1, 2])),
        ("choice('a,b', c)", CategoricalDistribution(["a,b", "c"])),
        ("choice([0.9, 0.95], [0.9, 0.99])", CategoricalDistribution(["[0.9,0.95]", "[0.9,0.99]"])),
        ("sort(3, 1, 2)", CategoricalDistribution([1, 2, 3])),
        ("float(choice(1, 2))", CategoricalDistribution([1.0, 2.0])),
        ("float(range(1, 4))", CategoricalDistribution([1.0, 2.0, 3.0])),
        ("range(1, 4)", IntDistribution(1, 3)),
        ("range(1, 10, 3)", IntDistribution(1, 7, step=3)),
        ("range(4, 1, -1)", IntDistribution(2, 4)),
        ("range(0.1, 0.5, 0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("range(1, 2, 0.3)", FloatDistribution(1.0, 1.9, step=0.3)),
        ("interval(1, 3)", FloatDistribution(1, 3)),
        ("int(interval(1, 3))", IntDistribution(1, 3)),
        ("tag(log, interval(1e-3, 1))", FloatDistribution(1e-3, 1, log=True)),
        ("tag(log, int(interval(1, 9)))", IntDistribution(1, 9, log=True)),
    ],
)
def test_distribution_of_an_override(value: str, expected: BaseDistribution) -> None:
    assert parse(value) == expected


def test_shuffled_range_is_a_choice() -> None:
    shuffled = parse("shuffle(range(1, 4))")
    assert isinstance(shuffled, CategoricalDistribution)
    assert sorted(shuffled.choices) == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("range(1, 1)", r"key=range\(1, 1\) has no value"),
        ("range(0, 3, 0)", "a step that is not 0"),
        ("interval(2, 1)", "the lower one first"),
        ("glob(*)", "list the values"),
    ],
)
def test_bad_override_is_refused(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(value)


@pytest.mark.parametrize(
    ("value", "points"),
    [
        ("choice(b, a)", ["b", "a"]),
        ("range(1, 10, 3)", [1, 4, 7]),
        ("range(0.1, 0.5, 0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("range(0.5, 0.6)", [0.5]),
    ],
)
def test_grid_points(value: str, points: list[Any]) -> None:
    assert [*distributions.grid_points(parse(value))] == points


def test_an_interval_has_no_grid_points() -> None:
    with pytest.raises(ValueError, match="not intervals"):
        distributions.grid_points(parse("interval(0, 1)"))


@pytest.mark.parametrize("value", ["choice(a, b)", "range(1, 9, 2)", "interval(0, 1)", "tag(log, interval(1e-3, 1))"])
def test_suggest_draws_from_the_distribution(value: str) -> None:
    distribution = parse(value)
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    distributions.suggest(trial, "key", distribution)
    assert trial.distributions == {"key": distribution}
    assert "key" in trial.params


@pytest.mark.parametrize(
    "value", [None, True, 3, 1e-05, "adam", "a,b", "it's", "C:\\dir\\", "a b", "[0.9,0.95]", "{a:1}"]
)
def test_override_text_is_parsed_as_the_value(value: Any) -> None:
    (override,) = PARSER.parse_overrides([f"key={distributions.override_text(value)}"])
    assert override.value() == {"[0.9,0.95]": [0.9, 0.95], "{a:1}": {"a": 1}}.get(value, value)


@pytest.mark.parametrize(
    ("override", "value", "expected"),
    [
        ("interval(0, 1)", 0, 0.0),
        ("interval(0, 1)", "1e-3", 0.001),
        ("tag(log, interval(1e-3, 1))", 1, 1.0),
        ("range(1, 9, 2)", 3.0, 3),
        ("range(1, 9, 2)", "5", 5),
        ("range(0.1, 0.5, 0.1)", 0.3, 0.3),
        ("choice(1, 2.5)", 2.5, 2.5),
        ("choice(1, adam)", "1", 1),
        ("choice(1, adam)", "adam", "adam"),
        ("choice('a,b', c)", "a,b", "a,b"),
        ("choice(true, false)", "True", True),
        ("null,0.5", None, "null"),
        ("[0.9,0.95],[0.9,0.99]", [0.9, 0.99], "[0.9,0.99]"),
        ("[0.9,0.95],[0.9,0.99]", "[0.9, 0.99]", "[0.9,0.99]"),
    ],
)
def test_the_parameter_of_a_value(override: str, value: Any, expected: Any) -> None:
    parameter = distributions.parameter(parse(override), value)
    assert parameter == expected
    assert type(parameter) is type(expected)


@pytest.mark.parametrize(
    ("override", "value", "message"),
    [
        ("interval(0, 1)", 1.5, "0.0 to 1.0"),
        ("interval(0, 1)", True, "0.0 to 1.0"),
        ("interval(0, 1)", None, "0.0 to 1.0"),
        ("interval(0, 1)", "soon", "0.0 to 1.0"),
        ("range(1, 9)", 1.5, "1 to 8"),
        ("range(1, 9, 2)", 2, "1 to 7 in steps of 2"),
        ("range(0.1, 0.5, 0.1)", 0.25, "0.1 to 0.4 in steps of 0.1"),
        ("choice(1, 2)", True, "one of 1, 2"),
        ("choice(adam, sgd)", None, "one of adam, sgd"),
    ],
)
def test_a_value_outside_of_a_distribution(override: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        distributions.parameter(parse(override), value)
