"""The choice of the settings and runs that the report compares."""

import pytest

from analysis.recorded_run import RecordedRun
from analysis.report import calibration, compare, scores, selection
from analysis.report.selection import choose
from analysis.report.verdict import verdict
from analysis.runs import RecordedSetting
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import DIFFICULTY, complete_run, run, story_run

NO_STORIES = {"artifacts": {"stories.csv": None}}


def trained(loss: str, *seeds: int, **options: object) -> list[RecordedRun]:
    """Return runs whose nll is higher with a later seed, so that means over different seeds differ."""
    return [story_run(loss, seed, DIFFICULTY + 0.1 * seed, **options) for seed in seeds]  # type: ignore[arg-type]


def diverged(loss: str, seed: int, **options: object) -> RecordedRun:
    return run(loss, seed, tags={"diverged": "true"}, **options)  # type: ignore[arg-type]


def seeds(rows: dict[str, RecordedSetting]) -> dict[str, list[int]]:
    return {label: [run.seed for run in setting.runs] for label, setting in rows.items()}


def test_the_verdict_and_table_1_have_the_same_runs() -> None:
    best = choose([*trained("cross_entropy", 1, 2, 3, 4, 5), *trained("poly1", 1, 2, 3)])
    assert seeds(best) == {"cross_entropy": [1, 2, 3], "poly1": [1, 2, 3]}
    section = compare.section(best)
    text = texts(section, "verdict")
    assert "Settings that were tried: 1 of cross_entropy, 1 of poly1." in texts(section, "note")
    assert "No difference was found: cross_entropy and poly1 have equal scores in all 3 seeds and 30 stories." in text
    assert "Left out: seeds 4, 5 of cross_entropy (not scored with poly1)." in text
    by_name = tables(scores.section(best))
    *_, cross_entropy, poly1 = by_name["table_1"].cells()
    assert cross_entropy[3].value == pytest.approx(poly1[3].value)
    assert [row[-1].text for row in (cross_entropy, poly1)] == ["3 (without 4, 5)", "3"]
    assert len(by_name["runs"].rows) == 6


def test_a_seed_that_diverged_with_one_loss_is_left_out_of_both() -> None:
    best = choose([*trained("cross_entropy", 1, 2, 3), *trained("poly1", 1, 3), diverged("poly1", 2)])
    assert seeds(best) == {"cross_entropy": [1, 3], "poly1": [1, 3]}
    text = verdict(*best.values()).text
    assert "Left out: seed 2 of cross_entropy (not scored with poly1)." in text
    assert "Left out: seed 2 of poly1 (diverged)." in text


def test_a_seed_without_scores_of_stories_is_left_out_of_both() -> None:
    best = choose([*trained("cross_entropy", 1, 2, 3), *trained("poly1", 1, 2), *trained("poly1", 3, **NO_STORIES)])
    assert seeds(best) == {"cross_entropy": [1, 2], "poly1": [1, 2]}
    assert best["poly1"].left_out == {3: "without scores of the stories"}
    assert best["cross_entropy"].left_out == {3: "not scored with poly1"}


def test_all_losses_are_shown_with_the_seeds_of_all() -> None:
    best = choose([*trained("cross_entropy", 1, 2, 3, 4), *trained("focal", 1, 2, 3), *trained("poly1", 2, 3, 4)])
    assert {*map(tuple, seeds(best).values())} == {(2, 3)}
    assert best["cross_entropy"].left_out == {1: "not scored with poly1", 4: "not scored with focal"}


def test_a_loss_with_too_few_common_seeds_does_not_take_those_of_others() -> None:
    best = choose([*trained("cross_entropy", 1, 2, 3), *trained("focal", 1, 2), *trained("poly1", 1, 7)])
    assert seeds(best) == {"cross_entropy": [1, 2], "focal": [1, 2], "poly1": [1, 7]}
    note = "poly1 is shown with seeds 1, 7 and cross_entropy with seeds 1, 2, because they have too few scored seeds in"
    assert note in texts(scores.section(best), "note")
    assert "cross_entropy and poly1 have one seed in common" in verdict(best["cross_entropy"], best["poly1"]).text


