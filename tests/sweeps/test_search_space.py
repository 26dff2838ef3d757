"""The space of a search, without the command line."""

from collections.abc import Sequence

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nanosq.sweeps.search_space import SearchSpace

PARAMS = {"optimizer.lr": "tag(log, interval(1e-3, 1e-1))", "model.n_layer": "range(1, 4)", "train.max_steps": "9"}
SPACES = {"loss/squentropy": {"loss.weight": "interval(0, 1)"}, "loss/focal": {"loss.gamma": "interval(0, 3)"}}


def parse(*arguments: str, loss: str = "cross_entropy") -> SearchSpace:
    return SearchSpace.parse(PARAMS, SPACES, arguments, lambda fixed: {"loss": loss})


def drawn(space: SearchSpace, n_trials: int) -> Sequence[tuple[optuna.Trial, list[str]]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask(space.axes) for _ in range(n_trials)]
    return [(trial, space.draw(trial)) for trial in trials]


def test_the_command_line_replaces_the_file() -> None:
    space = parse("optimizer.lr=1e-2", "train.max_steps=choice(5,9)", "~data.tokenizer.pad_to", loss="squentropy")
    assert space.axes == {
        "model.n_layer": IntDistribution(1, 3),
        "train.max_steps": CategoricalDistribution([5, 9]),
        "loss.weight": FloatDistribution(0, 1),
    }
    fixed = ["optimizer.lr=1e-2", "~data.tokenizer.pad_to"]
    assert space.overrides({"loss.weight": None}) == [*fixed, "loss.weight=null"]
    assert space.varies("loss.weight")
    assert not space.varies("loss.weights")


def test_the_axes_of_a_selected_component_are_added() -> None:
    assert set(parse().axes) == {"optimizer.lr", "model.n_layer"}
    assert set(parse(loss="squentropy").axes) == {"optimizer.lr", "model.n_layer", "loss.weight"}
    assert "loss.weight" not in parse("loss.weight=1", loss="squentropy").axes


def test_the_axes_of_a_drawn_component_are_drawn_with_it() -> None:
    space = parse("loss=cross_entropy,squentropy")
    assert set(space.axes) == {"optimizer.lr", "model.n_layer", "loss"}
    for trial, overrides in drawn(space, 8):
        weighted = [override for override in overrides if override.startswith("loss.weight=")]
        assert len(weighted) == (trial.params["loss"] == "squentropy")
        assert not [override for override in overrides if override.startswith("loss.gamma")]
    assert space.varies("loss._target_")


def test_a_drawn_component_replaces_axes_of_all_trials() -> None:
    """Each optimizer has its own interval of learning rates, or a fixed one."""
    params = {"optimizer.lr": "interval(1, 2)", "optimizer": "choice(muon, sgd, adafactor)"}
    spaces = {
        "optimizer/sgd": {"optimizer.lr": "interval(5, 6)", "optimizer.momentum": "choice('a,b')"},
        "optimizer/adafactor": {"optimizer.lr": "9"},
    }
    space = SearchSpace.parse(params, spaces, ["++train.warmup=choice(1,2)"], lambda fixed: {})
    assert set(space.axes) == {"optimizer", "train.warmup"}
    assert space.examples() == {
        "optimizer=muon": ["optimizer=muon", "++train.warmup=1", "optimizer.lr=1.0"],
        "optimizer=sgd": ["optimizer=sgd", "++train.warmup=1", "optimizer.lr=5.0", "optimizer.momentum='a,b'"],
        "optimizer=adafactor": ["optimizer.lr=9", "optimizer=adafactor", "++train.warmup=1"],
    }
    assert space.examples(largest=True)["optimizer=muon"] == ["optimizer=muon", "++train.warmup=2", "optimizer.lr=2.0"]
    seen = set()
    for _, overrides in drawn(space, 12):
        settings = dict(override.split("=") for override in overrides)
        lr, name = float(settings["optimizer.lr"]), settings["optimizer"]
        seen.add(name)
        low, high = {"muon": (1, 2), "sgd": (5, 6), "adafactor": (9, 9)}[name]
        assert low <= lr <= high
        assert settings.get("optimizer.momentum") == ("'a,b'" if name == "sgd" else None)
        assert settings["++train.warmup"] in {"1", "2"}
    assert len(seen) == 3
    fixed = SearchSpace.parse(params, spaces, ["optimizer.lr=7"], lambda fixed: {})
    assert set(fixed.axes) == {"optimizer"}


def test_a_list_is_drawn_as_a_list() -> None:
    space = parse("+optimizer.betas=choice([0.9,0.95],[0.9,0.99])")
    assert space.examples()[""][-1] == "+optimizer.betas=[0.9,0.95]"


def test_listed_seeds_are_no_axis() -> None:
    space = parse("++seed=choice(1,2,1)", "model.n_layer=1")
    assert space.always.seeds == (1, 2)
    assert set(space.axes) == {"optimizer.lr"}
    assert not space.varies("seed")
    assert parse("seed=choice(1,2)", "seed=7").always.fixed["seed"] == "seed=7"  # the last override counts


def test_a_bad_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="low"):
        parse("optimizer.lr=interval(2,1)")
    with pytest.raises(ValueError, match="the seed of loss/focal cannot differ"):
        SearchSpace.parse({}, {"loss/focal": {"seed": "1,2"}}, [], lambda fixed: {})


def test_a_setting_of_a_component_may_be_the_same_in_all_trials() -> None:
    space = parse("optimizer=muon,adamw", "optimizer.weight_decay=0.2")
    assert not space.varies("optimizer.weight_decay")
    assert space.varies("optimizer.momentum")
