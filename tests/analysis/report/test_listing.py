"""The order of the comparisons, and that other runs do not change the result that the page begins with."""

import pytest

from analysis.recorded_run import RecordedRun
from analysis.report import listing, opening
from analysis.report.matched import BEST, Matched
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import complete_run

LOSSES = ("cross_entropy", "squentropy")
MUON = {"optimizer": "Muon", "optimizer__lr": 0.008, "model": "GPT"}
ADAMW = {**MUON, "optimizer": "torch.optim.AdamW", "optimizer__lr": 0.001}
PRESET = {**MUON, "optimizer__lr": 0.02, "model__n_layer": 4, "loss__weight": 0.001}


def both(*seeds: int, **options: object) -> list[RecordedRun]:
    return [complete_run(loss, seed, **{**MUON, **options}) for loss in LOSSES for seed in seeds]


def searched(*seeds: int) -> list[RecordedRun]:
    """Return runs of the best preset of a search for squentropy, with a lower nll than any other run."""
    runs = [complete_run("squentropy", seed, **PRESET) for seed in seeds]
    for run in runs:
        run.metrics["val/nll"] = 0.01
    return runs


def listed(*groups: list[RecordedRun]) -> list[Matched]:
    return listing.comparisons([run for group in groups for run in group], [])


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_a_searched_preset_does_not_change_the_result(seeds: tuple[int, ...]) -> None:
    default = both(*seeds)
    (alone,) = listed(default)
    first, best = listed(default, searched(1, 2, 3))
    assert (first.name, first.headline()) == (alone.name, alone.headline())
    assert {run.params["optimizer.lr"] for run in first.runs} == {"0.008"}
    assert (best.name, best.settings["squentropy"].params["model.n_layer"]) == (BEST, "4")
    assert not any(result.better for result in best.against("squentropy"))
    text = texts(listing.section([first, best], first))
    assert "They also differ in model.n_layer and optimizer.lr, so this does not show which loss is better." in text
    assert "squentropy is better" not in text + texts(opening.section(first))


def test_other_runs_do_not_change_the_result() -> None:
    losses = both(1, 2)
    (alone,) = listed(losses)
    others = {
        "optimizers": [complete_run("cross_entropy", seed, **ADAMW) for seed in (1, 2, 3)],
        "another batch size": [complete_run("squentropy", seed, **MUON, train__batch_size=8) for seed in (1, 2, 3)],
        "a run that is running": [complete_run("squentropy", 3, **MUON, status="RUNNING")],
        "another text": [complete_run("squentropy", seed, **MUON, tags={"text": "other"}) for seed in (1, 2, 3)],
    }
    for name, runs in others.items():
        first, *_ = listed(losses, runs)
        assert (first.name, first.headline()) == (alone.name, alone.headline()), name
        assert texts(opening.section(first), "note") == texts(opening.section(alone), "note"), name
    worse = both(1, 2, train__batch_size=2)
    for run in worse:
        run.metrics["val/nll"] += 1
    first, *rest = listed(losses, *others.values(), worse)
    assert (first.name, first.headline()) == (alone.name, alone.headline())
    assert [each.what for each in rest if each.name != BEST] == ["loss", "optimizer"]


def test_the_order_is_that_of_the_rule() -> None:
    few, many, more = both(1, 2, seq="few"), both(1, 2, 3, seq="many"), both(1, 2, 3, 4, seq="more")
    longer = both(1, 2, 3, seq="longer")
    for run in longer:
        run.metrics["train/tokens"] *= 2
    for run in more:
        run.metrics["val/nll"] += 1
    order = [each.runs[0].params["seq"] for each in listed(few, more, many, longer)]
    assert order == ["longer", "many", "more", "few"]  # three seeds are as good as more
    assert [each.n_seeds for each in listed(more, few)] == [4, 2]


def test_what_a_newer_program_repeats_comes_last() -> None:
    older, other = both(1, 2, 3, tags={"code": "older"}), both(1, train__batch_size=8, tags={"code": "older"})
    newer = [*both(1, 2), *(complete_run("focal", seed, **MUON) for seed in (1, 2))]
    first, *rest = listed(newer, older[3:], older[:3], other)
    assert [first.runs[0].program, *(each.n_seeds for each in rest)] == ["c", 1, 3]


def test_every_comparison_has_its_verdict_on_the_page() -> None:
    found = listed(both(1, 2, 3), both(1, 2, model__n_layer=3), both(1, tags={"text": "other"}))
    section = listing.section(found, found[0], ["compare-1a2b: This comparison is not finished."])
    first, second, third = tables(section)["comparisons"].cells()
    assert [cell.text for cell in first[:4]] == [
        *(found[0].name, "loss: cross_entropy, squentropy", "6", "3"),
    ]
    assert first[0].strong
    assert not second[0].strong
    assert second[1].text == "loss: cross_entropy, squentropy (layers 3)"
    assert third[1].text == "loss: cross_entropy, squentropy (text other)"
    assert [row[4].text for row in (first, second, third)] == [each.headline() for each in found]
    assert listing.RULE in texts(section, "note")
    assert "This comparison is not finished." in texts(section)


def test_a_comparison_is_picked_by_its_name() -> None:
    found = listed(both(1, 2), both(1, train__batch_size=2))
    assert listing.pick(found, None) is found[0]
    assert listing.pick(found, found[1].name) is found[1]
    with pytest.raises(ValueError, match=f"no comparison 'typo': --show takes one of {found[0].name}, {found[1].name}"):
        listing.pick(found, "typo")
    assert listing.pick([], None) is None


def test_a_loss_without_a_result_is_named() -> None:
    lost = [complete_run("focal", seed, **MUON, tags={"diverged": "true"}) for seed in (1, 2)]
    lost.append(complete_run("focal", 3, **MUON, status="FAILED"))
    (alone,) = listed(both(1, 2)[:2], lost)
    assert texts(opening.section(alone), "verdict") == (
        "A verdict needs two contenders, and only cross_entropy has runs with test scores on this text. focal "
        "has no result: 2 runs diverged and 1 run failed. Train again with other settings, as a lower optimizer.lr."
    )
    assert texts(opening.section(alone), "note") == ""
    (two,) = listed(both(1, 2), lost)
    assert texts(opening.section(two), "note") == "focal has no result: 2 runs diverged and 1 run failed."
    elsewhere = [complete_run("focal", 1, **ADAMW, tags={"diverged": "true"})]
    for others in ([complete_run("focal", 4, **MUON, status="RUNNING"), *lost], elsewhere):
        assert texts(opening.section(listed(both(1, 2), others)[0]), "note") == ""


def test_without_a_comparison_the_best_settings_are_shown() -> None:
    (best,) = listed([complete_run("squentropy", 1)])
    assert (best.name, [*best.settings]) == (BEST, ["squentropy"])
    assert "only squentropy has runs with test scores on this text" in texts(opening.section(best), "verdict")
    (best,) = listed(both(1, 2)[:2], searched(1, 2))
    text = texts(opening.section(best), "verdict")
    assert "so this does not show which loss is better." in text
    assert "differ only" not in text
    different = "learning rate (cross_entropy: 0.008; squentropy: 0.02) and layers (cross_entropy: 2; squentropy: 4)"
    assert f"Not the same: {different}." in texts(opening.section(best))
    assert listing.comparisons([complete_run(status="RUNNING")], []) == []
