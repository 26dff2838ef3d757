import math
from pathlib import Path

import numpy as np
import pytest

from analysis.page import Section, render
from analysis.report import compare, stories
from analysis.runs import RecordedSetting, settings
from tests.analysis.blocks import figure_names, tables, texts
from tests.analysis.conftest import MLflowStore
from tests.analysis.recorded import DIFFICULTY, TOKENS, run, story_run, story_setting
from tests.analysis.report.chosen import compared

NO_STORIES = {"stories.csv": None}


def section_of(shifts: dict[str, float]) -> Section:
    return compare.section(compared({loss: story_setting(loss, shift=shift) for loss, shift in shifts.items()}))


def test_section_with_three_losses() -> None:
    section = section_of({"focal": 0.0, "cross_entropy": 0.2, "squentropy": 0.4})
    first, second = texts(section, "verdict").splitlines()
    assert first.startswith("focal is better: ")
    assert second.startswith("cross_entropy is better: ")
    pairs = tables(section)["pairs"].cells()
    assert [(row[0].text, row[1].text, row[2].text) for row in pairs] == [
        ("cross_entropy", "focal", "focal"),
        ("cross_entropy", "squentropy", "cross_entropy"),
        ("focal", "squentropy", "focal"),
    ]
    assert [row[3].value for row in pairs] == pytest.approx([-0.2, 0.2, 0.4], abs=0.01)
    assert [row[6].value for row in pairs] == pytest.approx([math.exp(row[3].value) for row in pairs])  # type: ignore[arg-type]
    expected = ["stories-perplexity", "stories-focal-cross_entropy", "stories-squentropy-cross_entropy"]
    assert figure_names(section) == expected
    assert list(tables(section)) == ["pairs", "differences"]
    assert tables(section)["differences"].header[1:3] == ["cross_entropy", "focal"]
    assert "focal is better" in render("", "", [section])


def test_of_two_losses_the_opening_has_the_only_verdict() -> None:
    section = section_of({"cross_entropy": 0.2, "squentropy": 0.4})
    assert texts(section, "verdict") == ""
    assert list(tables(section)) == ["pairs", "differences"]


def test_what_is_missing_is_a_note() -> None:
    alone = section_of({"squentropy": 0.0})
    assert tables(alone) == {}
    assert figure_names(alone) == ["stories-perplexity"]
    losses = ("cross_entropy", "focal")
    none = compare.section(compared({loss: story_setting(loss, artifacts=NO_STORIES) for loss in losses}))
    assert "No run has stories.csv" in texts(none, "note")
    assert tables(none)["pairs"].cells()[0][2].text == "not enough runs"


def test_easiest_and_hardest_stories() -> None:
    setting = story_setting("squentropy", (5, 4))
    by_name = tables(stories.section({"squentropy": setting}))
    scores = stories.read(setting.runs[0])
    lowest, highest = (by_name[f"stories-{which}-squentropy"] for which in ("lowest", "highest"))
    assert "squentropy, seed 4" in lowest.caption
    assert [row[0].value for row in lowest.cells()] == np.argsort(scores.nats)[:10].tolist()
    assert [row[0].value for row in highest.cells()] == np.argsort(-scores.nats)[:10].tolist()
    story, perplexity, tokens, text = highest.cells()[0]
    assert perplexity.value == pytest.approx(math.exp(scores.nats.max()))
    assert tokens.value == TOKENS[int(story.text)]
    assert text.text == f"{story.text}: One day, a fox."


def test_stories_of_a_loss_without_scores_are_left_out() -> None:
    best = {"focal": story_setting("focal", (1,), artifacts=NO_STORIES), "squentropy": story_setting("squentropy")}
    section = stories.section(best)
    assert list(tables(section)) == ["stories-lowest-squentropy", "stories-highest-squentropy"]
    assert "Left out: focal " in texts(section, "note")


@pytest.fixture(scope="module")
def uri(store: MLflowStore) -> str:
    """Two losses with two seeds each, a run that failed and one on another text."""
    recorded = [*story_setting("cross_entropy", (1, 2)).runs, *story_setting("squentropy", (1, 2), shift=0.25).runs]
    recorded.append(story_run("failed", 1, DIFFICULTY, status="FAILED"))
    recorded.append(story_run("elsewhere", 1, DIFFICULTY, tags={"text": "other"}))
    for scored in recorded:
        scored.name = f"{scored.loss}-{scored.seed}"
    store.write("compare", recorded)
    return store.uri


def test_command(uri: str, store: MLflowStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["--tracking-uri", uri, "--experiment", "compare", "--out", str(out)]
    assert compare.main(["cross_entropy-1", "squentropy-2", *options]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("cross_entropy is better: the test nll of squentropy is 0.2")
    assert "2 seeds, 30 stories" in printed  # all seeds of the settings of the two named runs
    assert "loss cross_entropy squentropy" in printed
    assert "test nll, nats/token" in printed
    files = {"stories-perplexity.png", "stories-squentropy-cross_entropy.svg", "stories-lowest-squentropy.csv"}
    assert {"differences.csv", "settings.csv", *files} <= {p.name for p in out.iterdir()}
    last = store.load("compare")[0].id
    assert compare.main([last[:12], "squentropy-2", *options]) == 2
    assert "error: elsewhere and squentropy were scored on different text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["nothing", "squentropy-1"], "there is no run 'nothing'; some of the runs: "),
        (["failed-1", "squentropy-1"], "is failed: only finished runs have test scores"),
        (["squentropy-1", "squentropy-2"], "both runs have the same setting"),
        (["a", "b", "--experiment", "nothing"], "experiment nothing has no runs"),
    ],
)
def test_bad_input_is_one_line(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: list[str], message: str
) -> None:
    options = ["--tracking-uri", uri, "--experiment", "compare", "--out", str(tmp_path / "out")]
    assert compare.main([*options, *named]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scores_of_two_settings() -> None:
    scored = [
        story_run("squentropy", seed, DIFFICULTY, metrics={"test/ece": ece}) for seed, ece in ((1, 0.02), (2, 0.04))
    ]
    section = compare.section_on_two(story_setting("focal"), settings(scored)[0])
    rows = {row[0].text: row for row in tables(section)["differences"].cells()}
    assert rows["ece, %"][2].text == "3 ± 13"
    assert rows["ece, %"][1].text == "\N{EN DASH}"
    assert rows["seeds"][2].text == "1, 2"


def test_a_run_of_an_older_program_stands_for_that_program() -> None:
    older, newer = (
        [story_run("squentropy", seed, DIFFICULTY + i, tags={"code": code}) for seed in (1, 2)]
        for i, code in enumerate(("old", "new"))
    )
    both = [compare.setting_of([*older, *newer], scored[0]) for scored in (older, newer)]
    assert [setting.runs for setting in both] == [older, newer]
    text = texts(compare.section_on_two(*both), "verdict")
    assert text.startswith("The runs of squentropy B have a test nll that is 1")
    assert text.endswith("They differ in the version of the program, so this does not show what causes the difference.")


def test_a_setting_has_all_finished_seeds() -> None:
    seeds = [run(seed=seed) for seed in (1, 2, 3)]
    running = run(seed=9, status="RUNNING")
    actual = compare.setting_of([*seeds, running, run("focal", 1)], seeds[1])
    assert actual == RecordedSetting("squentropy", seeds[0].setting, seeds, {9: "running"})
    with pytest.raises(ValueError, match="is running"):
        compare.setting_of([running], running)
