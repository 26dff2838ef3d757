"""The final score of a run: that of its model, the weights of its best evaluation."""

from collections.abc import Mapping

from nanosq import artifacts, distributed, temperature, token_frequency
from nanosq.data.corpus import Corpus
from nanosq.evaluation import Batches, Evaluation, Evaluator, Score
from nanosq.experiment import Experiment
from nanosq.generation import generate
from nanosq.run_log import RunLog
from nanosq.train import TrainState


def score_and_record(
    experiment: Experiment,
    text: Corpus,
    state: TrainState,
    log: RunLog,
    evaluator: Evaluator,
    *,
    last: Score,
    val_batches: Batches,
    also: Mapping[str, float],
) -> dict[str, float]:
    """Restore the weights that are the run's model, score them, and record what the report shows.

    Args:
        experiment: The experiment.
        text: Its text.
        state: The state after training. Afterwards it has the weights of the model.
        log: Log of the run.
        evaluator: Evaluator of the weights of `state`.
        last: Score of the validation split after the last step.
        val_batches: The batches of that split with the weights of `state`.
        also: Other metrics of the run.

    Returns:
        The metrics of the result.
    """
    val = last
    if experiment.settings.keep_last or not log.is_model(state):
        log.save_last(state)  # before the weights change
    if not log.is_model(state):
        if log.checkpoints is not None:  # the first of several processes
            log.checkpoints.restore_best(state)
        distributed.broadcast(state.model)
        kept = "the model of this run: the weights with the lowest validation nll, not those of the last step"
        log.console.say(kept, also_in_sweeps=False)
        val_batches = Batches(evaluator, text.val)
        val = evaluator.score(text.val, val_batches()).score
    metrics = {
        **val.metrics("val"),
        **also,
        "last/val_perplexity": last.perplexity,
        "train/seconds": state.progress.seconds,
        "train/tokens": float(state.progress.step * log.tokens_per_step),
    }
    test, calibrated = None, None
    if experiment.cfg.score_test:
        fitted = temperature.fit_temperature(evaluator, val_batches)
        batches = Batches(evaluator, text.test)
        test = evaluator.score(text.test, batches())
        calibrated = temperature.score_at(fitted.temperature, evaluator, batches())
        metrics |= {"val/temperature": fitted.temperature, **fitted.metrics("val"), **calibrated.metrics("test")}
        metrics |= {**test.score.metrics("test"), **_nll_by_frequency(test, text)}
    if log.checkpoints is not None:
        model_step = state.progress.step if log.is_model(state) else state.progress.best_step
        log.run.model(experiment.description.subject, experiment.folder / "best.pt", step=model_step)
    log.run.summarize(metrics, state.progress.step)
    if log.checkpoints is not None:
        if test is not None:
            log.run.text(artifacts.stories_csv(text.test, text.tokenizer, test.document_nll), "stories.csv")
            log.run.text(artifacts.calibration_csv(test.bins), "calibration.csv")
        samples = generate(state.model, text.tokenizer, **vars(experiment.samples), seed=experiment.cfg.seed)
        log.run.text("\n\n---\n\n".join(samples), "samples.txt")
        if experiment.trial is None:
            log.console.report(val=val, test=test and test.score, calibrated=calibrated, samples=samples)
    return metrics


def _nll_by_frequency(test: Evaluation, text: Corpus) -> dict[str, float]:
    target_nll_2V = test.target_nll.numpy()
    counts_V = token_frequency.count_tokens(text.train.tokens, target_nll_2V.shape[1])
    by_band = token_frequency.nll_by_band(target_nll_2V, token_frequency.bands(counts_V))
    return {f"test/{name}": nll for name, nll in by_band.items()}
