import csv
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from analysis import compare, stories, story_figures
from analysis.bootstrap import Difference
from analysis.figures import Figure
from analysis.page import Section, Table, Text, render
from analysis.runs import Run, Setting, load, settings
from analysis.verdict import decimals, verdict

N = 30
TOKENS = np.arange(100, 100 + N)
DIFFICULTY = np.random.default_rng(0).permutation(np.linspace(0.5, 1.5, N))


def stories_csv(nats: np.ndarray, *, text: str = "One  day,\na fox.", n_bytes: int = 4) -> str:
    file = io.StringIO()
    lines = csv.writer(file)
    lines.writerow(("story", "tokens", "bytes", "nll", "text"))
    order = np.argsort(nats)
    shown = {*order[:10].tolist(), *order[-10:].tolist()}
    for story, (tokens, value) in enumerate(zip(TOKENS, nats, strict=False)):
        lines.writerow((story, tokens, tokens * n_bytes, tokens * value, f"{story}: {text}" if story in shown else ""))
    return file.getvalue()


def run(
    loss: str,
    seed: int,
    nats: np.ndarray,
    *,
    text_hash: str = "abc",
    metrics: Any = None,
    csv_file: Any = "",
    **params: str,
) -> Run:
    """A finished run with these nats a token of each story; no artifact where csv_file is None."""
    nll = float((TOKENS[: len(nats)] * nats).sum() / TOKENS[: len(nats)].sum())
    return Run(
        id=f"{loss}-{seed}",
        name=f"{loss} tiny",
        status="FINISHED",
        started=seed,
        link="",
        artifact_uri="",
        params={"loss._target_": f"nanosq.losses.{loss}", "seed": str(seed)} | params,
        metrics={"test/nll": nll, "val/nll": nll, "test/bits_per_byte": nll / 4 / math.log(2)} | (metrics or {}),
        tags={"text": text_hash},
        _client=None,
        _texts={"stories.csv": stories_csv(nats) if csv_file == "" else csv_file},
    )


def setting(loss: str, seeds: tuple[int, ...] = (1, 2, 3), shift: float = 0.0, **options: Any) -> Setting:
    """Runs whose stories lie by `shift` nats a token, and a little luck, above their difficulty."""
    rng = np.random.default_rng([*loss.encode(), *seeds])
    found = [run(loss, seed, DIFFICULTY + shift + 0.01 * rng.standard_normal(N), **options) for seed in seeds]
    return settings(found)[0]


def texts(section: Section, kind: str) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Text) and block.kind == kind]


def tables(section: Section) -> dict[str, Table]:
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


def test_the_stories_of_a_run() -> None:
    found = stories.read(run("squentropy", 1, DIFFICULTY))
    assert found.tokens.tolist() == TOKENS.tolist()
    assert found.bytes.tolist() == (TOKENS * 4).tolist()
    np.testing.assert_allclose(found.nats, DIFFICULTY)
    assert len(found.texts) == 20


