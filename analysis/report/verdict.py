"""The verdict on two settings: which one is better, how certain that is, and what else could be the cause."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.page import MINUS, number
from analysis.report import selection, stories
from analysis.report.bootstrap import Difference, paired
from analysis.runs import RecordedSetting, differing

MAX_DECIMALS = 6
MORE_SEEDS = "python run.py -m ... seed=1,2,3"


@dataclass(frozen=True)
class Verdict:
    """The verdict on settings a and b. Differences are b minus a on the test split."""

    a: str
    b: str
    sentence: str
    difference: Difference | None = None  # nats per token; None if a setting has no scores of stories
    seeds: Sequence[int] = ()  # that both settings have
    bits_per_nat: float = math.nan  # bits per byte that correspond to one nat per token in this text
    notes: Sequence[str] = ()  # what else differs between the two, and which runs are left out

    @property
    def has_enough_seeds(self) -> bool:
        """True if there are enough runs for a verdict."""
        return self.difference is not None and len(self.seeds) > 1

    @property
    def better(self) -> str:
        """The better setting; empty if no difference was found or there are too few runs."""
        if self.difference is None or not self.has_enough_seeds or self.difference.includes_zero:
            return ""
        return self.b if self.difference.effect < 0 else self.a

    @property
    def text(self) -> str:
        """The sentence and the notes."""
        return " ".join([self.sentence, *self.notes])


def verdict(
    a: RecordedSetting,
    b: RecordedSetting,
    *,
    labels: Sequence[str] = (),
    compared: Sequence[str] = (),
    more_seeds: str = MORE_SEEDS,
    n_draws: int = 10_000,
) -> Verdict:
    """Compare two settings by their runs with common seeds.

    Args:
        a: The first setting.
        b: The second setting.
        labels: Their labels; by default their losses with what distinguishes them.
        compared: Keys and groups of keys that are compared or that were tuned for both, so that they are no other cause
            of a difference. The parameters of two losses always are such keys.
        more_seeds: How to train with more seeds.
        n_draws: Number of bootstrap samples.

    Raises:
        ValueError: The settings were scored on different text.
    """
    label_a, label_b = labels or selection.labels([a, b])
    texts = list(dict.fromkeys(run.text_hash or "unknown" for setting in (a, b) for run in setting.runs))
    other_text = f"{label_a} and {label_b} were scored on different text: compare runs with the same data"
    if len(texts) > 1:
        raise ValueError(f"{other_text} (text {' and '.join(texts)})")
    (scores_a, missing_a), (scores_b, missing_b) = stories.read_seeds(a), stories.read_seeds(b)
    others = other_keys(a, b, compared)
    notes = [_other_causes(a, b, others, compared)] if others else []
    notes += [*_notes(a, b, label_a, label_b), *missing_a, *missing_b]
    if not (scores_a and scores_b):
        labels = " or ".join(label for label, scores in ((label_a, scores_a), (label_b, scores_b)) if not scores)
        sentence = f"Not enough runs: no run of {labels} has the scores of its stories. Train with {more_seeds}."
        return Verdict(label_a, label_b, sentence, notes=notes)
    tokens, n_bytes = next((scores.tokens, scores.bytes) for scores in scores_a.values())
    if not all(np.array_equal(tokens, scores.tokens) for scores in (*scores_a.values(), *scores_b.values())):
        raise ValueError(other_text)
    seeds = sorted(scores_a.keys() & scores_b.keys())
    if len(tokens) < 2:
        return Verdict(label_a, label_b, "Not enough stories: an interval needs two.", seeds=seeds, notes=notes)

    pairs = [(seed, seed) for seed in seeds] or [(min(scores_a), min(scores_b))]
    nll_a, nll_b = np.stack([scores_a[s].nll for s, _ in pairs]), np.stack([scores_b[s].nll for _, s in pairs])
    difference = paired(nll_a, nll_b, tokens, n_draws=n_draws)
    bits = float(tokens.sum() / (math.log(2) * n_bytes.sum()))
    if len(seeds) > 1:
        is_clean = not (others or programs_differ(a, b))
        sentence = _sentence(label_a, label_b, difference, bits, is_clean=is_clean)
    else:
        sentence = _sentence_on_models(
            label_a, label_b, difference, bits, pairs[0], has_common=bool(seeds), more_seeds=more_seeds
        )
    return Verdict(label_a, label_b, sentence, difference, seeds, bits, notes)


def signed(value: float, decimals: int) -> str:
    """Return a number with a typographic minus sign."""
    return f"{value:.{decimals}f}".replace("-", MINUS)


def decimals(difference: Difference) -> int:
    """Return the number of decimals that shows two digits of the half width, and on which side of 0 the interval is."""
    shown = [max((difference.high - difference.low) / 20, 10.0**-MAX_DECIMALS)]
    if not difference.includes_zero:
        shown.append(min(abs(difference.low), abs(difference.high)) * 2)  # rounds away from 0
    return min(MAX_DECIMALS, max(0, *(math.ceil(-math.log10(value)) for value in shown)))


def _sentence(a: str, b: str, difference: Difference, bits: float, *, is_clean: bool) -> str:
    if difference.low == difference.high == 0:  # the same model under two names
        scores = f"equal scores in all {difference.n_seeds} seeds and {difference.n_stories:,} stories"
        return f"No difference was found: {a} and {b} have {scores}."
    numbers = _numbers(b, a, difference, bits, f"{difference.n_seeds} seeds, ")
    if difference.includes_zero:
        return f"No difference was found, because the confidence interval includes 0: {numbers}"
    better = b if difference.effect < 0 else a
    return f"{better} is better: {numbers}" if is_clean else f"The {better} models are better: {numbers}"


def _sentence_on_models(
    a: str, b: str, difference: Difference, bits: float, seeds: tuple[int, int], *, has_common: bool, more_seeds: str
) -> str:
    """Return the sentence on two models with one seed each."""
    common = f"one seed in common ({seeds[0]})" if has_common else "no seed in common"
    models = f"with seed {seeds[0]}" if has_common else f"with seed {seeds[0]} of {a} and seed {seeds[1]} of {b}"
    numbers = _numbers(b, a, difference, bits, "")
    return (
        f"Not enough runs: {a} and {b} have {common}, and a verdict needs two ({more_seeds}). For the two models "
        f"{models}, {numbers} This interval covers the choice of stories only; other seeds may give another result."
    )


def _numbers(b: str, a: str, difference: Difference, bits: float, seeds: str) -> str:
    """Return the clause that gives the difference in all units."""
    digits, effect = decimals(difference), difference.effect
    low, high = sorted((difference.low, difference.high) if effect >= 0 else (-difference.low, -difference.high))
    more = "higher" if effect >= 0 else "lower"
    percent = number(abs(100 * (stories.exp(effect) - 1)), 2).text
    return (
        f"the test nll of {b} is {abs(effect):.{digits}f} nats per token {more} than that of {a} (95 % confidence "
        f"interval {signed(low, digits)} to {signed(high, digits)}; {seeds}{difference.n_stories:,} stories). That is "
        f"{abs(effect) * bits:.{digits}f} bits per byte, and a perplexity that is {percent} % {more}."
    )


def other_keys(a: RecordedSetting, b: RecordedSetting, compared: Sequence[str] = ()) -> list[str]:
    """Return the keys in which two settings differ, without those that are compared: see `verdict`."""
    compared = [*compared, "loss"] if a.loss != b.loss else compared
    keys = differing([a.params, b.params])
    return [key for key in keys if not any(key == other or key.startswith(f"{other}.") for other in compared)]


def _other_causes(a: RecordedSetting, b: RecordedSetting, others: Sequence[str], compared: Sequence[str]) -> str:
    keys = ", ".join(others)
    if compared:
        return f"The settings also differ in {keys}, which may be a part of the cause."
    if a.loss != b.loss:
        return f"The settings also differ in {keys}, so this does not show that the loss is the cause."
    return f"The settings differ in {keys}."


def _notes(a: RecordedSetting, b: RecordedSetting, label_a: str, label_b: str) -> list[str]:
    notes = []
    tokens_a, tokens_b = (setting.mean("train/tokens") for setting in (a, b))
    if abs(tokens_a - tokens_b) > 0:  # not with nan
        notes.append(f"They were trained on different numbers of tokens: {tokens_a:,.0f} and {tokens_b:,.0f}.")
    for label, setting in ((label_a, a), (label_b, b)):
        notes += selection.left_out(label, setting)  # seeds that diverged speak against a loss
    if programs_differ(a, b):
        notes.append("They were trained by different versions of the program.")
    return notes


def programs_differ(a: RecordedSetting, b: RecordedSetting) -> bool:
    """Return whether different versions of the program trained two settings."""
    return {run.program for run in a.runs} != {run.program for run in b.runs}