def test_without_a_common_seed_all_runs_are_shown() -> None:
    best = choose([*trained("cross_entropy", 1, 2), *trained("poly1", 3, 4)])
    assert seeds(best) == {"cross_entropy": [1, 2], "poly1": [3, 4]}
    assert "poly1 is shown with seeds 3, 4 and cross_entropy with seeds 1, 2" in texts(scores.section(best), "note")
    assert "have no seed in common" in verdict(*best.values()).text
    (single,) = choose(trained("poly1", 1, 2)).values()
    assert single.left_out == {}


def test_a_single_run_is_no_reference_for_others() -> None:
    nll = {"val/nll": 0.0}
    best = choose([*trained("focal", 1, 2), *trained("poly1", 1, 2), *trained("brier", 9, metrics=nll)])
    assert selection.reference(best) == "focal"


def test_with_one_common_seed_its_models_are_compared() -> None:
    best = choose([*trained("cross_entropy", 1), *trained("poly1", 1, 2, 3)])
    assert seeds(best) == {"cross_entropy": [1], "poly1": [1]}
    text = verdict(*best.values()).text
    assert text.startswith("Not enough runs: cross_entropy and poly1 have one seed in common (1)")
    assert text.endswith("Left out: seeds 2, 3 of poly1 (not scored with cross_entropy).")


def test_two_settings_are_shown_with_their_common_seeds() -> None:
    rows = choose(trained("cross_entropy", 1, 2, 3, 4)), choose(trained("poly1", 1, 2))
    section = compare.section_on_two(*(setting for row in rows for setting in row.values()))
    (*_, of_seeds) = tables(section)["scores"].cells()
    assert [cell.text for cell in of_seeds[:3]] == ["seeds", "1, 2", "1, 2"]
    assert "Left out: seeds 3, 4 of cross_entropy (not scored with poly1)." in texts(section, "verdict")


def test_every_section_shows_the_same_runs() -> None:
    best = choose([complete_run("cross_entropy", seed) for seed in (1, 2, 3)] + [complete_run("poly1", 2)])
    (cross_entropy, poly1) = tables(calibration.section(best))["calibration"].cells()
    assert (cross_entropy[3].value, poly1[3].value) == (1, 1)


def test_the_best_setting_is_one_with_most_seeds() -> None:
    def scored(seed: int, lr: float, nll: float) -> RecordedRun:
        return run(seed=seed, optimizer__lr=lr, metrics={"val/nll": nll, "test/nll": nll})

    recorded = [*(scored(seed, 0.01, 1.0) for seed in (1, 2, 3)), scored(1, 0.1, 0.5)]
    assert len(choose(recorded)["squentropy"].runs) == 3
    assert choose(recorded[3:])["squentropy"].params["optimizer.lr"] == "0.1"


def test_a_setting_that_diverged_is_best_only_without_another() -> None:
    recorded = [
        run(seed=seed, optimizer__lr=lr, metrics={"val/nll": nll, "test/nll": nll})
        for seed in (1, 2, 3)
        for lr, nll in ((0.01, 1.0), (0.5, 0.0))
    ]
    recorded.append(diverged("squentropy", 4, optimizer__lr=0.5))
    assert choose(recorded)["squentropy"].params["optimizer.lr"] == "0.01"
    alone = choose([run for run in recorded if run.params["optimizer.lr"] == "0.5"])
    assert alone["squentropy"].left_out == {4: "diverged"}


