import math
from collections import Counter
from pathlib import Path

import mlflow
import numpy as np
import pytest

from analysis.figures import Figure
from analysis.page import Section, Table, Text, render
from analysis.report import compare, stories
from analysis.runs import RecordedSetting, load, settings
from tests.analysis.story_runs import DIFFICULTY, TOKENS, run, setting


def texts(section: Section, kind: str) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Text) and block.kind == kind]


def tables(section: Section) -> dict[str, Table]:
    return {block.name: block for block in section.blocks if isinstance(block, Table)}


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
    assert [(row[0].text, row[1].text, row[2].text) for row in pairs] == [
        ("cross_entropy", "focal", "focal"),
        ("cross_entropy", "squentropy", "cross_entropy"),
        ("focal", "squentropy", "focal"),
    ]
    assert [row[3].value for row in pairs] == pytest.approx([-0.2, 0.2, 0.4], abs=0.01)
    assert [row[6].value for row in pairs] == pytest.approx([math.exp(row[3].value) for row in pairs])  # type: ignore[arg-type]
    figures = [block.name for block in made.blocks if isinstance(block, Figure)]
    assert figures == ["stories-perplexity", "stories-focal-cross_entropy", "stories-squentropy-cross_entropy"]
    assert list(tables(made)) == ["pairs"]
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
    made = tables(compare.of_stories({"squentropy": setting("squentropy", (5, 4))}))
    scored = stories.read(setting("squentropy", (5, 4)).runs[0])
    lowest, highest = (made[f"stories-{which}-squentropy"] for which in ("lowest", "highest"))
    assert "squentropy, seed 4" in lowest.caption
    assert [row[0].value for row in lowest.cells()] == np.argsort(scored.nats)[:10].tolist()
    assert [row[0].value for row in highest.cells()] == np.argsort(-scored.nats)[:10].tolist()
    story, perplexity, tokens, text = highest.cells()[0]
    assert perplexity.value == pytest.approx(math.exp(scored.nats.max()))
    assert tokens.value == TOKENS[int(story.text)]
    assert text.text == f"{story.text}: One day, a fox."


def test_stories_of_runs_that_lack_them() -> None:
    chosen = {"focal": setting("focal", (1,), csv_file=None), "squentropy": setting("squentropy")}
    made = compare.of_stories(chosen)
    assert list(tables(made)) == ["stories-lowest-squentropy", "stories-highest-squentropy"]
    assert "Left out: focal tiny" in texts(made, "note")[0]


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
        *(
            "scores.csv",
            "settings.csv",
            "stories-lowest-squentropy.csv",
            "stories-perplexity.png",
            "stories-squentropy-cross_entropy.svg",
        )
    }
    by_id = load(store)[0].id
    assert compare.main([by_id[:12], "squentropy-2", *arguments]) == 2
    assert "error: elsewhere and squentropy were scored on different texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("nothing", "squentropy-1"), "there is no run 'nothing'; some of the runs"),
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
    assert found == RecordedSetting("squentropy", runs[0].setting, runs, Counter({"running": 1}))
    with pytest.raises(ValueError, match="is running"):
        compare.setting_of([unfinished], unfinished)
