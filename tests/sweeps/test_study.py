"""Studies in SQLite, without the command line."""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from nanosq import config
from nanosq.errors import InputError
from nanosq.sweeps.optuna_sweeper import OptunaSearch
from nanosq.sweeps.search_space import Space
from nanosq.sweeps.study import Study, connect, unused
from tests.commandline import ROOT, environment

SPACE = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "model.n_layer": CategoricalDistribution([1, 2])}
PRUNERS = sorted((ROOT / "conf/hydra/sweeper/pruner").glob("*.yaml"))
SAMPLERS = ConfigStore.instance().repo["hydra"]["sweeper"]["sampler"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def begin(url: str, **changed: Any) -> Study:
    as_it_was: dict[str, Any] = {
        "directions": ["minimize"],
        "sampler": lambda n: optuna.samplers.RandomSampler(seed=n),
        "pruner": optuna.pruners.NopPruner(),
        "space": SPACE,
        "settings": {"train.max_steps": 200, "loss.weight": 1.0},
    }
    return Study("a study", url, **as_it_was | changed)


def search(sampler: Any, params: Mapping[str, str]) -> OptunaSearch:
    return OptunaSearch(
        sampler=sampler,
        pruner=OmegaConf.create({"_target_": "optuna.pruners.NopPruner"}),
        direction="minimize",
        objectives=["val/perplexity"],
        storage="sqlite:///optuna.db",
        study_name=None,
        n_trials=7,
        n_jobs=1,
        max_failure_rate=1.0,
        custom_search_space=None,
        params=params,
        spaces={},
    )


def test_trials_up_to_a_total(url: str) -> None:
    study = begin(url)
    first = study.take(2, total=3)
    assert [trial.number for trial in first] == [0, 1]
    (last,) = study.take(2, total=3)
    assert study.take(1, total=3) == []
    for trial in (*first, last):
        study.tell(trial, TrialState.COMPLETE, [1.0])
    assert study.take(1, total=3) == []
    assert unused("a study", url) == "a study-2"
    assert unused("another", url) == "another"
    (more,) = study.take(5, total=4)
    assert more.number == 3
    study.release()
    assert study.trials[3].state is TrialState.WAITING


def test_what_is_given_back_is_taken_first_and_is_as_it_was(url: str) -> None:
    study = begin(url)
    given, kept = study.take(2, total=9)
    params = given.params
    study.tell(kept, TrialState.PRUNED)
    study.release()
    again, new = begin(url).take(2, total=9)
    assert (again.number, again.params) == (0, params)
    assert new.number == 2


def test_a_trial_is_taken_up_once_its_process_is_gone(url: str) -> None:
    """And not before, whoever asks."""
    script = f"""
from tests.sweeps.test_study import begin
study = begin({url!r})
(trial,) = study.take(1, total=2)
print(trial.params["optimizer.lr"], flush=True)
input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    lr = float(holder.stdout.readline())
    other = begin(url)
    assert [trial.number for trial in other.take(2, total=2)] == [1]
    assert other.trials[0].state is TrialState.RUNNING
    holder.kill()
    holder.wait()
    (taken_up,) = other.take(2, total=2)
    assert (taken_up.number, taken_up.params["optimizer.lr"]) == (0, lr)


def test_a_trial_that_is_told_of_while_another_looks_stays_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is free by the time that the other, who has seen it running, gets to it."""
    study, other = begin(url), begin(url)
    (trial,) = study.take(1, total=1)
    seen = other.study.get_trials()
    study.tell(trial, TrialState.COMPLETE, [1.0])
    with monkeypatch.context() as late:
        late.setattr(Study, "trials", property(lambda self: seen))
        other._put_back()
    assert [trial.state for trial in other.trials] == [TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": ["maximize"]}, "hydra.sweeper.direction=minimize, not maximize"),
        ({"space": {**SPACE, "model.n_layer": CategoricalDistribution([1, 2, 3])}}, "model.n_layer=Categorical"),
        ({"settings": {"train.max_steps": 200, "loss.weight": 0.1}}, "loss.weight=1.0, not 0.1"),
        ({"settings": {"train.max_steps": 200}}, "loss.weight=1.0, not one of several"),
        ({"settings": {"train.max_steps": 200, "loss.weight": 1, "seeds": 2}}, "seeds=one of several, not 2"),
    ],
)
def test_a_study_stays_what_it_was_begun_as(url: str, change: dict[str, Any], message: str) -> None:
    study = begin(url)
    (trial,) = study.take(1, total=1)
    study.tell(trial, TrialState.COMPLETE, [1.0])
    with pytest.raises(InputError, match=r"hydra\.sweeper\.study_name=") as caught:
        begin(url, **change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wider_interval_is_the_same_study(url: str) -> None:
    study = begin(url)
    (trial,) = study.take(1, total=1)
    study.tell(trial, TrialState.COMPLETE, [1.0])
    begin(url, space={**SPACE, "optimizer.lr": FloatDistribution(1e-5, 1.0, log=True)})


@pytest.mark.parametrize("bad", [None, "mysql://host/optuna", "optuna.db", "sqlite:////dev/null/optuna.db"])
def test_a_storage_that_cannot_be_used_is_one_line(bad: str | None) -> None:
    with pytest.raises(InputError, match=r"hydra\.sweeper\.storage") as caught:
        connect(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name.removesuffix(".yaml") for name in SAMPLERS if name != "motpe.yaml"])
