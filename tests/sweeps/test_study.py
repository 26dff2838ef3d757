"""Studies in SQLite that processes share, and Optuna's samplers and pruners, without the command line."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from nanosq import config, sweeps
from nanosq.errors import InputError
from nanosq.sweeps import storage
from nanosq.sweeps.samplers import build_sampler
from nanosq.sweeps.search_space import SearchSpace
from nanosq.sweeps.starting_points import StartingPoint
from nanosq.sweeps.study import SharedStudy
from tests.commandline import ROOT, environment

SPACE = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "model.n_layer": CategoricalDistribution([1, 2])}
PRUNERS = sorted((ROOT / "conf/hydra/sweeper/pruner").glob("*.yaml"))
SAMPLERS = ["tpe", "random", "cmaes", "nsgaii", "nsgaiii", "grid", "gp", "qmc"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def open_study(url: str, **changed: Any) -> SharedStudy:
    arguments: dict[str, Any] = {
        "directions": ["minimize"],
        "sampler": optuna.samplers.RandomSampler(),
        "pruner": optuna.pruners.NopPruner(),
        "space": SPACE,
        "settings": {"train.max_steps": 200, "loss.weight": 1.0},
    }
    return SharedStudy("a study", url, **arguments | changed)


def build(name: str, space: SearchSpace, n_trials: int, directions: Sequence[str] = ("minimize",), **changes: Any):
    """Build the sampler hydra/sweeper/sampler=NAME."""
    sweeps.register()
    node: Any = OmegaConf.merge(ConfigStore.instance().load(f"hydra/sweeper/sampler/{name}.yaml").node, changes)
    return build_sampler(node, space, n_trials, directions=directions)


def test_trials_up_to_a_total(url: str) -> None:
    study = open_study(url)
    first = study.take(2, total=3)
    assert [trial.number for trial in first] == [0, 1]
    (last,) = study.take(2, total=3)
    assert study.take(1, total=3) == []
    for trial in (*first, last):
        study.tell(trial, TrialState.COMPLETE, [1.0])
    assert study.take(1, total=3) == []
    (more,) = study.take(5, total=4)
    assert more.number == 3


def test_settings_are_enqueued_once_and_in_their_order(url: str) -> None:
    """Whatever process or start has enqueued them."""
    points = [StartingPoint(str(lr), {"optimizer.lr": lr, "model.n_layer": 1}) for lr in (1e-3, 5e-3, 1e-3, 2e-3)]
    first, second = open_study(url), open_study(url)
    first.enqueue(points[:1], total=3)
    (taken,) = first.take(1, total=3)
    for study in (second, first, open_study(url)):
        study.enqueue(points, total=3)
    assert [trial.params["optimizer.lr"] for trial in (taken, *second.take(9, total=3))] == [1e-3, 5e-3, 2e-3]
    assert [trial.user_attrs["enqueued"] for trial in second.trials] == ["0.001", "0.005", "0.002"]
    second.enqueue([StartingPoint("late", {"optimizer.lr": 9e-3, "model.n_layer": 2})], total=3)
    assert len(second.trials) == 3


def test_a_released_trial_is_taken_first_and_keeps_its_parameters(url: str) -> None:
    study = open_study(url)
    released, finished = study.take(2, total=9)
    params = released.params
    study.tell(finished, TrialState.PRUNED)
    study.release()
    assert study.trials[0].state is TrialState.WAITING
    again, new = open_study(url).take(2, total=9)
    assert (again.number, again.params) == (0, params)
    assert new.number == 2


def test_a_trial_is_taken_again_once_its_process_has_ended(url: str) -> None:
    script = f"""
from tests.sweeps.test_study import open_study
study = open_study({url!r})
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
    other = open_study(url)
    assert [trial.number for trial in other.take(2, total=2)] == [1]
    assert other.trials[0].state is TrialState.RUNNING
    holder.kill()
    holder.wait()
    (interrupted,) = other.take(2, total=2)
    assert (interrupted.number, interrupted.params["optimizer.lr"]) == (0, lr)


