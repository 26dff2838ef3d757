import pytest

from analysis.report.bootstrap import Difference
from analysis.report.verdict import decimals, verdict
from analysis.runs import settings
from tests.analysis.story_runs import DIFFICULTY, N, run, setting


def test_verdict_against_the_second() -> None:
    found = verdict(setting("cross_entropy"), setting("squentropy", shift=0.25))
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(0.25, abs=0.01)
    assert found.better == "cross_entropy"
    low, high = (f"{bound:.{decimals(found.difference)}f}" for bound in (found.difference.low, found.difference.high))
    assert found.text.startswith("squentropy has a higher test nll than cross_entropy by 0.2")
    assert f"(95 % interval {low} to {high}; 3 seeds, 30 stories; 0.0" in found.text
    assert " bits per byte, perplexity 1.2" in found.text
    assert found.text.endswith(" times as high): cross_entropy is better.")


def test_verdict_for_the_second() -> None:
    found = verdict(setting("cross_entropy", shift=0.25), setting("squentropy"))
    assert found.difference is not None
    assert found.difference.high < 0
    assert found.better == "squentropy"
    assert "squentropy has a lower test nll than cross_entropy by 0.2" in found.text
    low, high = (f"{-bound:.{decimals(found.difference)}f}" for bound in (found.difference.high, found.difference.low))
    assert f"95 % interval {low} to {high};" in found.text


def test_no_difference() -> None:
    found = verdict(setting("cross_entropy"), setting("squentropy", shift=0.0005))
    assert found.better == ""
    assert found.enough
    assert "the interval holds 0: no difference was found." in found.text


def test_bits_per_byte_are_those_of_the_runs() -> None:
    a, b = setting("cross_entropy"), setting("squentropy", shift=0.25)
    found = verdict(a, b)
    assert found.difference is not None
    of_runs = b.mean("test/bits_per_byte") - a.mean("test/bits_per_byte")
    assert found.difference.effect * found.bits_per_nat == pytest.approx(of_runs)
    assert found.difference.effect == pytest.approx(b.mean("test/nll") - a.mean("test/nll"))


def test_only_common_seeds_are_paired() -> None:
    a = settings([run("cross_entropy", seed, DIFFICULTY + seed) for seed in (3, 1, 2)])[0]
    b = settings([run("squentropy", seed, DIFFICULTY + seed + 0.5) for seed in (9, 3, 2)])[0]
    found = verdict(a, b)
    assert found.seeds == [2, 3]
    assert found.difference is not None
    assert (found.difference.effect, found.difference.n_seeds) == (pytest.approx(0.5), 2)


@pytest.mark.parametrize(("seeds", "common"), [((2, 7), "one seed in common (2)"), ((7, 8), "no seed in common")])
def test_not_enough_seeds(seeds: tuple[int, ...], common: str) -> None:
    found = verdict(setting("cross_entropy", (1, 2)), setting("squentropy", seeds, shift=0.25))
    assert found.text.startswith(f"Not enough runs: cross_entropy and squentropy have {common}")
    assert not found.enough
    assert found.better == ""
    assert "squentropy has a higher test nll than cross_entropy by 0.2" in found.text
    assert "over stories only" in found.text
    assert found.difference is not None
    assert not found.difference.seeds_resampled


def test_what_else_differs() -> None:
    a = setting("cross_entropy", metrics={"train/tokens": 1e6}, **{"optimizer.lr": "0.1", "model.n_layer": "2"})
    b = setting(
        "squentropy",
        metrics={"train/tokens": 2e6},
        **{"optimizer.lr": "0.2", "model.n_layer": "2", "loss.weight": "1.0", "device": "cuda"},
    )
    assert verdict(a, b).notes == [
        "They also differ in optimizer.lr: the loss need not be the cause.",
        "Warning: they were trained on different numbers of tokens, 1,000,000 and 2,000,000.",
    ]
    assert verdict(a, setting("focal", **{"optimizer.lr": "0.1", "model.n_layer": "2"})).notes == []


def test_two_settings_of_one_loss() -> None:
    a, b = (setting("squentropy", shift=shift, **{"loss.weight": str(shift)}) for shift in (0.1, 0.5))
    found = verdict(a, b)
    assert (found.a, found.b, found.better) == ("squentropy A", "squentropy B", "squentropy A")
    assert found.notes == ["They differ in loss.weight."]


def test_one_setting_twice() -> None:
    with pytest.raises(ValueError, match="both are runs of one setting of squentropy"):
        verdict(setting("squentropy"), setting("squentropy", (7, 8)))


def test_different_texts() -> None:
    with pytest.raises(ValueError, match=r"scored on different texts.*\(text abc and def\)"):
        verdict(setting("cross_entropy"), setting("squentropy", text_hash="def"))
    half = settings([run("squentropy", seed, DIFFICULTY[: N // 2]) for seed in (1, 2)])[0]
    with pytest.raises(ValueError, match="scored on different texts"):
        verdict(setting("cross_entropy"), half)


def test_a_run_without_its_stories_is_left_out() -> None:
    lacking = settings([*setting("squentropy", shift=0.25).runs, run("squentropy", 4, DIFFICULTY, csv_file=None)])[0]
    found = verdict(setting("cross_entropy", (1, 2, 3, 4)), lacking)
    assert found.seeds == [1, 2, 3]
    assert found.notes[-1].startswith("Left out: squentropy tiny (squentro) has no stories.csv")
    nothing = verdict(setting("cross_entropy"), setting("squentropy", csv_file=None))
    assert nothing.difference is None
    assert nothing.text.startswith("Not enough runs: no run of squentropy has its stories")


def test_one_story() -> None:
    a, b = (settings([run(loss, seed, DIFFICULTY[:1]) for seed in (1, 2)])[0] for loss in ("cross_entropy", "focal"))
    assert verdict(a, b).text.startswith("Not enough stories")


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [(0.373, 0.399, 3), (-0.5, 1.5, 1), (-300.0, 100.0, 0), (0.0002, 0.034, 4), (0.25, 0.25 + 1e-16, 6)],
)
def test_digits_of_a_difference(low: float, high: float, digits: int) -> None:
    assert decimals(Difference((low + high) / 2, low, high, 1.0, 2, 2, True)) == digits