def test_every_sampler_of_the_plugin(name: str, url: str) -> None:
    params = {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))", "model.dropout": "interval(0, 0.2)"}
    if name == "grid":
        params = {"optimizer.lr": "choice(1e-4, 1e-3, 1e-2)", "model.n_layer": "range(1, 3)"}
    space = Space.parse(params, {}, [], lambda fixed: {})
    node = OmegaConf.merge(SAMPLERS[f"{name}.yaml"].node, {"seed": 1})
    sampler, total = search(node, params)._sampler(space)
    assert total == (6 if name == "grid" else 7)
    study = begin(url, sampler=sampler, space=space.axes)
    while taken := study.take(1, total=total):
        study.tell(taken[0], TrialState.COMPLETE, [taken[0].params["optimizer.lr"]])
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: total}
    assert len({str(trial.params) for trial in study.trials}) == total


def test_a_seeded_search_that_goes_on_draws_new_trials(url: str) -> None:
    space = Space.parse({"optimizer.lr": "interval(0, 1)"}, {}, [], lambda fixed: {})
    node = OmegaConf.merge(SAMPLERS["tpe.yaml"].node, {"seed": 1})
    for total in (2, 4):
        sampler, _ = search(node, {})._sampler(space)
        study = begin(url, sampler=sampler, space=space.axes)
        while taken := study.take(1, total=total):
            study.tell(taken[0], TrialState.COMPLETE, [1.0])
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 4


@pytest.mark.parametrize("path", PRUNERS, ids=lambda path: path.stem)
def test_every_pruner_is_one_of_optuna(path: Path) -> None:
    assert isinstance(config.load(path), optuna.pruners.BasePruner)


def test_a_space_of_components_with_axes_of_their_own() -> None:
    """Where the optimizer is drawn, so is its learning rate from its own interval; a fixed value holds as well."""
    params = {"optimizer.lr": "interval(1, 2)", "optimizer": "choice(muon, sgd, adafactor)"}
    spaces = {
        "optimizer/sgd": {"optimizer.lr": "interval(5, 6)", "optimizer.momentum": "choice('a,b')"},
        "optimizer/adafactor": {"optimizer.lr": "9"},
    }
    space = Space.parse(params, spaces, ["++train.warmup=choice(1,2)"], lambda fixed: {})
    assert set(space.axes) == {"optimizer", "train.warmup"}
    assert space.example() == ["optimizer=muon", "++train.warmup=1", "optimizer.lr=1.0"]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(12):
        trial = study.ask(space.axes)
        settings = dict(override.split("=") for override in space.overrides(trial))
        lr, name = float(settings["optimizer.lr"]), settings["optimizer"]
        seen.add(name)
        low, high = {"muon": (1, 2), "sgd": (5, 6), "adafactor": (9, 9)}[name]
        assert low <= lr <= high
        assert settings.get("optimizer.momentum") == ("'a,b'" if name == "sgd" else None)
        assert settings["++train.warmup"] in {"1", "2"}
    assert len(seen) == 3
    assert set(Space.parse(params, spaces, ["optimizer.lr=7"], lambda fixed: {}).axes) == {"optimizer"}


def test_a_space() -> None:
    """The command line replaces what the file says; a component's axes come with it."""
    params = {"optimizer.lr": "tag(log, interval(1e-3, 1e-1))", "model.n_layer": "range(1, 4)", "train.max_steps": "9"}
    spaces = {"loss/squentropy": {"loss.weight": "interval(0, 1)"}, "loss/focal": {"loss.gamma": "interval(0, 3)"}}

    def parse(*arguments: str, loss: str) -> Space:
        return Space.parse(params, spaces, arguments, lambda fixed: {"loss": loss})

    space = parse("optimizer.lr=1e-2", "train.max_steps=choice(5,9)", "~data.tokenizer.pad_to", loss="squentropy")
    assert space.axes == {
        "model.n_layer": IntDistribution(1, 3),
        "train.max_steps": CategoricalDistribution([5, 9]),
        "loss.weight": FloatDistribution(0, 1),
    }
    assert space.fixed == ["optimizer.lr=1e-2", "~data.tokenizer.pad_to"]
    assert space.overrides_of({"loss.weight": None}) == [*space.fixed, "loss.weight=null"]
    assert space.varies("loss.weight")
    assert not space.varies("loss.weights")
    assert "loss.weight" not in parse("loss.weight=1", loss="squentropy").axes
    assert set(parse(loss="cross_entropy").axes) == {"optimizer.lr", "model.n_layer"}

    of_losses = parse("loss=cross_entropy,squentropy", loss="cross_entropy")
    assert set(of_losses.axes) == {"optimizer.lr", "model.n_layer", "loss"}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(8):
        trial = study.ask(dict(of_losses.axes))
        overrides = of_losses.overrides(trial)
        weighted = [override for override in overrides if override.startswith("loss.weight=")]
        assert len(weighted) == (trial.params["loss"] == "squentropy")
        assert not [override for override in overrides if override.startswith("loss.gamma")]
    assert of_losses.varies("loss._target_")