def test_a_trial_that_ends_while_another_process_looks_stays_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has seen the trial running. When it tries the lock, the trial has ended."""
    study, other = open_study(url), open_study(url)
    (trial,) = study.take(1, total=1)
    seen = other.study.get_trials()
    study.tell(trial, TrialState.COMPLETE, [1.0])
    with monkeypatch.context() as late:
        late.setattr(SharedStudy, "trials", property(lambda self: seen))
        assert other.take(1, total=1) == []
    assert [trial.state for trial in other.trials] == [TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": ["maximize"]}, "the direction minimize, but its metrics have the direction maximize"),
        ({"space": {**SPACE, "model.n_layer": CategoricalDistribution([1, 2, 3])}}, "model.n_layer=Categorical"),
        ({"settings": {"train.max_steps": 200, "loss.weight": 0.1}}, "loss.weight=1.0, not 0.1"),
        ({"settings": {"train.max_steps": 200}}, "loss.weight=1.0, not several values"),
        ({"settings": {"train.max_steps": 200, "loss.weight": 1, "seeds": 2}}, "seeds=several values, not 2"),
    ],
)
def test_a_study_with_other_settings_is_refused(url: str, change: dict[str, Any], message: str) -> None:
    study = open_study(url)
    (trial,) = study.take(1, total=1)
    study.tell(trial, TrialState.COMPLETE, [1.0])
    with pytest.raises(InputError, match=r"hydra\.sweeper\.study_name=") as caught:
        open_study(url, **change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_interval_of_a_study_may_change(url: str) -> None:
    study = open_study(url)
    (trial,) = study.take(1, total=1)
    study.tell(trial, TrialState.COMPLETE, [1.0])
    open_study(url, space={**SPACE, "optimizer.lr": FloatDistribution(1e-5, 1.0, log=True)})


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_searches_to_the_total(name: str, url: str) -> None:
    params = {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))", "model.dropout": "interval(0, 0.2)"}
    if name == "grid":
        params = {"optimizer.lr": "choice(1e-4, 1e-3)", "model.n_layer": "range(1, 3)"}
    space = SearchSpace.parse(params, {}, [], lambda fixed: {})
    sampler, total = build(name, space, 5, seed=1)
    assert total == (4 if name == "grid" else 5)
    study = open_study(url, sampler=sampler, space=space.axes)
    while taken := study.take(1, total=total):
        study.tell(taken[0], TrialState.COMPLETE, [taken[0].params["optimizer.lr"]])
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: total}
    assert len({str(trial.params) for trial in study.trials}) == total


def test_a_grid_sampler_refuses_intervals_and_conditional_axes() -> None:
    space = SearchSpace.parse({"optimizer.lr": "interval(0, 1)"}, {}, [], lambda fixed: {})
    with pytest.raises(ValueError, match="takes choices and ranges"):
        build("grid", space, 5)
    spaces = {"loss/focal": {"loss.gamma": "1,2"}}
    conditional = SearchSpace.parse({"loss": "focal,squentropy"}, spaces, [], lambda fixed: {})
    with pytest.raises(ValueError, match="cannot search components"):
        build("grid", conditional, 5)


def test_a_resumed_search_with_a_seed_draws_new_trials(url: str) -> None:
    space = SearchSpace.parse({"optimizer.lr": "interval(0, 1)"}, {}, [], lambda fixed: {})
    for total in (2, 4):
        sampler, _ = build("tpe", space, total, seed=1)
        study = open_study(url, sampler=sampler, space=space.axes)
        while taken := study.take(1, total=total):
            study.tell(taken[0], TrialState.COMPLETE, [1.0])
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 4


def search_conditional_space(url: str, sampler: str, *, kill_at: int | None = None) -> tuple[SharedStudy, int]:
    """Search a space with a conditional axis. Kill this process before it writes to the database the time `kill_at`.

    Return the study, and how often it was written to.
    """
    params = {"optimizer.lr": "tag(log, interval(1e-4, 1e-2))", "model.dropout": "interval(0, 1)"}
    weight = {"loss/squentropy": {"loss.weight": "interval(0, 1)"}}
    space = SearchSpace.parse(params, weight, ["loss=cross_entropy,squentropy"], lambda fixed: {})
    built, total = build(sampler, space, 8, seed=1, **({"n_startup_trials": 3} if sampler == "tpe" else {}))
    study, n_writes = open_study(url, sampler=built, space=space.axes), 0

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal n_writes
        n_writes += statement.startswith(("INSERT", "UPDATE"))
        if n_writes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(storage.connect(url).engine, "before_cursor_execute", count)
    while taken := study.take(1, total=total):
        space.draw(taken[0])
        study.tell(taken[0], TrialState.COMPLETE, [taken[0].params["model.dropout"]])
    return study, n_writes


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_is_killed_draws_what_an_undisturbed_one_draws(sampler: str, url: str, tmp_path: Path) -> None:
    """Whatever it has written of a trial."""
    undisturbed, n_writes = search_conditional_space(url, sampler)
    params = [trial.params for trial in undisturbed.trials]
    assert len({value for trial in params for value in trial.values() if isinstance(value, float)}) > 16
    for moment in range(4, n_writes, n_writes // 5):
        killed = f"sqlite:///{tmp_path}/killed_{moment}.db"
        process = multiprocessing.get_context("fork").Process(
            target=search_conditional_space, args=(killed, sampler), kwargs={"kill_at": moment}
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        again, _ = search_conditional_space(killed, sampler)
        assert [trial.params for trial in again.trials] == params, moment


@pytest.mark.parametrize("path", PRUNERS, ids=lambda path: path.stem)
def test_every_pruner_file_builds_a_pruner(path: Path) -> None:
    assert isinstance(config.load(path), optuna.pruners.BasePruner)
