"""The test stories of a run, from the artifact stories.csv."""

import math
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from analysis.page import Cell, Table, number
from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting

FILE = "stories.csv"
TOLERANCE = 1e-6  # of the sum over stories from the run's own score, relative
EXTREMES = 10
OVERFLOW = 700.0  # nats
SHOWN = 200  # characters of a story


@dataclass(frozen=True)
class Stories:
    """Scores of the stories of a split, in its order; arrays of shape (n_stories,)."""

    tokens: NDArray[np.float64]  # with the end of text
    bytes: NDArray[np.float64]  # UTF-8, without the end of text
    nll: NDArray[np.float64]  # nats, summed over the tokens of each story
    texts: dict[int, str]  # of the easiest and the hardest by nats a token

    @property
    def nats(self) -> NDArray[np.float64]:
        """Nats per token of each story, the logarithm of its perplexity."""
        return self.nll / self.tokens


BySeed = dict[int, Stories]


@cache
def read(run: RecordedRun) -> Stories:
    """Return the stories of a run. Raise ValueError if it has none or they do not add up to its score."""
    rows = run.rows(FILE)
    if not rows:
        raise ValueError(f"{run.name} ({run.id[:8]}) has no {FILE}: train it again to score each story")
    try:
        tokens, n_bytes, nll = (np.array([float(row[key]) for row in rows]) for key in ("tokens", "bytes", "nll"))
        texts = {number: row["text"] for number, row in enumerate(rows) if row["text"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FILE} of {run.name} ({run.id[:8]}) is damaged: train it again") from error
    total = run.metric("test/nll") * tokens.sum()
    if not ((tokens > 0).all() and math.isclose(nll.sum(), total, rel_tol=TOLERANCE)):
        raise ValueError(f"the stories of {run.name} ({run.id[:8]}) do not add up to its test/nll: train it again")
    return Stories(tokens, n_bytes, nll, texts)


def by_seed(setting: RecordedSetting) -> tuple[BySeed, list[str]]:
    """Return the stories of the runs by seed, and why runs are left out."""
    found, left_out = {}, []
    for run in setting.runs:
        try:
            found[run.seed] = read(run)
        except ValueError as error:
            left_out.append(f"Left out: {error}.")
    return found, left_out


def mean_nats(found: BySeed) -> NDArray[np.float64]:
    """Return the nats per token of each story, averaged over seeds: (n_stories,)."""
    return np.mean([stories.nats for stories in found.values()], axis=0)


def extremes(label: str, seed: int, stories: Stories) -> list[Table]:
    """Return tables of the stories with the lowest and the highest perplexity, with the beginning of their text."""
    order = np.argsort(stories.nats, kind="stable").tolist()
    count = min(EXTREMES, len(order))
    name = file_name(label)
    return [
        Table(
            f"stories-{which}-{name}",
            ["story", "perplexity", "tokens", "text"],
            [_row(stories, story) for story in chosen],
            f"{label}, seed {seed}: the {count} test stories of the {which} perplexity",
            folded=True,
        )
        for which, chosen in (("lowest", order[:count]), ("highest", order[::-1][:count]))
    ]


def file_name(label: str) -> str:
    """Return the part of a file name that stands for a setting."""
    return re.sub(r"[^\w.=]+", "-", label)


def exp(nats: float) -> float:
    """Return the exponential, or inf if it overflows."""
    return math.exp(nats) if nats < OVERFLOW else math.inf


def _row(stories: Stories, story: int) -> list[Cell]:
    text = " ".join(stories.texts.get(story, "").split())
    return [
        Cell(f"{story}", story),
        number(exp(float(stories.nats[story]))),
        Cell(f"{stories.tokens[story]:,.0f}", int(stories.tokens[story])),
        Cell(text if len(text) <= SHOWN else text[: SHOWN - 1].rsplit(" ", 1)[0] + "\N{HORIZONTAL ELLIPSIS}"),
    ]
