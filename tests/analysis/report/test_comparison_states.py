"""The section on a comparison that lacks something: trials, runs, results, or one verdict."""

from typing import Any

import pytest

from analysis.page import DASH
from analysis.report import comparison, listing, opening, search
from analysis.report.contenders import load
from analysis.report.matched import BEST
from analysis.report.optuna_storage import NoStudy
from tests.analysis.blocks import figure_names, texts
from tests.analysis.recorded import complete_run
from tests.analysis.report.compared import write
from tests.analysis.report.studies import add, trial
from tests.analysis.report.test_comparison import LOSSES, confirmed, read, rows, section_of, tuned


def test_a_comparison_that_is_not_finished(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    section = section_of(read(scratch, tuning, {}, n_trials=3, chosen=None, seeds=[1, 2]))
    assert texts(section, "verdict") == (
        "This comparison is not finished. Tuning: 1 of 3 trials of cross_entropy, 1 of 3 trials of squentropy. "
        "Confirmation: 0 of 2 runs of cross_entropy, 0 of 2 runs of squentropy. The same command continues it."
    )
    begun = section_of(read(scratch, tuning, {loss: confirmed(loss, (1, 2)) for loss in LOSSES}, seeds=[1, 2, 3]))
    assert "; 2 seeds, 30 stories)" in texts(begun, "verdict")
    assert "Confirmation: 2 of 3 runs of cross_entropy" in texts(begun, "note")
    assert "Left out: seed 3 of squentropy (not trained yet)." in texts(begun, "note")


@pytest.mark.parametrize("other", [{}, {"model__n_layer": 3}])
def test_a_comparison_without_a_verdict_is_shown_unless_there_is_another(scratch: str, other: dict[str, Any]) -> None:
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    sweep = read(scratch, tuning, {"cross_entropy": confirmed("cross_entropy", (1,))}, seeds=[1, 2])
    alone = [*sweep.matched().runs, *([complete_run(seed=1, **other)] if other else [])]
    listed = listing.comparisons(alone, [sweep])
    shown = listing.pick(listed, None, [sweep])
    assert shown is not None
    assert (shown.name, [each.name for each in listed]) == (sweep.name, [BEST] if other else [])
    text = texts(opening.section(shown, comparison.status(sweep)), "verdict")
    assert text.endswith(
        "The same command continues it.\nA verdict needs two contenders, and only cross_entropy has runs with test "
        "scores on this text."
    )
    losses = listing.comparisons([*alone, complete_run("focal", 1)], [sweep])
    assert listing.pick(losses, None, [sweep]) is losses[0]


def test_a_contender_without_a_result(scratch: str) -> None:
    tuning = {"cross_entropy": tuned("cross_entropy", 9.0), "squentropy": tuned("squentropy", "diverged")}
    tuning["focal"] = tuned("focal", 9.0)
    confirmation = {"cross_entropy": confirmed("cross_entropy"), "focal": confirmed("focal")}
    for run in confirmation["focal"]:
        run.tags["diverged"] = "true"
    section = section_of(read(scratch, tuning, confirmation))
    assert texts(section, "verdict").splitlines() == [
        "squentropy has no result: no tuning trial is complete (1 diverged).",
        "focal has no result: no confirmation run has finished (3 diverged).",
        "A verdict needs two contenders, and only cross_entropy has runs with test scores on this text.",
    ]
    assert rows(section, "comparison-contenders")["best trial"] == ["#0", DASH, "#0"]


def test_trials_of_an_earlier_choice_do_not_count(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0, 8.0) for loss in LOSSES}
    name, confirmation = "earlier", {loss: confirmed(loss) for loss in LOSSES}
    write(scratch, name, tuning, confirmation)
    all_runs = [run for runs in (*tuning.values(), *confirmation.values()) for run in runs]
    before = load(scratch, all_runs, name)[0]
    assert before.is_finished
    study = before.contenders[0].tuning.study
    study.set_user_attr("comparison", study.user_attrs["comparison"] | {"chosen": 0})
    after = load(scratch, all_runs, name)[0]
    assert not after.is_finished
    assert [len(contender.runs) for contender in after.contenders] == [0, 3]


