"""The difference of two settings in calibrated nll, where it leads to another verdict than the plain nll."""

from analysis.report.bootstrap import Difference
from analysis.report.scores import half_interval
from analysis.report.verdict import Verdict, size_and_interval
from analysis.runs import RecordedSetting

METRIC = "test/nll_calibrated"


def disagreement(verdict: Verdict, a: RecordedSetting, b: RecordedSetting) -> str:
    """Return a sentence if the calibrated nll of two settings leads to another verdict; otherwise an empty string.

    There are no calibrated scores of the stories. The interval is Student's, of the means of the common seeds.
    """
    if verdict.difference is None or not verdict.has_enough_seeds or verdict.besides:
        return ""
    scores = [{run.seed: run.metric(METRIC) for run in setting.runs} for setting in (a, b)]
    values = [scores[1][seed] - scores[0][seed] for seed in verdict.seeds]
    mean, half = sum(values) / len(values), half_interval(values)
    if not half >= 0:  # nan: a run lacks the metric
        return ""
    calibrated = Difference(mean, mean - half, mean + half, half, len(values), verdict.difference.n_stories)
    if _sign(calibrated) == _sign(verdict.difference):
        return ""
    better = verdict.a if mean > 0 else verdict.b
    result = "no difference is found" if calibrated.includes_zero else f"{better} is better"
    amount, interval = size_and_interval(calibrated)
    return (
        f"By the calibrated test nll, {result}: that of {verdict.b} is {amount} than "
        f"that of {verdict.a} ({interval}, Student's t over {len(values)} seeds). Calibration divides the logits "
        "by one temperature, fitted on val: the calibrated nll does not depend on the scale of the logits, but on what "
        "the models know."
    )


def _sign(difference: Difference) -> int:
    """Return the sign of a difference, or 0 if its confidence interval includes 0."""
    return 0 if difference.includes_zero else 1 if difference.effect > 0 else -1
