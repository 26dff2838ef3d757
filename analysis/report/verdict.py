"""The verdict: a sentence that says which of two settings is better, how sure that is, and other possible causes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.page import MINUS
from analysis.recorded_run import RecordedRun
from analysis.report import stories
from analysis.report.bootstrap import Difference, paired
from analysis.runs import RecordedSetting, differing

MOST_DIGITS = 6
AGAIN = "python run.py -m ... seed=1,2,3"


@dataclass(frozen=True)
class Verdict:
    """Comparison of b with a. Differences are the test nll of b minus that of a."""

    a: str
    b: str
    sentence: str
    difference: Difference | None = None  # nats a token; None where no run has its stories
    seeds: Sequence[int] = ()  # that both have
    bits_per_nat: float = math.nan  # bits per byte that one nat a token is in this text
    notes: Sequence[str] = ()  # what else differs between the two, and which runs are left out

    @property
    def enough(self) -> bool:
        """True if there are enough seeds for a verdict."""
        return self.difference is not None and len(self.seeds) > 1

    @property
    def better(self) -> str:
        """The better setting; empty if there is no difference or there are not enough runs."""
        if self.difference is None or not self.enough or self.difference.holds_zero:
            return ""
        return self.b if self.difference.effect < 0 else self.a

    @property
    def text(self) -> str:
        """The verdict as a sentence."""
        return " ".join([self.sentence, *self.notes])


def verdict(a: RecordedSetting, b: RecordedSetting, *, n_draws: int = 10_000) -> Verdict:
    """Pair the runs of two settings by seed. Raise ValueError if they are equal or were scored on different texts."""
    label_a, label_b = labels(a, b)
    hashes = [setting.runs[0].text_hash for setting in (a, b)]
    different = f"{label_a} and {label_b} were scored on different texts: compare runs of the same data"
    if hashes[0] != hashes[1]:
        raise ValueError(f"{different} (text {hashes[0] or 'unknown'} and {hashes[1] or 'unknown'})")
    (of_a, out_a), (of_b, out_b) = stories.by_seed(a), stories.by_seed(b)
    notes = [*_differences(a, b), *_tokens(a, b), *_lost(label_a, a), *_lost(label_b, b), *_programs(a, b)]
    notes += [*out_a, *out_b]
    missing = [label for label, found in ((label_a, of_a), (label_b, of_b)) if not found]
    if missing:
        sentence = f"Not enough runs: no run of {' or of '.join(missing)} has its stories; train with {AGAIN}."
        return Verdict(label_a, label_b, sentence, notes=notes)
    tokens = next(iter(of_a.values())).tokens
    if not all(np.array_equal(tokens, each.tokens) for each in (*of_a.values(), *of_b.values())):
        raise ValueError(different)

    seeds = sorted(of_a.keys() & of_b.keys())
    pairs = [(seed, seed) for seed in seeds] or [(min(of_a), min(of_b))]
    nll_a = np.stack([of_a[seed].nll for seed, _ in pairs])
    nll_b = np.stack([of_b[seed].nll for _, seed in pairs])
    if len(tokens) < 2:
        return Verdict(label_a, label_b, "Not enough stories: an interval needs two or more.", seeds=seeds, notes=notes)
    difference = paired(nll_a, nll_b, tokens, n_draws=n_draws)
    bits = float(tokens.sum() / (math.log(2) * next(iter(of_a.values())).bytes.sum()))
    sentence = _sentence(label_a, label_b, difference, pairs, bits, paired_seeds=bool(seeds))
    return Verdict(label_a, label_b, sentence, difference, seeds, bits, notes)


def labels(a: RecordedSetting, b: RecordedSetting) -> tuple[str, str]:
    """Return names of two settings: their losses, or A and B if these are equal. Raise ValueError if all is equal."""
    if a.loss != b.loss:
        return a.loss, b.loss
    if not differing([a.params, b.params]):
        raise ValueError(f"both are runs of one setting of {a.loss}: name runs that differ in more than their seed")
    return f"{a.loss} A", f"{b.loss} B"


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign."""
    return f"{value:.{decimals}f}".replace("-", MINUS)


