"""Contrasts of the study: each arm minus cross-entropy, with Holm's correction and the rule for the sentence.

Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6:65.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.report.bootstrap import Difference, Floats, paired

BASELINE = "cross_entropy"
ALPHA = 0.05
EQUAL = 0.01  # nats per token: a smaller difference does not matter in practice


@dataclass(frozen=True)
class Contrast:
    """An arm minus the baseline, in nats per token of the test split."""

    arm: str
    difference: Difference
    corrected_p: float
    seed_effects: Sequence[float]  # the difference for each seed

    @property
    def is_small(self) -> bool:
        """True if the whole interval is within the margin of practical equality."""
        return self.difference.low > -EQUAL and self.difference.high < EQUAL

    @property
    def finding(self) -> str:
        """The outcome by the rules of design.md: "worse", "better", "equal" or "no difference"."""
        if self.corrected_p < ALPHA:
            return "worse" if self.difference.effect > 0 else "better"
        return "equal" if self.is_small else "no difference"


def contrasts(nll: Mapping[str, Floats], tokens: Floats, *, n_planned: int) -> list[Contrast]:
    """Return the contrasts of all arms with the baseline.

    Args:
        nll: (n_seeds, n_stories) nats of each arm, summed over each story, with the same seeds and stories.
        tokens: (n_stories,) tokens of the stories.
        n_planned: The number of contrasts that the p-values are corrected for. An arm that has diverged has none.
    """
    found = []
    for arm, nats in nll.items():
        if arm != BASELINE:
            of_seeds = (nats - nll[BASELINE]).sum(axis=1) / tokens.sum()
            found.append(Contrast(arm, paired(nll[BASELINE], nats, tokens), 1.0, of_seeds.tolist()))
    corrected = holm([contrast.difference.p_value for contrast in found], n_planned)
    return [replace(contrast, corrected_p=p) for contrast, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float], n: int) -> list[float]:
    """Return p-values in the same order, corrected for `n` of them. Those that are missing count as 1."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
