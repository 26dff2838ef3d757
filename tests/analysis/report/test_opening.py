"""The opening of the page: result, fairness, and what was run."""

from typing import Any

import pytest

from analysis.page import DASH, Facts, Section
from analysis.report import glossary, opening
from analysis.report.matched import find
from tests.analysis.blocks import texts
from tests.analysis.recorded import complete_run

TRAINED = {
    **{"optimizer": "torch.optim.AdamW", "optimizer__weight_decay": "0.1", "schedule": "cosine", "model": "GPT"},
    **{"train__warmup": 0.05, "train__min_lr_factor": 0.0, "data__source": "text", "data__source__seed": 0},
    **{"data__tokenizer": "gpt2", "data__tokenizer__vocabulary": "used"},
}
TAGS = {"data": "stories", "vocabulary": "1644", "hardware": "cpu bf16", "mlflow.source.git.commit": "0123456789abcdef"}


def opened(*losses: dict[str, Any], **options: Any) -> Section:
    """Return the opening on settings with two seeds each."""
    trained = []
    for params in losses:
        for seed in (1, 2):
            name, own = str(params["loss"]), {key: value for key, value in params.items() if key != "loss"}
            tags = {**TAGS, "command": f"python run.py loss={name} seed={seed}"}
            trained.append(complete_run(name, seed, tags=tags, **{**TRAINED, **own, **options}))
    (only,) = find(trained)
    return opening.section(only)


def facts(section: Section) -> dict[str, str]:
    first, *_ = (block for block in section.blocks if isinstance(block, Facts))
    return dict(first.rows)


def test_the_opening_says_what_was_run() -> None:
    section = opened({"loss": "cross_entropy"}, {"loss": "squentropy", "loss__weight": 1.0})
    assert [type(block).__name__ for block in section.blocks] == ["Text", "Text", "Facts", "Facts"]
    assert section.blocks[-1] == glossary.section().blocks[-1]
    result, fairness = texts(section).splitlines()
    assert result.startswith("cross_entropy is better: the test nll of squentropy is ")
    assert result.endswith(
        "Both were trained for 100 steps on the data set stories with a model of 640,000 parameters using the "
        "optimizer AdamW. They differ only in the loss."
    )
    assert fairness == (
        "Fairness: The same data (stories), model (GPT), number of parameters (640,000), training tokens (25,600), "
        "learning rate (0.01), hardware (cpu bf16) and seeds (1, 2). Settings tried in this store: 1 of each."
    )
    assert facts(section) == {
        "Data": "stories (seed 0), text t",
        "Vocabulary": "1,644 tokens, tokenizer gpt2 (vocabulary used)",
        "Loss": "cross_entropy; squentropy (weight 1)",
        "Model": "GPT (block_size 64, dropout 0, n_layer 2)",
        "Parameters": "640,000",
        "Training": "100 steps; batch of 4 windows of 64 tokens; 25,600 tokens in all",
        "Optimizer": "AdamW (lr 0.01, weight_decay 0.1)",
        "Schedule": "cosine, warmup 0.05, min_lr_factor 0",
        "Hardware, precision": "cpu bf16",
        "Program": "commit 0123456789, code c",
        "Seeds": "1, 2",
        "Train cross_entropy again": "python run.py loss=cross_entropy seed=1",
        "Train squentropy again": "python run.py loss=squentropy seed=1",
    }


def test_what_differs_is_said_for_each_contender() -> None:
    adamw = {"loss": "focal", "optimizer__lr": 0.001}
    section = opened(adamw, {"loss": "focal", "optimizer": "Muon", "optimizer__lr": 0.02, "train__batch_size": 4})
    fairness = texts(section).splitlines()[1]
    assert "Not the same: learning rate (AdamW: 0.001; Muon: 0.02)." in fairness
    assert "learning rate" not in fairness.partition("Not the same")[0]
    assert "using the optimizer" not in texts(section).splitlines()[0]
    assert facts(section)["Optimizer"] == "AdamW (lr 0.001, weight_decay 0.1); Muon (lr 0.02, weight_decay 0.1)"
    assert facts(section)["Loss"] == "focal"


@pytest.mark.parametrize(("patience", "early"), [("None", ""), (3, "up to ")])
def test_the_number_of_steps_is_the_largest_possible_after_early_stopping(patience: object, early: str) -> None:
    options = {"train__max_steps": 20_000, "train__patience": patience, "data__source__n_train": 100_000}
    section = opened({"loss": "cross_entropy"}, {"loss": "squentropy"}, **options)
    assert f"Both were trained for {early}20,000 steps on the data set stories " in texts(section)
    assert facts(section)["Training"].startswith(f"{early}20,000 steps; batch of 4 windows of 64 tokens; ")
    assert facts(section)["Data"] == "stories (n_train 100000, seed 0), text t"


def test_what_older_runs_have_not_recorded_is_a_dash() -> None:
    (only,) = find([complete_run(loss, 1, **TRAINED) for loss in ("cross_entropy", "focal")])
    rows = facts(opening.section(only))
    assert (rows["Vocabulary"], rows["Hardware, precision"]) == (f"{DASH}, tokenizer gpt2 (vocabulary used)", DASH)
    assert rows["Train focal again"] == DASH
    assert rows["Data"] == "text (seed 0), text t"


def test_without_a_result_the_opening_says_what_to_train() -> None:
    assert texts(opening.section(None), "verdict").startswith("No run has finished with a validation score.")