def decimals(difference: Difference) -> int:
    """Return the number of decimals that shows two digits of the half-width, and the sign of the interval's ends."""
    half = (difference.high - difference.low) / 2
    needed = [max(half / 10, 10.0**-MOST_DIGITS)]
    if not difference.holds_zero:
        needed.append(min(abs(difference.low), abs(difference.high)) * 2)  # rounds away from 0
    return min(MOST_DIGITS, max(0, *(math.ceil(-math.log10(value)) for value in needed)))


def _sentence(
    a: str, b: str, difference: Difference, pairs: list[tuple[int, int]], bits: float, *, paired_seeds: bool
) -> str:
    digits = decimals(difference)
    more = difference.effect >= 0
    low, high = sorted((difference.low, difference.high) if more else (-difference.low, -difference.high))
    interval = f"{signed(low, digits)} to {signed(high, digits)}"
    by = f"by {abs(difference.effect):.{digits}f} nats a token"
    also = (
        f"; {abs(difference.effect) * bits:.{digits}f} bits per byte, "
        f"perplexity {stories.exp(difference.effect):.{max(digits, 2)}f} times as high"
    )
    than = f"{b} has a {'higher' if more else 'lower'} test nll than {a} {by}"
    of_stories = f"{difference.n_stories:,} stories"
    if difference.seeds_resampled:
        found = f"{than} (95 % interval {interval}; {len(pairs)} seeds, {of_stories}{also})"
        if difference.holds_zero:
            return f"{found}, but the interval holds 0: no difference was found."
        return f"{found}: {a if more else b} is better."
    ((seed_a, seed_b),) = pairs
    common = f"one seed in common ({seed_a})" if paired_seeds else "no seed in common"
    models = f"with seed {seed_a}" if seed_a == seed_b else f"with seed {seed_a} of {a} and {seed_b} of {b}"
    return (
        f"Not enough runs: {a} and {b} have {common}, and a verdict needs two or more ({AGAIN}). Of the two models "
        f"{models} alone, {than} (95 % interval over stories only {interval}; {of_stories}{also}); with other seeds "
        "that may be otherwise."
    )


def _differences(a: RecordedSetting, b: RecordedSetting) -> list[str]:
    """Return the settings that differ, without the loss and its parameters if losses are compared."""
    keys = differing([a.params, b.params])
    if a.loss == b.loss:
        return [f"They differ in {', '.join(keys)}."]
    keys = [key for key in keys if not key.startswith("loss.")]
    return [f"They also differ in {', '.join(keys)}: the loss need not be the cause."] if keys else []


def _tokens(a: RecordedSetting, b: RecordedSetting) -> list[str]:
    n_a, n_b = (_mean_tokens(setting.runs) for setting in (a, b))
    if math.isnan(n_a) or math.isnan(n_b) or n_a == n_b:
        return []
    return [f"Warning: they were trained on different numbers of tokens, {n_a:,.0f} and {n_b:,.0f}."]


def _lost(label: str, setting: RecordedSetting) -> list[str]:
    """Return a note on seeds without a result: diverged seeds count against a loss and are in no mean."""
    return [
        f"Left out: {count} {'seed' if count == 1 else 'seeds'} of {label}, {state}."
        for state, count in setting.others.items()
    ]


def _programs(a: RecordedSetting, b: RecordedSetting) -> list[str]:
    codes = [{run.tags.get("code") for run in setting.runs} for setting in (a, b)]
    return [] if codes[0] == codes[1] else ["Warning: they were trained by different versions of the program."]


def _mean_tokens(found: Sequence[RecordedRun]) -> float:
    return sum(run.metric("train/tokens") for run in found) / len(found)
