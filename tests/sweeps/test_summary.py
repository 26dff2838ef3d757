"""The table, file and preset that a sweep ends with."""

import csv
import math
from pathlib import Path

import yaml

from nanosq.sweeps import summary
from nanosq.sweeps.summary import Row

ROWS = [
    Row(1, "finished", [1.5], [0.25], {"optimizer.lr": "0.00123456", "model.n_layer": "1"}, ["a", "b"], "http://a"),
    Row(0, "diverged", [math.nan], [math.nan], {"optimizer.lr": "6", "model.n_layer": "1"}, ["c"], "http://c"),
]


def test_the_table_shows_what_sets_trials_apart() -> None:
    header, first, second = (line.split() for line in summary.table(ROWS, ["val/perplexity"]).splitlines())
    assert header == ["trial", "state", "val/perplexity", "+-", "optimizer.lr", "run"]
    assert first == ["1", "finished", "1.5", "0.25", "0.001235", "http://a"]
    assert second == ["0", "diverged", "6", "http://c"]  # no value, and none is invented


def test_without_seeds_no_column_is_spent_on_their_spread() -> None:
    rows = [Row(row.number, row.state, row.values, [math.nan], row.settings, row.runs, row.link) for row in ROWS]
    assert "+-" not in summary.table(rows, ["val/perplexity"])


def test_the_file_has_every_digit_and_setting(tmp_path: Path) -> None:
    summary.write_csv(tmp_path / "trials.csv", ROWS, ["val/perplexity"])
    first, second = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert (first["optimizer.lr"], first["model.n_layer"], first["runs"]) == ("0.00123456", "1", "a b")
    assert (first["val/perplexity"], first["val/perplexity standard error"]) == ("1.5", "0.25")
    assert (second["val/perplexity"], second["state"]) == ("", "diverged")


def test_a_preset_nests_its_settings_below_its_choices() -> None:
    text = summary.preset("Trial 3.", {"loss": "squentropy"}, {"loss.weight": 0.1, "train.max_steps": 400, "seed": 1})
    assert text.startswith("# @package _global_\n# Trial 3.\n")
    assert yaml.safe_load(text) == {
        "defaults": [{"override /loss": "squentropy"}],
        "loss": {"weight": 0.1},
        "train": {"max_steps": 400},
        "seed": 1,
    }