@pytest.mark.parametrize(
    ("csv_file", "metrics", "message"),
    [
        (None, {}, r"squentropy tiny \(squentro\) has no stories.csv"),
        ("", {"test/nll": 1.0}, "do not add up to its test/nll"),
        ("", {"test/nll": math.nan}, "do not add up to its test/nll"),
        ("story,tokens,bytes,nll\n0,1,4,1.0\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,1.0,x\n1,2\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,1.0,x\n1,2,8,1.x,x\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,nan,x\n", {"test/nll": 1.0}, "do not add up"),
        ("story,tokens,bytes,nll,text\n0,0,4,0.0,x\n", {"test/nll": 1.0}, "do not add up"),
    ],
)
def test_stories_that_are_not_used(csv_file: str | None, metrics: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stories.read(run("squentropy", 1, DIFFICULTY, csv_file=csv_file, metrics=metrics))


def test_the_sum_may_differ_by_a_millionth() -> None:
    nll = run("squentropy", 1, DIFFICULTY).metric("test/nll")
    stories.read(run("squentropy", 1, DIFFICULTY, metrics={"test/nll": nll * (1 + 5e-7)}))
    with pytest.raises(ValueError, match="add up"):
        stories.read(run("squentropy", 1, DIFFICULTY, metrics={"test/nll": nll * (1 + 2e-6)}))


def test_a_story_may_be_a_book() -> None:
    book = stories_csv(DIFFICULTY, text="word " * 50_000)
    table, _ = stories.extremes("a", 1, stories.read(run("squentropy", 1, DIFFICULTY, csv_file=book)))
    assert len(table.cells()[0][3].text) <= 200


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


def test_section() -> None:
    chosen = {
        loss: setting(loss, shift=shift)
        for loss, shift in (("focal", 0.0), ("cross_entropy", 0.2), ("squentropy", 0.4))
    }
    made = compare.section(chosen)
    first, second = texts(made, "verdict")
    assert first.endswith("focal is better.")
    assert second.endswith("cross_entropy is better.")
    pairs = tables(made)["pairs"].cells()
    assert [(row[0].text, row[1].text, row[-1].text) for row in pairs] == [
        ("cross_entropy", "focal", "focal"),
        ("cross_entropy", "squentropy", "cross_entropy"),
        ("focal", "squentropy", "focal"),
    ]
    assert [row[2].value for row in pairs] == pytest.approx([-0.2, 0.2, 0.4], abs=0.01)
    assert [row[5].value for row in pairs] == pytest.approx([math.exp(row[2].value) for row in pairs])  # type: ignore[arg-type]
    figures = [block.name for block in made.blocks if isinstance(block, Figure)]
    assert figures == ["stories-perplexity", "stories-focal-cross_entropy", "stories-squentropy-cross_entropy"]
    assert len(tables(made)) == 7
    assert "focal is better." in render("", "", [made])


def test_section_without_cross_entropy() -> None:
    made = compare.section({loss: setting(loss, shift=shift) for loss, shift in (("focal", 0.4), ("squentropy", 0.2))})
    assert texts(made, "verdict")[0].startswith("focal has a higher test nll than squentropy")


def test_sections_of_little() -> None:
    assert "No run has finished" in texts(compare.section({}), "note")[0]
    alone = compare.section({"squentropy": setting("squentropy")})
    assert texts(alone, "verdict") == []
    assert "Only squentropy has finished runs" in texts(alone, "note")[0]
    assert [block.name for block in alone.blocks if isinstance(block, Figure)] == ["stories-perplexity"]
    none = compare.section({loss: setting(loss, csv_file=None) for loss in ("cross_entropy", "focal")})
    assert "has its stories" in texts(none, "verdict")[0]
    assert "No run has stories.csv" in texts(none, "note")[-1]
    apart = compare.section({"cross_entropy": setting("cross_entropy"), "focal": setting("focal", text_hash="def")})
    assert "different texts" in texts(apart, "note")[0]


def test_the_easiest_and_the_hardest_stories() -> None:
    made = tables(compare.section({"squentropy": setting("squentropy", (5, 4))}))
    scored = stories.read(setting("squentropy", (5, 4)).runs[0])
    lowest, highest = (made[f"stories-{which}-squentropy"] for which in ("lowest", "highest"))
    assert "squentropy, seed 4" in lowest.caption
    assert [row[0].value for row in lowest.cells()] == np.argsort(scored.nats)[:10].tolist()
    assert [row[0].value for row in highest.cells()] == np.argsort(-scored.nats)[:10].tolist()
    story, perplexity, tokens, text = highest.cells()[0]
    assert perplexity.value == pytest.approx(math.exp(scored.nats.max()))
    assert tokens.value == TOKENS[int(story.text)]
    assert text.text == f"{story.text}: One day, a fox."


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What figures are made of, before they become pictures."""
    drawn: list[Any] = []
    finish = story_figures.finish

    def keep(drawing: Any, name: str, caption: str) -> Figure:
        drawn.append(drawing)
        return finish(drawing, name, caption)

    monkeypatch.setattr(story_figures, "finish", keep)
    return drawn


def test_figure_of_differences(drawings: list[Any]) -> None:
    nats_a = np.array([1.0, 1.0, 2.0, 2.0])
    made = story_figures.differences(("a", "b"), (nats_a, nats_a + np.array([0.3, -0.1, 0.1, 0.0])))
    scatter, curve = drawings[0].axes
    np.testing.assert_allclose(scatter.lines[1].get_ydata(), np.exp([1.3, 0.9, 2.1, 2.0]))
    np.testing.assert_allclose(curve.lines[0].get_ydata(), [-0.1, 0, 0.1, 0.3])
    np.testing.assert_allclose(curve.lines[0].get_xdata(), [12.5, 37.5, 62.5, 87.5])
    assert curve.texts[0].get_text() == "a better: 50.0 % of stories\nb better: 25.0 % of stories"
    assert curve.get_ylim()[0] < -0.1
    assert made.name == "stories-b-a"


def test_a_figure_of_many_stories_is_small() -> None:
    nats = np.random.default_rng(0).random(22_000)
    made = story_figures.differences(("a", "b"), (nats, nats + 0.1))
    assert len(made.svg) < 300_000
    assert "800 of the 22,000 stories" in made.caption


def test_figure_of_extreme_perplexities(drawings: list[Any]) -> None:
    story_figures.distributions({"a": np.array([1.0, 5_000.0]), "b": np.array([1.0, 1.0])}, ["a", "b"])
    assert np.isfinite(drawings[0].axes[0].get_xlim()).all()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two losses with two seeds each, a run that failed and one on another text."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    folder = tmp_path_factory.mktemp("artifacts")
    experiment = client.create_experiment("nanosq", artifact_location=folder.as_uri())
    made = [*setting("cross_entropy", (1, 2)).runs, *setting("squentropy", (1, 2), shift=0.25).runs]
    for each in (*made, run("failed", 1, DIFFICULTY), run("elsewhere", 1, DIFFICULTY, text_hash="def")):
        run_id = client.create_run(experiment, run_name=f"{each.loss}-{each.seed}", tags=each.tags).info.run_id
        for key, parameter in each.params.items():
            client.log_param(run_id, key, parameter)
        for key, metric in each.metrics.items():
            client.log_metric(run_id, key, metric)
        client.log_text(run_id, each.artifact("stories.csv") or "", "stories.csv")
        client.set_terminated(run_id, "FAILED" if each.loss == "failed" else "FINISHED")
    return uri


def test_command(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--tracking-uri", store, "--out", str(out)]
    assert compare.main(["cross_entropy-1", "squentropy-2", *arguments]) == 0
    told = capsys.readouterr().out
    assert told.startswith("squentropy has a higher test nll than cross_entropy by 0.2")
    assert "2 seeds, 30 stories" in told  # though two runs were named
    assert "loss._target_   nanosq.losses.cross_entropy  nanosq.losses.squentropy" in told
    assert "test/nll, nats a token" in told
    assert {path.name for path in out.iterdir()} >= {
        *("scores.csv", "settings.csv", "stories-perplexity.png", "stories-squentropy-cross_entropy.svg")
    }
    by_id = load(store)[0].id
    assert compare.main([by_id[:12], "squentropy-2", *arguments]) == 2
    assert "error: elsewhere and squentropy were scored on different texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("nothing", "squentropy-1"), "no run 'nothing'; there are"),
        (("failed-1", "squentropy-1"), "is failed: only finished runs have test scores"),
        (("squentropy-1", "squentropy-2"), "both are runs of one setting"),
    ],
)
def test_command_that_fails(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: tuple[str, str], message: str
) -> None:
    assert compare.main([*named, "--tracking-uri", store, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_command_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["a", "b", "--tracking-uri", f"sqlite:///{tmp_path}/none.db"]) == 2
    assert "experiment nanosq has no runs" in capsys.readouterr().err


def test_scores_show_their_range() -> None:
    runs = [run("squentropy", seed, DIFFICULTY, metrics={"test/ece": ece}) for seed, ece in ((1, 0.02), (2, 0.04))]
    rows = {row[0].text: row for row in tables(compare.of_two(setting("focal"), settings(runs)[0]))["scores"].cells()}
    assert rows["test/ece, %"][2].text == "3 (2 to 4)"
    assert rows["test/ece, %"][1].text == "\N{EN DASH}"
    assert rows["seeds"][2].text == "1, 2"


def test_a_setting_has_all_its_finished_seeds() -> None:
    runs = setting("squentropy").runs
    unfinished = run("squentropy", 9, DIFFICULTY)
    unfinished.status = "RUNNING"
    found = compare.setting_of([*runs, unfinished, *setting("focal").runs], runs[1])
    assert found == Setting("squentropy", runs[0].setting, runs, Counter({"running": 1}))
    with pytest.raises(ValueError, match="is running"):
        compare.setting_of([unfinished], unfinished)
