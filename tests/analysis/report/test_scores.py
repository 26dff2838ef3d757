import math

import numpy as np
import pytest
from scipy import stats

from analysis.page import DASH, Samples, number
from analysis.report import samples, scores
from analysis.runs import RecordedSetting
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import complete_run
from tests.analysis.report.chosen import chosen

BANDS = ("frequent", "medium", "rare")


@pytest.fixture(scope="module")
def best() -> dict[str, RecordedSetting]:
    recorded = [complete_run("cross_entropy", seed, optimizer__lr=0.02) for seed in (1, 2, 3, 4)]
    recorded += [complete_run("squentropy", seed, without=("test/ece",)) for seed in (2, 3, 4)]
    recorded += [complete_run("squentropy", 5, status="FAILED"), complete_run("brier", 9, without=("samples.txt",))]
    return chosen(recorded)


def test_scores(best: dict[str, RecordedSetting]) -> None:
    table = tables(scores.section(best))["test-scores"]
    rows = {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.cells()}
    assert list(rows) == ["cross_entropy", "brier", "squentropy"]
    values = [run.metric("test/nll") for run in best["squentropy"].runs]
    cell = rows["squentropy"]["test nll, nats/token"]
    assert cell.value == pytest.approx(np.mean(values))
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert cell.text.endswith(f"± {number((high - low) / 2, 2).text}")
    assert "±" not in rows["brier"]["test nll, nats/token"].text  # one seed
    accuracy = 100 * best["cross_entropy"].mean("test/accuracy")
    assert rows["cross_entropy"]["accuracy, %"].value == pytest.approx(accuracy)
    assert rows["squentropy"]["seeds"].text == "3 (without 5)"
    assert rows["cross_entropy"]["seeds"].text == "3 (without 1)"
    assert rows["squentropy"]["ece, %"].value is None  # the metric is missing
    assert [name for name, row in rows.items() if row["test nll, nats/token"].strong] == ["cross_entropy"]
    assert not any(row["test objective, own unit"].strong for row in rows.values())


@pytest.mark.parametrize("names", [{"data": "tinystories"}, {"data__source": "tinystories"}])
def test_table_1_of_the_student_report_is_apart_and_only_beside_tinystories(
    best: dict[str, RecordedSetting], names: dict[str, str]
) -> None:
    section = scores.section(best)
    assert "table_1" not in tables(section)
    assert "These scores cannot be compared with Table 1 of the student report (TinyStories, " in texts(section, "note")
    tags = {key: value for key, value in names.items() if "__" not in key}
    params = {key: value for key, value in names.items() if "__" in key}
    own = [complete_run(loss, seed, tags=tags, **params) for loss in ("cross_entropy", "squentropy") for seed in (1, 2)]
    section = scores.section(chosen(own))
    table = tables(section)["table_1"]
    assert "TinyStories, GPT-2's vocabulary of 50,257 tokens padded to 50,304, losses in nats" in table.caption
    assert [row[0].text for row in table.cells()] == list(scores.REPORT)
    assert {row[0].link for row in table.cells()} == {scores.CODE_OF_REPORT}
    assert [cell.value for cell in table.cells()[1][1:]] == [1.885, 1.899, 5.2]
    assert "cannot be compared with Table 1" not in texts(section)


