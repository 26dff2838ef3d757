"""The seeds that settings have in common, and their runs in all sections of the page."""

import pytest

from analysis.recorded_run import RecordedRun
from analysis.report import calibration, common_seeds, compare, opening, scores
from analysis.report.verdict import verdict
from analysis.runs import RecordedSetting
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import DIFFICULTY, complete_run, run, story_run
from tests.analysis.report.chosen import chosen, compared

NO_STORIES = {"artifacts": {"stories.csv": None}}


def trained(loss: str, *seeds: int, **options: object) -> list[RecordedRun]:
    """Return runs whose nll is higher with a later seed, so that means over different seeds differ."""
    return [story_run(loss, seed, DIFFICULTY + 0.1 * seed, **options) for seed in seeds]  # type: ignore[arg-type]


def diverged(loss: str, seed: int, **options: object) -> RecordedRun:
    return run(loss, seed, tags={"diverged": "true"}, **options)  # type: ignore[arg-type]


def seeds(rows: dict[str, RecordedSetting]) -> dict[str, list[int]]:
    return {label: [run.seed for run in setting.runs] for label, setting in rows.items()}


def test_the_verdict_and_table_1_have_the_same_runs() -> None:
    best = chosen([*trained("cross_entropy", 1, 2, 3, 4, 5), *trained("poly1", 1, 2, 3)])
    assert seeds(best) == {"cross_entropy": [1, 2, 3], "poly1": [1, 2, 3]}
    section = opening.section(compared(best))
    text = texts(section, "verdict")
    assert "No difference was found: cross_entropy and poly1 have equal scores in all 3 seeds and 30 stories." in text
    assert "Left out: seeds 4, 5 of cross_entropy (not scored with poly1)." in texts(section, "note")
    by_name = tables(scores.section(best))
    cross_entropy, poly1 = by_name["test-scores"].cells()
    assert cross_entropy[3].value == pytest.approx(poly1[3].value)
    assert [row[-1].text for row in (cross_entropy, poly1)] == ["3 (without 4, 5)", "3"]
    assert len(by_name["runs"].rows) == 6


def test_a_seed_that_diverged_with_one_loss_is_left_out_of_both() -> None:
    best = chosen([*trained("cross_entropy", 1, 2, 3), *trained("poly1", 1, 3), diverged("poly1", 2)])
    assert seeds(best) == {"cross_entropy": [1, 3], "poly1": [1, 3]}
    text = verdict(*best.values()).text
    assert "Left out: seed 2 of cross_entropy (not scored with poly1)." in text
    assert "Left out: seed 2 of poly1 (diverged)." in text


def test_a_seed_without_scores_of_stories_is_left_out_of_both() -> None:
    best = chosen([*trained("cross_entropy", 1, 2, 3), *trained("poly1", 1, 2), *trained("poly1", 3, **NO_STORIES)])
    assert seeds(best) == {"cross_entropy": [1, 2], "poly1": [1, 2]}
    assert best["poly1"].left_out == {3: "without scores of the stories"}
    assert best["cross_entropy"].left_out == {3: "not scored with poly1"}


def test_all_losses_are_shown_with_the_seeds_of_all() -> None:
    four = [*trained("focal", 1, 2, 3, 4), *trained("poly1", 2, 3, 4, 5)]
    best = chosen([*trained("cross_entropy", 1, 2, 3, 4, 5), *four])
    assert {*map(tuple, seeds(best).values())} == {(2, 3, 4)}
    assert best["cross_entropy"].left_out == {1: "not scored with poly1", 5: "not scored with focal"}


def test_a_loss_with_too_few_common_seeds_does_not_take_those_of_others() -> None:
    best = chosen([*trained("cross_entropy", 1, 2, 3), *trained("focal", 1, 2), *trained("poly1", 1, 7)])
    assert seeds(best) == {"cross_entropy": [1, 2], "focal": [1, 2], "poly1": [1, 7]}
    five = [run for loss in ("cross_entropy", "focal") for run in trained(loss, 1, 2, 3, 4, 5)]
    assert [*map(len, seeds(chosen([*five, *trained("poly1", 1, 2)])).values())] == [5, 5, 2]
    note = "poly1 is shown with seeds 1, 7 and cross_entropy with seeds 1, 2, because they have too few scored seeds in"
    assert note in texts(scores.section(best), "note")
    assert "cross_entropy and poly1 have one seed in common" in verdict(best["cross_entropy"], best["poly1"]).text


def test_without_a_common_seed_all_runs_are_shown() -> None:
    best = chosen([*trained("cross_entropy", 1, 2), *trained("poly1", 3, 4)])
    assert seeds(best) == {"cross_entropy": [1, 2], "poly1": [3, 4]}
    assert "poly1 is shown with seeds 3, 4 and cross_entropy with seeds 1, 2" in texts(scores.section(best), "note")
    assert "have no seed in common" in verdict(*best.values()).text
    (single,) = chosen(trained("poly1", 1, 2)).values()
    assert single.left_out == {}


def test_a_single_run_is_no_reference_for_others() -> None:
    single = chosen([*trained("cross_entropy", 1), *trained("focal", 1, 2, 3), *trained("poly1", 1, 2, 3)])
    assert seeds(single) == {"cross_entropy": [1], "focal": [1, 2, 3], "poly1": [1, 2, 3]}
    nll = {"val/nll": 0.0}
    best = chosen([*trained("focal", 1, 2), *trained("poly1", 1, 2), *trained("brier", 9, metrics=nll)])
    assert common_seeds.reference(best) == "focal"


def test_with_one_common_seed_its_models_are_compared() -> None:
    best = chosen([*trained("cross_entropy", 1), *trained("poly1", 1, 2, 3)])
    assert seeds(best) == {"cross_entropy": [1], "poly1": [1]}
    text = verdict(*best.values()).text
    assert text.startswith("Not enough runs: cross_entropy and poly1 have one seed in common (1)")
    assert text.endswith("Left out: seeds 2, 3 of poly1 (not scored with cross_entropy).")


def test_two_settings_are_shown_with_their_common_seeds() -> None:
    rows = chosen(trained("cross_entropy", 1, 2, 3, 4)), chosen(trained("poly1", 1, 2))
    section = compare.section_on_two(*(setting for row in rows for setting in row.values()))
    (*_, of_seeds) = tables(section)["differences"].cells()
    assert [cell.text for cell in of_seeds[:3]] == ["seeds", "1, 2", "1, 2"]
    assert "Left out: seeds 3, 4 of cross_entropy (not scored with poly1)." in texts(section, "verdict")


def test_every_section_shows_the_same_runs() -> None:
    best = chosen([complete_run("cross_entropy", seed) for seed in (1, 2, 3)] + [complete_run("poly1", 2)])
    (cross_entropy, poly1) = tables(calibration.section(best))["calibration"].cells()
    assert (cross_entropy[3].value, poly1[3].value) == (1, 1)
