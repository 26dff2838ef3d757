import math
from typing import Any

import numpy as np
import pytest

from analysis.report import stories, story_figures
from tests.analysis.recorded import DIFFICULTY, TOKENS, stories_csv, story_run


def test_scores_of_the_stories_of_a_run() -> None:
    scores = stories.read(story_run("squentropy", 1, DIFFICULTY))
    assert scores.tokens.tolist() == TOKENS.tolist()
    assert scores.bytes.tolist() == (TOKENS * 4).tolist()
    np.testing.assert_allclose(scores.nats, DIFFICULTY)
    assert len(scores.texts) == 20


@pytest.mark.parametrize(
    ("csv_file", "metrics", "message"),
    [
        (None, {}, r"squentropy \d+ \(\w{8}\) has no stories.csv"),
        ("", {"test/nll": 1.0}, "do not add up to its test/nll"),
        ("", {"test/nll": math.nan}, "do not add up to its test/nll"),
        ("story,tokens,nll,text\n0,1,1.0,x\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,1.0,x\n1,2\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,1.0,x\n1,2,8,1.x,x\n", {"test/nll": 1.0}, "is damaged"),
        ("story,tokens,bytes,nll,text\n0,1,4,nan,x\n", {"test/nll": 1.0}, "do not add up"),
        ("story,tokens,bytes,nll,text\n0,0,4,0.0,x\n", {"test/nll": 1.0}, "do not add up"),
    ],
)
def test_unusable_stories_are_an_error(csv_file: str | None, metrics: dict[str, float], message: str) -> None:
    options = {} if csv_file == "" else {"artifacts": {"stories.csv": csv_file}}
    with pytest.raises(ValueError, match=message):
        stories.read(story_run("squentropy", 1, DIFFICULTY, metrics=metrics, **options))


def test_the_sum_of_the_stories_may_differ_by_a_millionth() -> None:
    nll = story_run("squentropy", 1, DIFFICULTY).metric("test/nll")
    stories.read(story_run("squentropy", 1, DIFFICULTY, metrics={"test/nll": nll * (1 + 5e-7)}))
    with pytest.raises(ValueError, match="add up"):
        stories.read(story_run("squentropy", 1, DIFFICULTY, metrics={"test/nll": nll * (1 + 2e-6)}))


def test_a_long_story_is_cut_in_the_table() -> None:
    book = stories_csv(DIFFICULTY, text="word " * 50_000)
    table, _ = stories.extremes(
        "a", 1, stories.read(story_run("squentropy", 1, DIFFICULTY, artifacts={"stories.csv": book}))
    )
    assert len(table.cells()[0][3].text) <= 200


def test_figure_of_differences(drawings: dict[str, Any]) -> None:
    nats_a = np.array([1.0, 1.0, 2.0, 2.0])
    figure = story_figures.differences(("a", "b"), (nats_a, nats_a + np.array([0.3, -0.1, 0.1, 0.0])))
    scatter, curve = drawings["stories-b-a"].axes
    np.testing.assert_allclose(scatter.lines[1].get_ydata(), np.exp([1.3, 0.9, 2.1, 2.0]))
    np.testing.assert_allclose(curve.lines[0].get_ydata(), [-0.1, 0, 0.1, 0.3])
    np.testing.assert_allclose(curve.lines[0].get_xdata(), [12.5, 37.5, 62.5, 87.5])
    assert [text.get_text() for text in curve.texts] == [
        "a is better: 50.0 % of stories",
        "b is better: 25.0 % of stories",
    ]
    assert curve.get_ylim()[0] < -0.1
    assert figure.name == "stories-b-a"


def test_a_figure_of_many_stories_is_small() -> None:
    nats = np.random.default_rng(0).random(22_000)
    figure = story_figures.differences(("a", "b"), (nats, nats + 0.1))
    assert len(figure.svg) < 300_000
    assert "800 of the 22,000 stories" in figure.caption


def test_histograms_have_a_common_axis_of_counts_and_their_medians(drawings: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    nats = {"a": generator.normal(0.4, 0.1, 300), "b": generator.normal(1.0, 0.1, 300)}
    story_figures.distributions(nats, ["a", "b"])
    rows = drawings["stories-perplexity"].axes
    assert [row.get_title(loc="left") for row in rows] == ["a", "b"]
    assert rows[0].get_ylim() == rows[1].get_ylim()
    for row, values in zip(rows, nats.values(), strict=True):
        counts = row.patches[0].get_data().values
        assert counts.sum() == 300
        assert row.get_ylim()[1] > counts.max()
        assert len([tick for tick in row.get_yticks() if tick <= row.get_ylim()[1]]) >= 3
        assert row.texts[0].get_text() == f"median {np.exp(np.median(values)):.3g}"
    assert drawings["stories-perplexity"].subfigs[0].get_supylabel() == "Number of test stories"


def test_figure_of_extreme_perplexities(drawings: dict[str, Any]) -> None:
    story_figures.distributions({"a": np.array([1.0, 5_000.0]), "b": np.array([1.0, 1.0])}, ["a", "b"])
    assert np.isfinite(drawings["stories-perplexity"].axes[0].get_xlim()).all()
