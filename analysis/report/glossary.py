"""Terms of the report and of the README, and every metric that a run records.

python -m analysis.report.glossary    print both lists
"""

import sys
from collections.abc import Sequence

from analysis.page import Facts, Section
from nanosq import command
from nanosq.terminal import parser, table

TERMS = {
    "nll": "Negative log-likelihood in nats per token: how badly a model predicts. 1 nat = 1.44 bits. Lower is better.",
    "perplexity": "exp(nll): 5 is as unsure as among 5 equally likely tokens. Comparable only for the same vocabulary.",
    "bits/byte": "nll in bits per byte of the text. Comparable also for different vocabularies.",
    "accuracy": "Share of the tokens that the model predicts as the most likely one.",
    "ece": "Expected calibration error: distance of how sure a model is from how often it is right. 0 % is best.",
    "floor": "The lowest nll that any model can reach on average. It is known only for the embedded stories.",
    "above the floor": "nll minus floor, in nats per token: what a better model could still gain.",
    "objective": "The training loss, called loss in metrics. It has another unit for each loss: do not compare it.",
    "mfu": "Model FLOPs utilization: speed of training as a share of the speed of one large matrix product.",
    "seed": "Start of a run's random numbers. It is no hyperparameter: the score of a setting is its mean over seeds.",
    "run": "One training with one seed, a row in MLflow. Its model has the weights with the lowest validation nll.",
    "trial": "One setting within a sweep. With seeds=3 it has three runs, and its score is their mean.",
    "same trial": "The same code (yours too), text and settings that can change the result. It is trained only once.",
    "sweep": "All trials of one command: a grid, a search or a comparison.",
    "confidence interval": "The range of the true difference with 95 % confidence, over the luck of seeds and stories.",
    "verdict": "Which setting has the lower test nll. If the interval includes 0, no difference was found.",
}

_SCORES = {
    "loss": "objective per token, in the unit of the loss",
    "nll": "nll, nats per token",
    "perplexity": "exp(nll)",
    "bits_per_byte": "nll, bits per byte of the text",
    "accuracy": "share of tokens that are predicted as the most likely one",
    "ece": "expected calibration error, 15 bins, from 0 to 1",
    "floor_nll": "the lowest nll that any model can reach on average; only on the embedded stories",
    "excess_nll": "nll - floor_nll",
    "nll_calibrated": "nll if the logits are divided by val/temperature",
    "ece_calibrated": "ece if the logits are divided by val/temperature",
}

METRICS = {
    "train/loss": "objective of the last batch, in the unit of the loss",
    "train/nll": "nll of the last batch, nats per token",
    "train/grad_norm": "norm of the gradient before clipping",
    "train/lr": "learning rate of the first group of parameters",
    "train/seconds": "time of training so far, without evaluations and interruptions",
    "train/tokens": "tokens that were trained on, repetitions included",
    "train/tokens_per_second": "speed of training since the last record",
    "train/mfu": "that speed as a share of a large matrix product in the same precision",
    **{f"{split}/{name}": text for split in ("val", "test") for name, text in _SCORES.items()},
    "val/temperature": "temperature with the lowest nll of the validation split",
    "test/nll_frequent": "nll of the most frequent tokens, which make up 80 % of the training split",
    "test/nll_medium": "nll of the next ones, up to 95 % of the training split",
    "test/nll_rare": "nll of all other tokens",
    "best/val_perplexity": "lowest validation perplexity so far",
    "last/val_perplexity": "validation perplexity after the last step",
    "last/val_seconds": "time of the last evaluation of the validation split",
}


def section() -> Section:
    """Return the terms as a box of the page."""
    return Section("Glossary", [Facts("Glossary", list(TERMS.items()))])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""

    def work() -> None:
        parser("analysis.report.glossary", __doc__).parse_args(arguments)
        for title, entries in (("Term", TERMS), ("Metric of a run", METRICS)):
            print(table([title, "Meaning"], [*entries.items()]), end="\n\n")

    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
