"""The scores of the test stories of a run, from the artifact stories.csv, and the easiest and hardest stories."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from analysis.page import Block, Row, Section, Table, Text, number
from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting

FILE = "stories.csv"
TOLERANCE = 1e-6  # relative, between the sum over the stories and the score of the run
N_EXTREMES = 10
MAX_NATS = 700.0  # exp of more overflows
MAX_CHARACTERS = 200  # of a story in a table


@dataclass(frozen=True)
class StoryScores:
    """Scores of the stories in the order of the split. Arrays have the shape (n_stories,)."""

    tokens: NDArray[np.float64]  # with the end-of-text token
    bytes: NDArray[np.float64]  # of the text in UTF-8
    nll: NDArray[np.float64]  # nats, summed over the tokens of a story
    texts: dict[int, str]  # of the stories with the lowest and the highest nats per token

    @property
    def nats(self) -> NDArray[np.float64]:
        """Nats per token of each story."""
        return self.nll / self.tokens


def section(best: Mapping[str, RecordedSetting]) -> Section:
    """Return the easiest and the hardest stories of each loss, for its first seed."""
    blocks: list[Block] = []
    for loss, setting in best.items():
        scores, notes = read_seeds(setting)
        blocks += [Text(note, "note") for note in notes]
        if scores:
            blocks += extremes(loss, min(scores), scores[min(scores)])
    return Section("Stories", blocks)


@cache
def read(run: RecordedRun) -> StoryScores:
    """Return the story scores of a run. Raise ValueError if they are missing, damaged or do not give its test nll."""
    name = f"{run.name} ({run.id[:8]})"
    rows = run.rows(FILE)
    if not rows:
        raise ValueError(f"{name} has no {FILE}: train it again to score every story")
    try:
        tokens, n_bytes, nll = (np.array([float(row[key]) for row in rows]) for key in ("tokens", "bytes", "nll"))
        texts = {number: row["text"] for number, row in enumerate(rows) if row["text"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FILE} of {name} is damaged: train it again") from error
    total = run.metric("test/nll") * tokens.sum()
    if not ((tokens > 0).all() and math.isclose(nll.sum(), total, rel_tol=TOLERANCE)):
        raise ValueError(f"the stories of {name} do not add up to its test/nll: train it again")
    return StoryScores(tokens, n_bytes, nll, texts)


def read_seeds(setting: RecordedSetting) -> tuple[dict[int, StoryScores], list[str]]:
    """Return the story scores of a setting by seed, and a sentence about every run that is left out."""
    scores, notes = {}, []
    for run in setting.runs:
        try:
            scores[run.seed] = read(run)
        except ValueError as error:
            notes.append(f"Left out: {error}.")
    return scores, notes


def extremes(label: str, seed: int, scores: StoryScores) -> list[Table]:
    """Return tables of the stories with the lowest and with the highest perplexity of one run."""
    order = np.argsort(scores.nats, kind="stable").tolist()
    tables = []
    for which, stories in (("lowest", order[:N_EXTREMES]), ("highest", order[::-1][:N_EXTREMES])):
        rows: list[Row] = []
        for story in stories:
            text = " ".join(scores.texts.get(story, "").split())
            if len(text) > MAX_CHARACTERS:
                text = text[: MAX_CHARACTERS - 1].rsplit(" ", 1)[0] + "\N{HORIZONTAL ELLIPSIS}"
            rows.append([story, number(exp(float(scores.nats[story]))), number(int(scores.tokens[story])), text])
        caption = f"{label}, seed {seed}: the {len(rows)} test stories with the {which} perplexity"
        name = f"stories-{which}-{file_name(label)}"
        tables.append(Table(name, ["story", "perplexity", "tokens", "text"], rows, caption, folded=True))
    return tables


def file_name(label: str) -> str:
    """Return a label without the characters that do not belong into a file name."""
    return re.sub(r"[^\w.=]+", "-", label)[:100]


def exp(nats: float) -> float:
    """Return a perplexity, or the ratio of two; inf if it is too large for a float."""
    return math.exp(nats) if nats < MAX_NATS else math.inf