def test_calibrated_scores_and_nll_by_frequency() -> None:
    new = {"test/nll_calibrated", "test/ece_calibrated", "val/temperature", *(f"test/nll_{band}" for band in BANDS)}
    recorded = [complete_run("cross_entropy", seed) for seed in (1, 2)]
    recorded += [complete_run("squentropy", seed) for seed in (1, 2)]
    recorded += [complete_run("brier", seed, without=tuple(new)) for seed in (1, 2)]
    recorded[3].metrics["test/nll_calibrated"] = 0.01
    best = chosen(recorded)
    section = scores.section(best)
    table = tables(section)["calibrated"]
    rows = {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.cells()}
    assert list(rows) == ["cross_entropy", "brier", "squentropy"]
    assert {metric for metric, *_ in scores.CALIBRATED.values()} == {*new, "test/nll", "test/ece"}
    for name, (metric, factor, _) in scores.CALIBRATED.items():
        assert rows["squentropy"][name].value == pytest.approx(best["squentropy"].mean(metric) * factor)
        assert (rows["brier"][name].text == DASH) == (metric in new)
    assert [name for name, row in rows.items() if row["test nll, nats/token"].strong] == ["cross_entropy"]
    assert [name for name, row in rows.items() if row["calibrated nll"].strong] == ["squentropy"]
    assert not any(row["temperature"].strong for row in rows.values())
    assert scores.SCALE in texts(section, "note")


def test_only_rows_with_the_same_seeds_compete() -> None:
    recorded = [complete_run("cross_entropy", seed) for seed in (1, 2, 3)]
    recorded += [complete_run("squentropy", seed) for seed in (1, 2)]
    recorded += [complete_run("brier", 9, tags={"code": "c"})]
    recorded[-1].metrics["test/nll"] = 1e-3
    section = scores.section(chosen(recorded))
    rows = {row[0].text: row for row in tables(section)["test-scores"].cells()}
    assert [name for name, row in rows.items() if row[3].strong] == ["cross_entropy"]
    assert "brier is shown with seed 9 and cross_entropy with seeds 1, 2, because" in texts(section, "note")


def test_tables_of_settings_and_runs(best: dict[str, RecordedSetting]) -> None:
    by_name = tables(scores.section(best))
    assert "optimizer.lr" in by_name["settings"].header
    assert "model.n_layer" not in by_name["settings"].header
    recorded = {run.id: run for setting in best.values() for run in setting.runs}
    for row in by_name["runs"].cells():
        run = recorded[str(row[-1].value)]
        assert row[-1].link == run.link
        assert row[3].value == run.metric("test/nll")


def test_half_interval() -> None:
    assert math.isnan(scores.half_interval([1.0]))
    assert scores.half_interval([1.0, 2.0, 4.0]) == pytest.approx(stats.sem([1, 2, 4]) * 4.30265, rel=1e-5)


def test_texts_have_a_common_seed(best: dict[str, RecordedSetting]) -> None:
    both = {loss: best[loss] for loss in ("cross_entropy", "squentropy")}
    (block,) = (block for block in samples.section(both).blocks if isinstance(block, Samples))
    assert block.columns == [
        ("cross_entropy, seed 2", "Once cross_entropy 2."),
        ("squentropy, seed 2", "Once squentropy 2."),
    ]
    assert "There is no text of brier. Train with samples.count=3" in texts(samples.section(best), "note")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([2.0, 2.1, 2.2], "2.10 ± 0.25"),
        ([-0.0003, 0.0002], "0.0000 ± 0.0032"),
        ([-1.001, -1.003], "\u22121.002 ± 0.013"),
        ([1000.0, 1200.0], "1,100 ± 1,271"),
        ([3.0, 3.0], "3 ± 0"),
        ([3.25], "3.250"),
        ([3.0, math.nan], DASH),
    ],
)
def test_a_mean_has_the_digits_of_its_interval(values: list[float], text: str) -> None:
    assert scores.mean_cell(values).text == text


def test_a_difference_is_bold_if_its_interval_does_not_include_0() -> None:
    a = {1: 1.0, 2: 2.0, 3: 3.0}
    larger = scores.difference_cell(a, {1: 1.10, 2: 2.11, 3: 3.12, 4: 9.0})
    assert (larger.text, larger.strong) == ("0.110 ± 0.025", True)
    assert not scores.difference_cell(a, {1: 0.9, 2: 2.0, 3: 3.1}).strong
    assert scores.difference_cell(a, {1: math.nan, 2: 2.0}).text == DASH
