"""Sentences on a comparison: what was compared with what budget, how far it is, and who has no result."""

from collections import Counter

from analysis.report.contenders import Comparison


def description(comparison: Comparison) -> list[str]:
    """Return sentences on the contenders, the tuning, and the confirmation, with the budget of each."""
    first, common = comparison.contenders[0], comparison.common_axes
    metric = first.tuning.metrics[0].in_sentence
    own = [
        f"{', '.join(keys)} only for {contender.label}"
        for contender in comparison.contenders
        if (keys := [key for key in contender.tuning.space if key not in common])
    ]
    tuned = "; ".join([f"{', '.join(common)} for every contender", *own] if common else own) or "none"
    return [
        f"Contenders: {', '.join(contender.label for contender in comparison.contenders)}.",
        f"Tuning: {first.n_trials} trials of {comparison.tune_steps} steps for each contender. The best trial is the "
        f"one with the best {metric}. Tuned settings: {tuned}.",
        f"Confirmation: the best setting of each contender, trained for {comparison.max_steps} steps with each of "
        f"the seeds {', '.join(map(str, comparison.seeds))}. Of this comparison, only these runs "
        "were scored on the test split.",
    ]


def progress(comparison: Comparison) -> str:
    """Return how far a comparison is that has not finished."""
    tuned = [f"{each.n_ended} of {each.n_trials} trials of {each.label}" for each in comparison.contenders]
    n_seeds = len(comparison.seeds)
    confirmed = [f"{comparison.n_confirmed(each)} of {n_seeds} runs of {each.label}" for each in comparison.contenders]
    return (
        f"This comparison is not finished. Tuning: {', '.join(tuned)}. Confirmation: {', '.join(confirmed)}. The same "
        "command continues it."
    )


def without_result(comparison: Comparison) -> list[str]:
    """Return a sentence on each contender that has nothing more to train, but no finished confirmation run."""
    sentences = []
    for contender in comparison.contenders:
        states: Counter[str] = Counter()
        if contender.is_tuned and not contender.tuning.complete:
            what, states = "no tuning trial is complete", Counter(trial.state for trial in contender.tuning.trials)
        elif comparison.n_confirmed(contender) == len(comparison.seeds) and not contender.recorded(comparison.seeds):
            what, states = "no confirmation run has finished", Counter(map(contender.state, comparison.seeds))
        if states:
            counts = ", ".join(f"{states[state]} {state}" for state in sorted(states))
            sentences.append(f"{contender.label} has no result: {what} ({counts}).")
    return sentences
