"""The combinations of a grid."""

from collections.abc import Sequence

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from nanosq.errors import InputError
from nanosq.sweeps import grid
from tests.commandline import ROOT

AXES = ("optimizer.lr=0.001,0.002", "model.n_layer=1,2")


def combinations(*arguments: str, paired: Sequence[str] = ()) -> list[list[str]]:
    return grid.combinations(OverridesParser.create().parse_overrides([*AXES, *arguments]), paired=paired)


def test_the_last_axis_changes_fastest() -> None:
    assert combinations("model.n_head=5,6") == [
        [f"optimizer.lr={lr}", f"model.n_layer={n_layer}", f"model.n_head={n_head}"]
        for lr in ("0.001", "0.002")
        for n_layer in ("1", "2")
        for n_head in ("5", "6")
    ]


def test_the_grid_of_listing_a3_has_27_trials_in_the_order_of_its_loops() -> None:
    params = yaml.safe_load((ROOT / "conf/hydra/sweeper/grid.yaml").read_text())["params"]
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    steps = ["train.max_steps=50", "train.batch_size=4", "train.eval_every=\\${train.max_steps}"]
    rest = ["optimizer=adamw", *steps, "samples.count=0"]
    assert grid.combinations(overrides) == [
        [f"optimizer.lr={lr}", f"model.dropout={dropout}", f"model.n_layer={n_layer}", *rest]
        for lr in ("6e-06", "0.0006", "0.06")
        for dropout in ("0.0", "0.1", "0.2")
        for n_layer in ("8", "12", "16")
    ]


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_later_axis_takes_the_place_of_an_earlier_one_and_keeps_its_prefix(prefix: str) -> None:
    assert combinations(f"{prefix}optimizer.lr=0.003,0.004", "model.n_layer=1") == [
        [f"{prefix}optimizer.lr=0.003", "model.n_layer=1"],
        [f"{prefix}optimizer.lr=0.004", "model.n_layer=1"],
    ]


def test_a_deleted_key_is_deleted_in_every_trial() -> None:
    assert combinations("model.n_layer=1", "~train.patience") == [
        ["optimizer.lr=0.001", "model.n_layer=1", "~train.patience"],
        ["optimizer.lr=0.002", "model.n_layer=1", "~train.patience"],
    ]


def test_paired_axes_are_combined_value_by_value() -> None:
    assert combinations("model.n_head=5,6", paired=["optimizer.lr", "model.n_head"]) == [
        ["optimizer.lr=0.001", "model.n_head=5", "model.n_layer=1"],
        ["optimizer.lr=0.001", "model.n_head=5", "model.n_layer=2"],
        ["optimizer.lr=0.002", "model.n_head=6", "model.n_layer=1"],
        ["optimizer.lr=0.002", "model.n_head=6", "model.n_layer=2"],
    ]


@pytest.mark.parametrize(
    ("arguments", "paired", "message"),
    [
        (["model.n_head=5,6,7"], ["optimizer.lr", "model.n_head"], "not optimizer.lr 2, model.n_head 3"),
        ([], ["sed"], "sed is not an axis; the axes are optimizer.lr, model.n_layer"),
        (["train.warmup=interval(0, 1)"], [], "a grid takes lists of values"),
    ],
)
def test_a_bad_grid_is_refused(arguments: list[str], paired: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        combinations(*arguments, paired=paired)
