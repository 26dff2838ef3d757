"""Optuna's database: opening it, and the internal functions of Optuna that nanosq depends on."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nanosq.errors import InputError
from nanosq.sweeps import storage


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture
def study(url: str) -> optuna.Study:
    return optuna.create_study(
        study_name="a study", storage=storage.connect(url), pruner=optuna.pruners.ThresholdPruner(upper=5.0)
    )


def test_a_requeued_trial_keeps_its_number_parameters_and_attributes(study: optuna.Study, url: str) -> None:
    """If this fails, Optuna has changed its storage."""
    space: dict[str, optuna.distributions.BaseDistribution] = {"x": optuna.distributions.FloatDistribution(0, 1)}
    first, finished = study.ask(space), study.ask(space)
    first.set_user_attr("run", "a")
    study.tell(finished, 1.0)
    for number in (0, 1, 0):  # a finished trial, and one that is requeued already, stay as they are
        storage.requeue("a study", url, number)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING, TrialState.COMPLETE]
    again = study.ask(space)
    assert (again.number, again.params, again.user_attrs) == (0, first.params, {"run": "a"})
    assert study.trials[0].state is TrialState.RUNNING
    assert study.ask(space).number == 2


def test_another_process_reports_to_an_open_trial(study: optuna.Study, url: str) -> None:
    """If this fails, Optuna has changed the constructor of Trial or its storage."""
    study.ask()
    asked = study.ask()
    opened = storage.open_trial(study, url, asked.number)
    assert opened.number == asked.number
    opened.report(1.0, step=1)
    assert not opened.should_prune()
    opened.report(9.0, step=2)
    assert opened.should_prune()
    opened.set_user_attr("run", "a")
    stored = study.trials[asked.number]
    assert (stored.intermediate_values, stored.user_attrs) == ({1: 1.0, 2: 9.0}, {"run": "a"})
    study.tell(asked, 1.0)
    assert len(study.trials) == 2


def test_an_unused_name(study: optuna.Study, url: str) -> None:
    assert storage.unused_name("a study", url) == "a study-2"
    assert storage.unused_name("another", url) == "another"


@pytest.mark.parametrize("bad", [None, "mysql://host/optuna", "optuna.db", "sqlite:////dev/null/optuna.db"])
def test_an_unusable_storage_is_an_error_of_one_line(bad: str | None) -> None:
    with pytest.raises(InputError, match=r"hydra\.sweeper\.storage") as caught:
        storage.connect(bad)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    with pytest.raises(InputError) as caught:
        storage.connect("mysql://user:secret@host/optuna")
    assert "secret" not in str(caught.value)
