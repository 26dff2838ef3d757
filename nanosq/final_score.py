"""The final score of a run: that of its model, the weights of its best evaluation."""

from collections.abc import Callable

from nanosq import artifacts, checkpoint, distributed
from nanosq.data.corpus import Corpus, Split
from nanosq.evaluate import Evaluation, Score
from nanosq.experiment import Experiment
from nanosq.generate import generate
from nanosq.run_log import RunLog
from nanosq.train import TrainState


def score_and_record(
    experiment: Experiment,
    text: Corpus,
    state: TrainState,
    log: RunLog,
    score: Callable[[Split], Evaluation],
    *,
    last: Score,
) -> dict[str, float]:
    """Restore the weights that are the run's model, score them, and record what the report shows.

    Args:
        experiment: The experiment.
        text: Its text.
        state: The state after training. Afterwards it has the weights of the model.
        log: Log of the run.
        score: Function that scores the weights of `state` on a split.
        last: Score of the validation split after the last step.

    Returns:
        The metrics of the result.
    """
    val = last
    if experiment.settings.keep_last or not log.is_model(state):
        log.save_last(state)  # before the weights change
    if not log.is_model(state):
        if log.checkpoints is not None:  # the first of several processes
            state.restore_weights(checkpoint.load(experiment.folder / "best.pt"))
        distributed.broadcast(state.model)
        log.console.say("the model of this run: the weights with the lowest validation nll, not those of the last step")
        val = score(text.val).score
    test = score(text.test)
    metrics = {
        **val.metrics("val"),
        **test.score.metrics("test"),
        "last/val_perplexity": last.perplexity,
        "train/seconds": state.progress.seconds,
        "train/tokens": float(state.progress.step * log.tokens_per_step),
    }
    log.run.summarize(metrics, state.progress.step)
    if log.checkpoints is not None:
        log.run.text(artifacts.stories_csv(text.test, text.tokenizer, test.document_nll), "stories.csv")
        log.run.text(artifacts.calibration_csv(test.bins), "calibration.csv")
        samples = generate(state.model, text.tokenizer, **vars(experiment.samples), seed=experiment.cfg.seed)
        log.run.text("\n\n---\n\n".join(samples), "samples.txt")
        if experiment.trial is None:
            log.console.report(val=val, test=test.score, samples=samples)
    return metrics
