"""The section on a comparison: contenders, budget, verdicts, and what is missing."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from matplotlib.figure import Figure as Drawing
from optuna.distributions import FloatDistribution, IntDistribution

from analysis.page import DASH, Section
from analysis.recorded_run import RecordedRun
from analysis.report import compare, comparison, opening, scores
from analysis.report.comparison_figures import tuning_curves
from analysis.report.contenders import Comparison, load
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import complete_run
from tests.analysis.report.compared import LR, write
from tests.analysis.report.studies import line

LOSSES = ("cross_entropy", "squentropy")
SEEDS = (1, 2, 3)
_number = count()


def tuned(loss: str, *values: float | str, lr: float = 0.01, **options: Any) -> list[RecordedRun]:
    """Return runs of tuning trials with these validation perplexities, or which were pruned or diverged."""
    runs = []
    for i, value in enumerate(values):
        run = complete_run(loss, 9, optimizer__lr=lr * (i + 1), score_test=False, **options)
        run.metrics = {key: score for key, score in run.metrics.items() if not key.startswith("test/")}
        run.metrics["train/seconds"] = 2.0
        if isinstance(value, str):
            run.tags[value] = "true"
        else:
            run.metrics["val/perplexity"] = value
        runs.append(run)
    return runs


def confirmed(loss: str, seeds: Sequence[int] = SEEDS, **options: Any) -> list[RecordedRun]:
    runs = [complete_run(loss, seed, **options) for seed in seeds]
    for run in runs:
        run.metrics["train/seconds"] = 10.0
    return runs


def read(
    url: str, tuning: dict[str, list[RecordedRun]], confirmation: dict[str, list[RecordedRun]], **plan: Any
) -> Comparison:
    """Write a comparison around runs and read it."""
    name = f"compare-{next(_number)}"
    write(url, name, tuning, confirmation, **plan)
    return load(url, [run for runs in (*tuning.values(), *confirmation.values()) for run in runs], name)[0]


def section_of(read: Comparison) -> Section:
    """Return the opening on a comparison, and its own section."""
    matched = read.matched()
    parts = opening.section(matched, comparison.status(read)), comparison.section(read, matched)
    return Section("Comparison", [block for part in parts for block in part.blocks])


def rows(section: Section, table: str) -> dict[str, list[str]]:
    return {first.text: [cell.text for cell in cells] for first, *cells in tables(section)[table].cells()}


@pytest.fixture(scope="module")
def two(scratch: str) -> Comparison:
    """Squentropy has a weight besides, and is worse in the confirmation."""
    spaces = {
        "cross_entropy": {"optimizer.lr": LR, "model.n_layer": IntDistribution(1, 4)},
        "squentropy": {
            "optimizer.lr": LR,
            "model.n_layer": IntDistribution(1, 4),
            "loss.weight": FloatDistribution(0.01, 1.0, log=True),
        },
    }
    tuning = {
        "cross_entropy": tuned("cross_entropy", 9.0, "pruned", 7.0, 8.0),
        "squentropy": tuned("squentropy", 8.0, 9.0, "diverged", 6.0, loss__weight=0.98),
    }
    confirmation = {
        "cross_entropy": confirmed("cross_entropy", optimizer__lr=0.03),
        "squentropy": confirmed("squentropy", optimizer__lr=0.04, loss__weight=0.98, without=("test/nll_rare",)),
    }
    return read(scratch, tuning, confirmation, spaces=spaces)


def test_the_verdict_is_not_spoiled_by_what_was_tuned(two: Comparison) -> None:
    section = section_of(two)
    assert texts(section, "verdict").startswith("cross_entropy is better: the test nll of squentropy is 0.2")
    assert "; 3 seeds, 30 stories)" in texts(section, "verdict")
    assert texts(section, "verdict").endswith(
        "They differ only in the loss and in the settings that were tuned for each of them."
    )
    assert "Not the same: learning rate (cross_entropy: 0.03; squentropy: 0.04)" in texts(section)
    assert "Tuned with 4 trials each; another tuning may give another result." in texts(section)
    ((*pair, difference),) = [row[:3] for row in rows(compare.section(two.matched()), "pairs").values()]
    assert pair == ["squentropy", "cross_entropy"]
    assert float(difference) == pytest.approx(0.2, abs=0.01)


def test_budget(two: Comparison) -> None:
    section = section_of(two)
    text = texts(section)
    assert "Contenders: cross_entropy, squentropy." in text
    assert "4 trials of 100 steps for each contender. The best trial is the one with the best validation perp" in text
    assert "Tuned settings: optimizer.lr, model.n_layer for every contender; loss.weight only for squentropy." in text
    assert "trained for 400 steps with each of the seeds 1, 2, 3." in text
    budget = rows(section, "comparison-contenders")
    expected = {
        "tuning trials": ["4 of 4", "4 of 4"],
        "complete": ["3", "3"],
        "pruned": ["1", "0"],
        "diverged": ["0", "1"],
        "best trial": ["#2", "#3"],
        "its validation perplexity, 100 steps": ["7", "6"],
        "confirmation runs": ["3 of 3", "3 of 3"],
        "training time of all, s": ["38", "38"],
    }
    assert {name: budget[name] for name in expected} == expected
    assert "failed" not in budget  # there are none
    assert texts(section, "code") == two.command


def test_tuning_curves(two: Comparison, drawings: dict[str, Drawing]) -> None:
    tuning_curves(two)
    drawing = drawings["comparison-tuning"]
    assert line(drawing, "cross_entropy") == ([1, 2, 3, 4], [9.0, 9.0, 7.0, 7.0])
    assert line(drawing, "squentropy") == ([1, 2, 3, 4], [8.0, 8.0, 8.0, 6.0])
    rings = [list(curve.get_ydata()) for curve in drawing.axes[0].lines if list(curve.get_xdata()) == [1]]
    assert rings == [[9.0], [8.0]]


def test_best_settings_and_borders(two: Comparison) -> None:
    section = section_of(two)
    best = [[cell.text for cell in cells] for cells in tables(section)["comparison-settings"].cells()]
    assert best == [
        ["cross_entropy", "as it stands", "9", "0.01", "2", DASH],
        ["cross_entropy", "best, #2", "7", "0.03", "2", DASH],
        ["squentropy", "as it stands", "8", "0.01", "2", "0.98"],
        ["squentropy", "best, #3", "6", "0.04", "2", "0.98"],
    ]
    (border,) = (text for text in texts(section, "note").splitlines() if "border" in text)
    assert border == (
        "The best loss.weight lies at the upper border of its space, 0.01 to 1: 0.98 of squentropy. A better value may "
        "lie beyond it. Compare with a wider space: "
        "\"hydra.sweeper.spaces={loss/squentropy:{loss.weight:'tag(log, interval(0.01,10.0))'}}\""
    )


def test_confirmation(two: Comparison) -> None:
    settings = two.matched().settings
    by_name = scores.differences(settings).cells()
    table = {first.text: [cell.text for cell in cells] for first, *cells in by_name}
    means = [sum(run.metric("test/nll") for run in two.contenders[i].runs.values()) / 3 for i in (0, 1)]
    assert [float(cell.split()[0]) for cell in table["test nll, nats/token"][:2]] == pytest.approx(means, rel=1e-3)
    assert table["test nll, nats/token"][2].startswith("0.20")
    assert "±" in table["calibrated nll"][2]
    assert table["nll, rare"][1:] == [DASH, DASH]


def test_three_contenders_with_a_seed_that_diverged(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0, 8.0) for loss in (*LOSSES, "focal")}
    confirmation = {loss: confirmed(loss, (1, 2, 3, 4)) for loss in tuning}
    confirmation["focal"][1].tags["diverged"] = "true"
    three = read(scratch, tuning, confirmation)
    section = section_of(three)
    assert " has the lowest test nll of the 3, " in texts(section, "verdict")
    assert "Left out: seed 2 of focal (diverged)." in texts(section, "note")
    assert texts(section, "note").count("Left out: seed 2 of cross_entropy (not scored with focal).") == 1
    assert rows(section, "comparison-contenders")["seeds in the verdict"] == ["3", "3", "3"]
    pairs = tables(compare.section(three.matched()))["pairs"].cells()
    assert [row[-1].text for row in pairs] == ["3", "3", "3"]


def test_one_setting_under_two_names(scratch: str) -> None:
    same = tuned("cross_entropy", 9.0, 8.0), confirmed("cross_entropy")
    tuning, confirmation = ({"cross_entropy": runs, "own": runs} for runs in same)
    section = section_of(read(scratch, tuning, confirmation))
    assert texts(section, "verdict").startswith(
        "No difference was found: cross_entropy and own have equal scores in all 3"
    )
    assert "cross_entropy and own are the same setting." in texts(section, "note")


def test_one_seed_is_not_enough(scratch: str) -> None:
    confirmation = {loss: confirmed(loss, (1,)) for loss in LOSSES}
    section = section_of(read(scratch, {loss: tuned(loss, 9.0) for loss in LOSSES}, confirmation))
    need = "have one seed in common (1), and a verdict needs two (hydra.sweeper.seeds=5)."
    assert need in texts(section, "verdict")


def test_the_keys_of_a_swept_group_are_no_other_cause(scratch: str) -> None:
    names = {"adamw": "torch.optim.AdamW", "muon": "Muon"}
    tuning = {label: tuned("squentropy", 9.0, optimizer=target) for label, target in names.items()}
    confirmation = {
        label: confirmed("squentropy", optimizer=target, optimizer__momentum=label) for label, target in names.items()
    }
    section = section_of(read(scratch, tuning, confirmation, key="optimizer"))
    assert "They differ only in the optimizer and in the settings that were tuned" in texts(section, "verdict")
