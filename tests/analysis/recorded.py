"""Recorded runs for tests, in memory. `tests/analysis/conftest.py` can write them to an MLflow store."""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting, settings
from nanosq.identity import WITHOUT_EFFECT

Points = Iterable[tuple[int, str, float]]  # step, metric, value
N_STORIES = 30
TOKENS = np.arange(100, 100 + N_STORIES)
DIFFICULTY = np.random.default_rng(0).permutation(np.linspace(0.5, 1.5, N_STORIES))  # nats per token
STEPS = (1, 25, 50, 75, 100)
NATS = {"cross_entropy": 0.4, "squentropy": 0.6}  # per token, of a complete run
_started = itertools.count(1)


def run(
    loss: str = "squentropy",
    seed: int | None = None,
    *,
    status: str = "FINISHED",
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    points: Points = (),
    artifacts: Mapping[str, str | None] | None = None,
    **params: object,
) -> RecordedRun:
    """Return a run that started after those before it. A double underscore in the name of a parameter is a dot."""
    started = next(_started)
    seeds = {} if seed is None else {"seed": seed}
    return RecordedRun(
        id=f"{started:04x}{'0' * 28}",
        name=f"{loss} {started}",
        status=status,
        started=started,
        link=f"http://127.0.0.1:5000/{started}",
        artifact_uri="",
        params={
            "loss": loss,
            **{key.replace("__", "."): str(value) for key, value in {**seeds, **params}.items()},
        },
        metrics=dict(metrics or {}),
        tags={"text": "t", "code": "c", "without_effect": ",".join((*WITHOUT_EFFECT, "seed")), **(tags or {})},
        texts={"curves.csv": to_csv(("step", "metric", "value"), points), **(artifacts or {})},
    )


def trial(number: int, value: float = math.nan, *, sweep: str = "grid-a", **options: Any) -> RecordedRun:
    """Return a run of a grid with a validation perplexity."""
    scores = {"val/perplexity": value, "val/nll": math.log(value), "val/bits_per_byte": math.log(value) / 3}
    tags = {"sweep": sweep, "trial": str(number), **options.pop("tags", {})}
    return run(tags=tags, metrics={} if math.isnan(value) else scores, **options)


def stories_csv(nats: np.ndarray, *, text: str = "One  day,\na fox.") -> str:
    """Return the artifact of a run with these nats per token of the stories. The extreme ten have their texts."""
    order = np.argsort(nats)
    extreme = {*order[:10].tolist(), *order[-10:].tolist()}
    rows = [
        (story, tokens, tokens * 4, repr(float(tokens * value)), f"{story}: {text}" if story in extreme else "")
        for story, (tokens, value) in enumerate(zip(TOKENS, nats, strict=False))
    ]
    return to_csv(("story", "tokens", "bytes", "nll", "text"), rows)


def story_run(
    loss: str, seed: int, nats: np.ndarray, *, metrics: Mapping[str, float] | None = None, **options: Any
) -> RecordedRun:
    """Return a finished run with these nats per token of the stories."""
    nll = float((TOKENS[: len(nats)] * nats).sum() / TOKENS[: len(nats)].sum())
    scores = {"test/nll": nll, "val/nll": nll, "test/bits_per_byte": nll / 4 / math.log(2), **(metrics or {})}
    artifacts = {"stories.csv": stories_csv(nats), **options.pop("artifacts", {})}
    return run(loss, seed, metrics=scores, artifacts=artifacts, **options)


def story_setting(loss: str, seeds: tuple[int, ...] = (1, 2, 3), shift: float = 0.0, **options: Any) -> RecordedSetting:
    """Return a setting whose stories are `shift` nats per token harder than DIFFICULTY, with some noise."""
    rng = np.random.default_rng([*loss.encode(), *seeds])
    noisy = [DIFFICULTY + shift + 0.01 * rng.standard_normal(N_STORIES) for _ in seeds]
    return settings([story_run(loss, seed, nats, **options) for seed, nats in zip(seeds, noisy, strict=True)])[0]


def complete_run(
    loss: str = "squentropy", seed: int = 1, *, without: tuple[str, ...] = (), **options: Any
) -> RecordedRun:
    """Return a run as run.py records it, without some metrics and artifacts."""
    rng = np.random.default_rng([seed, len(loss)])
    nats = NATS.get(loss, 0.5) * np.exp(0.1 * (DIFFICULTY - 1) + 0.02 * rng.standard_normal(N_STORIES))
    nll = float((TOKENS * nats).sum() / TOKENS.sum())
    tokens, confidence = np.full(15, TOKENS.sum() / 15), (np.arange(15) + 0.5) / 15
    correct = tokens * confidence * 0.97
    scores = {"loss": nll + 0.1, "nll": nll, "perplexity": math.exp(nll), "bits_per_byte": nll / 4 / math.log(2)}
    scores |= {"accuracy": float(correct.sum() / tokens.sum())}
    scores |= {"ece": float(np.abs(correct - tokens * confidence).sum() / tokens.sum())}
    points: list[tuple[int, str, float]] = []
    calibrated = {"nll_calibrated": nll - 0.01, "ece_calibrated": scores["ece"] / 2}
    by_frequency = {"nll_frequent": nll / 2, "nll_medium": 2 * nll, "nll_rare": 5 * nll}
    for step in STEPS:
        train = {"loss": scores["loss"] + 3 / step, "nll": nll + 3 / step, "lr": 0.01 * min(1, step / 10)}
        points += [(step, f"train/{key}", value) for key, value in {**train, "seconds": 0.1 * step + seed}.items()]
    points += [(50, f"val/{key}", value * 1.2) for key, value in scores.items()]
    points += [(100, f"{split}/{key}", value) for split in ("val", "test") for key, value in scores.items()]
    for split, values in (("val", {**calibrated, "temperature": 0.9}), ("test", {**calibrated, **by_frequency})):
        points += [(100, f"{split}/{key}", value) for key, value in values.items()]
    points += [(100, "train/tokens", 25_600.0)]
    points = [point for point in points if point[1] not in without]
    bins = np.stack([tokens, correct, tokens * confidence], axis=1).tolist()
    artifacts = {
        "stories.csv": stories_csv(nats),
        "calibration.csv": to_csv(("tokens", "correct", "confidence"), bins),
        "samples.txt": f"Once {loss} {seed}.\n\n---\n\nTwice.",
    }
    shape = {"model__n_layer": 2, "model__dropout": 0.0, "model__block_size": 64, "train__max_steps": 100}
    training = {"optimizer__lr": 0.01, "train__batch_size": 4, "train__accumulate": 1, "device": "cpu"}
    result = run(
        loss,
        seed,
        metrics={key: value for _, key, value in points},
        points=points,
        artifacts={name: text for name, text in artifacts.items() if name not in without},
        **{**shape, **training, "samples__prompt": "", "samples__temperature": 0.8, **options},
    )
    result.tags["parameters"] = "640000"
    return result


def to_csv(header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    """Return the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()