def test_values_of_the_loss_parameters_are_rows() -> None:
    recorded = trained("cross_entropy", 1, 2)
    for weight in (1, 0.1, 0.01):
        for lr in (0.1, 0.2):
            nll = {"val/nll": abs(lr - weight)}  # the best learning rate depends on the weight
            recorded += trained("squentropy", 1, 2, loss__weight=weight, optimizer__lr=lr, metrics=nll)
    best = choose(recorded)
    assert {label: setting.params.get("optimizer.lr") for label, setting in best.items()} == {
        "cross_entropy": None,
        "squentropy weight=1": "0.2",
        "squentropy weight=0.1": "0.1",
        "squentropy weight=0.01": "0.1",
    }
    note = "Settings that were tried: 1 of cross_entropy, 6 of squentropy. A loss with more settings is more often"
    assert selection.effort(best.values()).startswith(note)
    equal = choose(recorded[:4])
    assert list(equal) == ["cross_entropy", "squentropy"]  # a single value needs no name
    assert selection.effort(equal.values()) == "Settings that were tried: 1 of cross_entropy, 1 of squentropy."


def searched(number: int, nll: float, seeds: tuple[int, ...], **options: object) -> list[RecordedRun]:
    """Return the runs of a trial of a search of the weight of squentropy."""
    tags = {"sweep": "squentropy-tiny", "trial": str(number)}
    scores = {"val/nll": nll}
    return trained("squentropy", *seeds, loss__weight=number / 7, tags=tags, metrics=scores, **options)


def test_the_best_of_a_search_stands_for_its_loss() -> None:
    trials = [run for i in range(30) for run in searched(i, abs(i - 12.2), (1, 2), optimizer__lr=i)]
    pruned = run("squentropy", 1, loss__weight=9, tags={"sweep": "squentropy-tiny", "pruned": "true"})
    best = choose([*trained("cross_entropy", 1, 2), *trials, pruned])
    assert list(best) == ["cross_entropy", "squentropy"]
    assert best["squentropy"].params["optimizer.lr"] == "12"
    assert "1 of cross_entropy, 31 of squentropy." in selection.effort(best.values())
    few = choose([run for run in trials if int(run.tags["trial"]) < 5])
    assert len(few) == 5  # so few that each value has a row


def test_values_that_a_search_chooses_from_a_list_are_rows() -> None:
    labels = ["squentropy weight=1", "squentropy weight=2"]
    alone = [run for i in (7, 14) for run in searched(i, 1.0, (1,))]
    assert list(choose(alone)) == labels
    with_others = [run for i in (7, 14, 7, 14) for run in searched(i, 1.0, (1,))]
    for i, one in enumerate(with_others):
        one.params["optimizer.lr"] = str(i)
    assert list(choose(with_others)) == labels


def test_values_that_are_listed_besides_a_search_are_rows() -> None:
    trials = [run for i in range(30) for run in searched(i, float(i), (1,))]
    listed = [run for w in (7, 8) for run in trained("squentropy", 1, 2, 3, loss__weight=w, tags={"sweep": "grid-1"})]
    assert list(choose([*trials, *listed])) == ["squentropy weight=7", "squentropy weight=8"]
    repeated = searched(0, 0.0, (2, 3))
    assert {*choose([*trials, *listed, *repeated])} == {f"squentropy weight={weight}" for weight in (0, 7, 8)}
    many = [run for w in range(9) for run in trained("squentropy", 1, 2, 3, loss__weight=w)]
    assert list(choose(many)) == ["squentropy"]


def test_programs_of_losses_may_differ_in_the_modules_of_a_user() -> None:
    own = trained("cross_entropy", 1, 2, tags={"code": "c+d"})
    for one in own:
        one.params["loss"] = "mine.cross_entropy"
    best = choose([*trained("cross_entropy", 1, 2, tags={"code": "c"}), *own])
    assert list(best) == ["cross_entropy", "mine.cross_entropy"]
    assert "different versions" not in verdict(*best.values()).text


def test_settings_without_test_scores_are_left_out() -> None:
    tuned = run("squentropy", 1, loss__weight=2, score_test=False, metrics={"val/nll": 0.0})
    best = choose([*trained("squentropy", 1, 2, loss__weight=1), tuned])
    assert list(best) == ["squentropy"]
    assert best["squentropy"].params["loss.weight"] == "1"
    assert best["squentropy"].n_tried == 2
