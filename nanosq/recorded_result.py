"""The result of a run that is not trained, because a tracking store or its journal has it."""

from dataclasses import replace

from nanosq import checkpoint, distributed
from nanosq.data.corpus import Corpus
from nanosq.experiment import Experiment
from nanosq.result import Result
from nanosq.sweeps.constraints import PARAMETERS
from nanosq.sweeps.trial import PrunerReport, TrialRun


def recorded(experiment: Experiment, text: Corpus, trial: TrialRun | None, pruner: PrunerReport) -> Result | None:
    """Return the result of a run that is not to be trained, or None.

    A trial is not trained if it is recorded or not worth training, a single run if it only has to be delivered.
    """
    n_parameters = experiment.count_parameters(text.tokenizer.vocab_size)
    if limit := pruner.violated({PARAMETERS: n_parameters}):
        note = f"not trained, because it has {n_parameters:,} parameters and may have {limit.bound:,.0f}"
        return Result("pruned", n_parameters=n_parameters, note=note)
    if pruner.pruned_before:
        return Result("pruned", n_parameters=n_parameters, note="pruned with its first seed")
    if not experiment.start.is_repeatable:
        return None
    tags, folder = {**experiment.identity_tags(text), **keep_last_tag(experiment)}, experiment.folder
    if trial is None:
        journals = [] if distributed.launched() else experiment.store.undelivered(folder)
        if not any(journal.has_result(tags) for journal in journals):
            return None
    result = experiment.store.find({**tags, "pruned": "false"}, folder)
    if result is None and trial is not None:
        result = experiment.store.find({**tags, "pruned": "true", **trial.tags}, folder)
    if result is None:
        return None
    checkpoint.clear(folder)
    if result.run_id:
        pruner.start(result.run_id, result.link)
        pruner.evaluated_before(experiment.store, result.run_id)
    return replace(result, n_parameters=n_parameters, is_recorded=True)


def keep_last_tag(experiment: Experiment) -> dict[str, str]:
    """Return the tag of a run that keeps its last state: another run cannot stand for it."""
    return {"keep_last": "true"} if experiment.settings.keep_last else {}
