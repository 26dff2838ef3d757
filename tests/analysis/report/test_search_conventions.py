"""Conventions that the search section shares with the sweeper: steps of a study, and directions of metrics."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing
from optuna.trial import TrialState

from analysis.report import optuna_study, search, search_figures
from nanosq.sweeps import attributes, metrics
from tests.analysis.blocks import texts
from tests.analysis.report.studies import add, line, trial


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


def test_steps_are_thousandths_of_training(url: str, drawings: dict[str, Drawing]) -> None:
    """The complete trial was stopped early, at three quarters of training."""
    trials = [
        trial([2.0], intermediate={250: 4.0, 750: 2.0}),
        trial(intermediate={250: 3.0}, state=TrialState.PRUNED),
    ]
    study = add(url, "thousandths", trials, **{"train.max_steps": 400})
    study.set_user_attr(attributes.STEP, attributes.PER_MILLE)
    assert search.load(url, "thousandths").steps() == (300, 700)
    search_figures.intermediate(search.load(url, "thousandths"))
    drawing = drawings["search-intermediate"]
    assert line(drawing, "best, trial 0") == ([25, 75], [4.0, 2.0])
    assert drawing.axes[0].get_xlabel() == "Part of the training steps (%)"


def test_a_study_that_looked_for_the_lowest_accuracy(url: str) -> None:
    accuracy = {"hydra.sweeper.objectives": ["val/accuracy"]}
    add(url, "lowest", [trial([value]) for value in (0.2, 0.5, 0.3)], **accuracy)
    assert [trial.number for trial in search.load(url, "lowest").ranked()] == [1, 2, 0]
    assert "minimized validation accuracy, although higher is better" in texts(
        search.section(search.find(url, "lowest"))
    )
    add(url, "highest", [trial([0.2])], ["maximize"], **accuracy)
    assert "which is worse" not in texts(search.section(search.find(url, "highest")))


def test_names_and_directions_are_those_of_the_sweeper() -> None:
    assert optuna_study.LABELS.keys() == metrics.METRICS.keys()
    assert [key for key in metrics.METRICS if metrics.Metric(key).maximize] == [*optuna_study.HIGHER_IS_BETTER]
    assert (optuna_study.STEP, optuna_study.PER_MILLE) == (attributes.STEP, attributes.PER_MILLE)
