"""The search section: studies are read without creating a database, and ranked as Optuna does."""

import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from analysis.page import DASH, Table
from analysis.report import contenders, optuna_storage, optuna_study, search
from nanosq.sweeps import attributes, starting_points
from tests.analysis.blocks import texts
from tests.analysis.report.studies import LINK, SPACE, add, trial


def test_the_study_that_was_started_last_is_shown(url: str) -> None:
    study = search.load(url)
    assert study.name == "two"
    assert study.others == ["single", "upwards"]
    assert "single, upwards" in texts(search.section(search.find(url)))


def test_states_and_ranks(url: str) -> None:
    study = search.load(url, "single")
    assert study.counts == {"complete": 4, "pruned": 2, "diverged": 1, "failed": 1}
    assert [trial.number for trial in study.ranked()] == [3, 6, 0, 1, 2, 7, 4, 5]
    assert study.trials[4].intermediate == {}
    assert study.metrics == [optuna_study.StudyMetric("Validation perplexity", maximize=False)]


def test_a_trial_that_violates_a_constraint_is_not_the_best(scratch: str) -> None:
    axis = {"model.n_layer": IntDistribution(1, 4)}
    results = [([9.0], 1, -0.5), ([1.0], 4, 0.5), ([2.0], 2, 0.0), (None, 4, 0.5)]
    trials = [
        create_trial(
            state=TrialState.PRUNED if values is None else TrialState.COMPLETE,
            values=values,
            params={"model.n_layer": n_layer},
            distributions=axis,
            constraints={"parameters": excess},
        )
        for values, n_layer, excess in results
    ]
    add(scratch, "small", trials, **{"hydra.sweeper.constraints": {"parameters": 64000.0}})
    study = search.load(scratch, "small")
    assert study.counts == {"complete": 2, "violates": 2}
    assert [trial.number for trial in study.front()] == [2]
    assert [trial.number for trial in study.ranked()] == [2, 0, 1, 3]
    text = texts(search.section(search.find(scratch, "small")))
    assert "The best of 2 complete trials is trial 2" in text
    assert "(2 complete, 2 violates). Constraints: parameters 64,000." in text


def test_steps_saved_by_pruning(url: str) -> None:
    assert search.load(url, "single").steps() == (70 + 90, 600)
    assert "Pruning saved 160 of 600 steps (27 %)." in texts(search.section(search.find(url, "single")))


def test_saved_steps_if_the_search_varies_the_steps(scratch: str) -> None:
    axis = {"train.max_steps": IntDistribution(50, 200)}
    trials = [
        create_trial(values=[1.0], params={"train.max_steps": 200}, distributions=axis, intermediate_values={200: 1.0}),
        create_trial(
            state=TrialState.PRUNED, params={"train.max_steps": 50}, distributions=axis, intermediate_values={20: 3.0}
        ),
    ]
    add(scratch, "steps", trials, **{"train.max_steps": 100})
    assert search.load(scratch, "steps").steps() == (30, 250)


def test_saved_steps_are_not_shown_if_unknown(url: str) -> None:
    assert math.isnan(search.load(url, "upwards").steps()[1])
    assert "Pruning" not in texts(search.section(search.find(url, "upwards")))


def test_table_of_the_best_trials(url: str) -> None:
    (table,) = [block for block in search.section(search.find(url, "single")).blocks if isinstance(block, Table)]
    assert table.header == [
        "trial",
        "state",
        "Validation perplexity",
        *sorted(SPACE, key=list(SPACE).index),
        "MLflow run",
    ]
    best, *_, last = table.cells()
    assert [cell.value for cell in best[:3]] == [3, None, 4.125]
    assert best[2].text == "4.125 ± 0.25"
    assert best[2].strong
    assert (best[-1].text, best[-1].link) == ("01234567", LINK)
    pruned = table.cells()[4]
    assert [cell.text for cell in pruned[1:3]] == ["pruned", DASH]
    assert last[1].text == "failed"


def test_the_table_has_ten_trials(url: str) -> None:
    (table,) = [block for block in search.section(search.find(url, "two")).blocks if isinstance(block, Table)]
    assert len(table.rows) == search.N_BEST


def test_the_front_equals_that_of_optuna(url: str) -> None:
    study = optuna.load_study(study_name="two", storage=url)
    expected = {trial.number for trial in study.best_trials} - {5}  # which diverged
    assert {trial.number for trial in search.load(url, "two").front()} == expected
    assert 1 < len(expected) < 23


def test_ties_on_the_front(scratch: str) -> None:
    add(scratch, "ties", [trial(values) for values in ([1.0, 1.0], [1.0, 2.0], [1.0, 1.0])], ["minimize"] * 2)
    assert [trial.number for trial in search.load(scratch, "ties").front()] == [0, 2]


def test_without_a_search_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = search.section(search.find())
    assert texts(section).startswith("There is no database optuna.db")
    assert texts(section).endswith(search.COMMAND)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "has no study"), (b"no database at all, but a text of some length" * 100, "file is not a database")],
)
def test_a_file_without_studies_is_not_changed(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"--storage: .*{why}"):
        search.find(f"sqlite:///{path}")
    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "url",
    ["nonsense", "nosuch://host/x", "sqlite://", "sqlite:///folder/missing.db", "postgresql://u:secret@127.0.0.1:1/x"],
)
def test_a_storage_that_cannot_be_read_is_an_error_without_its_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="--storage: ") as caught:
        search.find(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


def test_an_empty_study_and_an_unknown_one(url: str) -> None:
    with pytest.raises(ValueError, match=r"--storage: No trial has started in .*, study empty"):
        search.find(url, "empty")
    with pytest.raises(ValueError, match=r"no study 'other' .*; there are empty, single, two, upwards"):
        search.find(url, "other")


def test_reading_writes_nothing(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes()
    search.section(search.find(url, "single"))
    assert path.read_bytes() == before
    assert [*path.parent.iterdir()] == [path]


def test_names_of_attributes_are_those_of_the_sweeper() -> None:
    for name in ("SETTINGS", "RUN_ID", "LINK", "ERRORS", "DIVERGED"):
        assert getattr(optuna_study, name) == getattr(attributes, name)
    assert optuna_storage.COMPARISON == attributes.COMPARISON
    assert (contenders.ENQUEUED, contenders.CURRENT) == (attributes.ENQUEUED, starting_points.CURRENT)


def test_command(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--storage", url, "--out", str(tmp_path)]
    assert search.main([*options, "--study", "single"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("The best of 4 complete trials is trial 3, with validation perplexity 4.125.\n")
    assert "MLflow run" in printed
    assert {"search-trials.csv", "search-history.png", "search-parallel.svg"} <= {p.name for p in tmp_path.iterdir()}
    assert search.main([*options, "--study", "other"]) == 2
    assert capsys.readouterr().err.startswith("error: no study 'other' in sqlite://")
