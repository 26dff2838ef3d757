"""The verdict on two settings: which one is better, how certain that is, and what else differs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.page import MINUS, number
from analysis.report import common_seeds, components, stories
from analysis.report.bootstrap import Difference, paired
from analysis.report.components import enumeration
from analysis.runs import RecordedSetting, differing
from nanosq.installation import program
from nanosq.tracking.parameters import belongs

MAX_DECIMALS = 6
MORE_SEEDS = f"{program()} -m ... seed=1,2,3"
TOKENS = ("train", "model")  # groups of keys from which other numbers of training tokens follow


@dataclass(frozen=True)
class Verdict:
    """The verdict on settings a and b. Differences are b minus a on the test split."""

    a: str
    b: str
    sentence: str
    difference: Difference | None = None  # nats per token; None if a setting has no scores of stories
    seeds: Sequence[int] = ()  # that both settings have
    bits_per_nat: float = math.nan  # bits per byte that correspond to one nat per token in this text
    besides: Sequence[str] = ()  # what differs besides that which is compared; it may be the cause of a difference
    notes: Sequence[str] = ()  # which runs are left out, and why

    @property
    def has_enough_seeds(self) -> bool:
        """True if there are enough runs for a verdict."""
        return self.difference is not None and len(self.seeds) > 1

    @property
    def better(self) -> str:
        """The better setting; empty if no difference was found, if more differs, or if there are too few runs."""
        if self.difference is None or not self.has_enough_seeds or self.difference.includes_zero or self.besides:
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
    compared: Sequence[str] | None = None,
    more_seeds: str = MORE_SEEDS,
    n_draws: int = 10_000,
) -> Verdict:
    """Compare two settings by their runs with common seeds.

    Args:
        a: The first setting.
        b: The second setting.
        labels: Their labels; by default the names of what is compared.
        compared: Keys and groups of keys that are compared or that were tuned for both, so that they are no other cause
            of a difference; by default the only component or key in which the settings differ.
        more_seeds: How to train with more seeds.
        n_draws: Number of bootstrap samples.

    Raises:
        ValueError: The settings were scored on different text.
    """
    compared = components.compared([a, b]) if compared is None else compared
    label_a, label_b = labels or components.labels([a, b], *compared[:1])
    texts = list(dict.fromkeys(run.text_hash or "unknown" for setting in (a, b) for run in setting.runs))
    other_text = f"{label_a} and {label_b} were scored on different text: compare runs with the same data"
    if len(texts) > 1:
        raise ValueError(f"{other_text} (text {' and '.join(texts)})")
    (scores_a, missing_a), (scores_b, missing_b) = stories.read_seeds(a), stories.read_seeds(b)
    # Seeds that diverged speak against a setting.
    left_out = [*common_seeds.left_out(label_a, a), *common_seeds.left_out(label_b, b)]
    notes = [*left_out, *missing_a, *missing_b]
    besides = _besides(a, b, compared)
    if not (scores_a and scores_b):
        missing = " or ".join(label for label, scores in ((label_a, scores_a), (label_b, scores_b)) if not scores)
        sentence = f"Not enough runs: no run of {missing} has the scores of its stories. Train with {more_seeds}."
        return Verdict(label_a, label_b, sentence, besides=besides, notes=notes)
    tokens, n_bytes = next((scores.tokens, scores.bytes) for scores in scores_a.values())
    if not all(np.array_equal(tokens, scores.tokens) for scores in (*scores_a.values(), *scores_b.values())):
        raise ValueError(other_text)
    seeds = sorted(scores_a.keys() & scores_b.keys())
    if len(tokens) < 2:
        sentence = "Not enough stories: an interval needs two."
        return Verdict(label_a, label_b, sentence, seeds=seeds, besides=besides, notes=notes)

    pairs = [(seed, seed) for seed in seeds] or [(min(scores_a), min(scores_b))]
    nll_a, nll_b = np.stack([scores_a[s].nll for s, _ in pairs]), np.stack([scores_b[s].nll for _, s in pairs])
    difference = paired(nll_a, nll_b, tokens, n_draws=n_draws)
    bits = float(tokens.sum() / (math.log(2) * n_bytes.sum()))
    if len(seeds) < 2:
        sentence = _on_models(label_a, label_b, difference, pairs[0], has_common=bool(seeds), more_seeds=more_seeds)
    elif difference.low == difference.high == 0:  # the same model under two names
        scores = f"equal scores in all {difference.n_seeds} seeds and {difference.n_stories:,} stories"
        sentence = f"No difference was found: {label_a} and {label_b} have {scores}."
    elif besides:
        sentence = _description(label_a, label_b, difference)
    else:
        sentence = _judgement(label_a, label_b, difference, bits)
    if besides:
        sentence += f" {_reservation(compared, besides)}"
    return Verdict(label_a, label_b, sentence, difference, seeds, bits, besides, notes)


def signed(value: float, decimals: int) -> str:
    """Return a number with a typographic minus sign."""
    return f"{value:z.{decimals}f}".replace("-", MINUS)  # z: a value that rounds to 0 has no sign


def decimals(difference: Difference) -> int:
    """Return the number of decimals that shows two digits of the half width, and on which side of 0 the interval is."""
    shown = [max((difference.high - difference.low) / 20, 10.0**-MAX_DECIMALS)]
    if not difference.includes_zero:
        shown.append(min(abs(difference.low), abs(difference.high)) * 2)  # rounds away from 0
    return min(MAX_DECIMALS, max(0, *(math.ceil(-math.log10(value)) for value in shown)))


def _judgement(a: str, b: str, difference: Difference, bits: float) -> str:
    amount, interval = size_and_interval(difference)
    percent = number(abs(100 * (stories.exp(difference.effect) - 1)), 2).text
    numbers = (
        f"the test nll of {b} is {amount} than that of {a} ({interval}; {_counts(difference)}). That is "
        f"{abs(difference.effect) * bits:.{decimals(difference)}f} bits per byte, and a perplexity that is {percent} % "
        f"{_more(difference)}."
    )
    if difference.includes_zero:
        return f"No difference was found, because the confidence interval includes 0: {numbers}"
    return f"{b if difference.effect < 0 else a} is better: {numbers}"


def _description(a: str, b: str, difference: Difference) -> str:
    """Return the difference of runs without a judgement, because it may have several causes."""
    amount, interval = size_and_interval(difference)
    return f"The runs of {b} have a test nll that is {amount} than that of {a} ({interval}; {_counts(difference)})."


def _reservation(compared: Sequence[str], besides: Sequence[str]) -> str:
    if compared:
        return f"They also differ in {enumeration(besides)}, so this does not show which {compared[0]} is better."
    return f"They differ in {enumeration(besides)}, so this does not show what causes the difference."


def _on_models(
    a: str, b: str, difference: Difference, seeds: tuple[int, int], *, has_common: bool, more_seeds: str
) -> str:
    """Return the sentence on two models with one seed each."""
    common = f"one seed in common ({seeds[0]})" if has_common else "no seed in common"
    models = f"with seed {seeds[0]}" if has_common else f"with seed {seeds[0]} of {a} and seed {seeds[1]} of {b}"
    amount, interval = size_and_interval(difference)
    return (
        f"Not enough runs: {a} and {b} have {common}, and a verdict needs two ({more_seeds}). For the two models "
        f"{models}, the test nll of {b} is {amount} than that of {a} ({interval}; {difference.n_stories:,} stories). "
        "This interval covers the choice of stories only; other seeds may give another result."
    )


def size_and_interval(difference: Difference) -> tuple[str, str]:
    """Return how much higher or lower the nll is, and the confidence interval: both are of this sign."""
    digits, effect = decimals(difference), difference.effect
    low, high = sorted((difference.low, difference.high) if effect >= 0 else (-difference.low, -difference.high))
    interval = f"95 % confidence interval {signed(low, digits)} to {signed(high, digits)}"
    amount = f"{abs(effect):.{digits}f} nats per token {_more(difference)}"
    return amount, interval


def _counts(difference: Difference) -> str:
    return f"{difference.n_seeds} seeds, {difference.n_stories:,} stories"


def _more(difference: Difference) -> str:
    return "higher" if difference.effect >= 0 else "lower"


def _besides(a: RecordedSetting, b: RecordedSetting, compared: Sequence[str]) -> list[str]:
    """Return what differs besides the keys and groups that are compared: see `verdict`."""
    keys = differing([a.params, b.params])
    besides = [key for key in sorted(keys) if not belongs(key, compared)]
    if len({run.program for setting in (a, b) for run in setting.runs}) > 1:
        besides.append("the version of the program")
    tokens = [setting.mean("train/tokens") for setting in (a, b)]
    follows = any(key.split(".")[0] in TOKENS for key in compared)
    if not follows and abs(tokens[0] - tokens[1]) > 0:  # not with nan
        besides.append(f"the number of training tokens ({tokens[0]:,.0f} and {tokens[1]:,.0f})")
    return besides
