"""The table, the CSV file and the experiment that a sweep ends with."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import yaml

from nanosq.sweeps import preset, summary
from nanosq.sweeps.summary import TrialSummary

TRIALS = [
    TrialSummary(
        *(1, "finished", [1.5], [0.25], {"optimizer.lr": "0.00123456", "model.n_layer": "1"}, ["a", "b"], "http://a")
    ),
    TrialSummary(0, "diverged", [math.inf], [math.nan], {"optimizer.lr": "6", "model.n_layer": "1"}, ["c"], "http://c"),
]


def test_the_table_shows_what_distinguishes_trials() -> None:
    header, first, second = (line.split() for line in summary.table(TRIALS, ["val/perplexity"]).splitlines())
    assert header == ["trial", "state", "val/perplexity", "+-", "lr"]
    assert first == ["1", "finished", "1.5000", "0.25", "0.001235"]
    assert second == ["0", "diverged", "6"]  # a trial that has not finished has no value


def test_the_table_has_the_best_trials() -> None:
    trials = [replace(TRIALS[0], number=number, values=[1.5 + number]) for number in range(12)]
    shown = summary.table(trials, ["val/perplexity"]).splitlines()[1:]
    assert [line.split()[2] for line in shown] == [f"{1.5 + number:.4f}" for number in range(10)]
    assert summary.notes(trials, ["val/nll"]) == ["\nThese are the best of 12 trials."]
    assert not summary.notes(trials[:10], ["val/nll"])


def test_other_tokens_are_compared_by_the_metric_per_byte() -> None:
    axis = "data.tokenizer.vocabulary"
    trials = [replace(TRIALS[0], number=i, settings={axis: f"{i}"}) for i in range(2)]
    assert "do not compare" in "".join(summary.notes(trials, ["val/nll"]))
    assert not summary.notes(trials, ["val/bits_per_byte"])
    trials = [replace(trial, settings={axis: "1", "data": f"{trial.number}"}) for trial in trials]
    assert "do not compare" in "".join(summary.notes(trials, ["val/bits_per_byte"]))


def test_a_name_that_two_settings_end_with_is_not_shortened() -> None:
    keys = ["model.weight", "loss.weight", "optimizer.lr", "loss"]
    assert summary.short_names(keys) == dict(zip(keys, ["model.weight", "loss.weight", "lr", "loss"], strict=True))


def test_a_long_setting_is_cut_off() -> None:
    trials = [replace(trial, settings={"data.source.path": f"{trial.number}{'x' * 90}"}) for trial in TRIALS]
    assert max(map(len, summary.table(trials, ["val/perplexity"]).splitlines())) <= 80


def test_the_table_of_one_seed_has_no_standard_errors() -> None:
    assert "+-" not in summary.table([replace(trial, errors=[math.nan]) for trial in TRIALS], ["val/perplexity"])


def test_the_table_of_one_trial_has_no_settings() -> None:
    assert summary.table(TRIALS[:1], ["val/nll"]).split()[:4] == ["trial", "state", "val/nll", "+-"]


def test_the_table_of_conditional_settings_has_empty_cells() -> None:
    trials = [
        replace(TRIALS[0], settings={"loss": "focal", "loss.gamma": "2"}),
        replace(TRIALS[1], settings={"loss": "ce"}),
    ]
    _, first, second = (line.split() for line in summary.table(trials, ["val/perplexity"]).splitlines())
    assert first[-2:] == ["focal", "2"]
    assert second == ["0", "diverged", "ce"]


def test_the_file_has_every_digit_and_setting(tmp_path: Path) -> None:
    summary.write_csv(tmp_path / "trials.csv", TRIALS, ["val/perplexity"])
    first, second = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert (first["optimizer.lr"], first["model.n_layer"], first["runs"]) == ("0.00123456", "1", "a b")
    assert (first["val/perplexity"], first["val/perplexity standard error"]) == ("1.5", "0.25")
    assert (second["val/perplexity"], second["state"]) == ("", "diverged")


def test_trials_are_ranked_by_state_value_and_number() -> None:
    values = [("failed", 0.0), ("finished", 2.0), ("finished", 1.0), ("finished", 2.0), ("diverged", math.inf)]
    trials = [replace(TRIALS[0], number=at, state=state, values=[value]) for at, (state, value) in enumerate(values)]
    assert [trial.number for trial in summary.rank(trials)] == [2, 1, 3, 4, 0]
    assert [trial.number for trial in summary.rank(trials, maximize=True)] == [1, 3, 2, 4, 0]


def test_a_preset_nests_its_settings_below_its_choices() -> None:
    settings = {"loss.weight": 0.1, "train.max_steps": 400, "seed": 1, "optimizer.betas": [0.9, 0.95]}
    text = preset.preset("Trial 3.", {"loss": "squentropy"}, settings)
    assert text.startswith("# @package _global_\n# Trial 3.\n")
    assert yaml.safe_load(text) == {
        "defaults": [{"override /loss": "squentropy"}],
        "loss": {"weight": 0.1},
        "train": {"max_steps": 400},
        "seed": 1,
        "optimizer": {"betas": [0.9, 0.95]},
    }