def test_runs_that_are_not_in_the_store_are_left_out(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    confirmation = {loss: confirmed(loss) for loss in LOSSES}
    write(scratch, "elsewhere", tuning, confirmation)
    known = [*confirmation["cross_entropy"], *confirmation["squentropy"][1:]]
    section = section_of(load(scratch, known, "elsewhere")[0])
    assert "Left out: seed 1 of squentropy (not in this experiment of MLflow)." in texts(section, "note")
    nothing = section_of(load(scratch, [], "elsewhere")[0])
    assert "squentropy has no result: no confirmation run has finished (3 not in this experiment" in texts(
        nothing, "verdict"
    )


def test_runs_on_a_text_that_has_changed_since_are_left_out(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    confirmation = {loss: confirmed(loss) for loss in LOSSES}
    for runs in confirmation.values():
        runs[0].tags["text"] = "another"
    last = max((run for runs in confirmation.values() for run in runs), key=lambda run: run.started)
    assert last.text_hash != "another"
    section = section_of(read(scratch, tuning, confirmation))
    for loss in LOSSES:
        assert f"Left out: seed 1 of {loss} (trained on another text)." in texts(section, "note")
    assert rows(section, "comparison-contenders")["seeds in the verdict"] == ["2", "2"]


def test_another_verdict_by_the_calibrated_nll_is_said(scratch: str) -> None:
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    confirmation = {loss: confirmed(loss) for loss in LOSSES}
    for loss, nll in (("cross_entropy", 1.0), ("squentropy", 0.9)):
        for run in confirmation[loss]:
            run.metrics["test/nll_calibrated"] = nll + 0.001 * run.seed * (loss == "squentropy")
    section = section_of(read(scratch, tuning, confirmation))
    assert "cross_entropy is better: " in texts(section, "verdict")
    assert "Tuned with 1 trial each; another" in texts(section)
    assert (
        "By the calibrated test nll, squentropy is better: that of squentropy is 0.0980 nats per token lower than that "
        "of cross_entropy (95 % confidence interval 0.0955 to 0.1005, Student's t over 3 seeds)."
    ) in texts(section, "note")
    for run in confirmation["squentropy"]:
        run.metrics["test/nll_calibrated"] += 0.3
    assert "calibrated test nll" not in texts(section_of(read(scratch, tuning, confirmation)))
    confirmation["squentropy"] = confirmed("squentropy", model__dropout=0.3)
    for run in confirmation["squentropy"]:
        run.metrics["test/nll_calibrated"] = 0.9 + 0.001 * run.seed
    assert "calibrated test nll" not in texts(section_of(read(scratch, tuning, confirmation)))  # more differs


def test_the_search_section_skips_comparisons(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('mixed')}/optuna.db"
    add(url, "search", [trial([1.0])])
    tuning = {loss: tuned(loss, 9.0) for loss in LOSSES}
    with pytest.raises(NoStudy, match="There is no comparison in sqlite:"):
        load(url, [])[0]
    for name in ("older", "newer"):
        write(url, name, tuning, {loss: confirmed(loss) for loss in LOSSES})
    assert load(url, [])[0].name == "newer"
    assert load(url, [], "older")[0].name == "older"
    with pytest.raises(ValueError, match=r"no comparison 'search' in .*; there are older, newer"):
        load(url, [], "search")[0]
    section = search.section(search.find(url))
    assert "Study search: " in texts(section)
    assert "Other studies" not in texts(section)
    assert "Study newer/squentropy: " in texts(search.section(search.find(url, "newer/squentropy")))
    assert figure_names(section_of(load(url, [])[0])) == ["comparison-tuning"]
