"""Runs for tests of the report, as run.py leaves them in MLflow, with scores that are drawn at random.

`python -m tests.analysis.store DIR --runs 500 --points 1000` makes a large store.
"""

import argparse
import csv
import io
import math
import time
from pathlib import Path

import mlflow
import numpy as np
from mlflow.entities import Metric

N_STORIES = 40
LOSSES = {"cross_entropy": 0.4, "squentropy": 0.6}  # nats a token


def open_store(folder: Path) -> tuple[mlflow.MlflowClient, str]:
    folder.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name("nanosq")
    location = f"file://{folder}/mlruns"
    return client, found.experiment_id if found else client.create_experiment("nanosq", artifact_location=location)


def params(loss: str, seed: int, **others: object) -> dict[str, str]:
    given = {
        "loss._target_": f"nanosq.losses.{loss}",
        "model._target_": "nanosq.model.GPT",
        "model.n_layer": 2,
        "model.dropout": 0.0,
        "model.block_size": 64,
        "optimizer.lr": 0.01,
        "train.max_steps": 100,
        "train.batch_size": 4,
        "train.accumulate": 1,
        "samples.prompt": "",
        "samples.temperature": 0.8,
        "samples.length": 256,
        "seed": seed,
        "device": "cpu",
        **others,
    }
    return {key: str(value) for key, value in given.items()}


def add_run(
    folder: Path,
    loss: str = "squentropy",
    seed: int = 1,
    *,
    status: str = "FINISHED",
    n_points: int = 12,
    tags: dict[str, str] | None = None,
    leave_out: tuple[str, ...] = (),
    **others: object,
) -> str:
    """Its id. status: MLflow's. leave_out: metrics or artifacts that it does not get. others: params."""
    client, experiment_id = open_store(folder)
    rng = np.random.default_rng([seed, len(loss)])
    given = params(loss, seed, **{key.replace("__", "."): value for key, value in others.items()})
    run = client.create_run(
        experiment_id,
        run_name=f"{loss} tiny stories",
        tags={"text": "0123456789ab", "diverged": "false", "pruned": "false", "parameters": "640000", **(tags or {})},
    )
    run_id = run.info.run_id
    for key, value in given.items():
        client.log_param(run_id, key, value)

    tokens_S = np.random.default_rng(0).integers(50, 200, N_STORIES)
    easy_S = np.random.default_rng(1).normal(0, 0.1, N_STORIES)  # the same stories are easy for every model
    nll_S = tokens_S * np.exp(np.log(LOSSES.get(loss, 0.5)) + easy_S + 0.02 * rng.normal(size=N_STORIES))
    nll = float(nll_S.sum() / tokens_S.sum())
    tokens_B, confidence_B = np.full(15, tokens_S.sum() // 15), (np.arange(15) + 0.5) / 15
    tokens_B[-1] += tokens_S.sum() - tokens_B.sum()
    correct_B = tokens_B * confidence_B * 0.97
    ece = float(np.abs(correct_B - tokens_B * confidence_B).sum() / tokens_S.sum())
    scores = {
        "loss": nll + (0.1 if loss == "squentropy" else 0.0),
        "nll": nll,
        "perplexity": math.exp(nll),
        "bits_per_byte": nll / 3,
        "accuracy": float(correct_B.sum() / tokens_S.sum()),
        "ece": ece,
    }
    at_end = {f"{split}/{key}": value for split in ("val", "test") for key, value in scores.items()}
    at_end |= {"train/seconds": 12.0 + seed, "train/tokens": 25_600.0}
    steps = np.linspace(1, 100, n_points).round().astype(int) if n_points <= 100 else np.arange(1, n_points + 1)
    points = [(int(step), "train/loss", scores["loss"] + 3 / step) for step in steps]
    points += [(int(step), "train/nll", nll + 3 / step) for step in steps]
    points += [(int(step), "train/lr", 0.01 * min(1, step / 10)) for step in steps]
    points += [(int(step), "train/tokens_per_second", 30_000.0) for step in steps]
    points += [(int(steps[-1]) // 2, f"val/{key}", value * 1.2) for key, value in scores.items()]
    points += [(int(steps[-1]), key, value) for key, value in at_end.items()]
    points = [point for point in points if point[1] not in leave_out]
    now = int(time.time() * 1000)
    for start in range(0, len(points), 1000):
        batch = [Metric(key, value, now, step) for step, key, value in points[start : start + 1000]]
        client.log_batch(run_id, metrics=batch)
    if status == "FINISHED":
        stories = [
            (i, n, 4 * n, repr(float(nats)), f"Story {i}." if i < 20 else "")
            for i, (n, nats) in enumerate(zip(tokens_S, nll_S, strict=True))
        ]
        bins = [tuple(map(float, row)) for row in zip(tokens_B, correct_B, tokens_B * confidence_B, strict=True)]
        files = {
            "curves.csv": _csv(("step", "metric", "value"), points),
            "stories.csv": _csv(("story", "tokens", "bytes", "nll", "text"), stories),
            "calibration.csv": _csv(("tokens", "correct", "confidence"), bins),
            "samples.txt": f"Once {loss} {seed}.\n\n---\n\nTwice.",
        }
        for name, text in files.items():
            if name not in leave_out:
                client.log_text(run_id, text, name)
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return run_id


def _csv(header: tuple[str, ...], rows: list) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--points", type=int, default=1000, help="of each metric of the training")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    n_grid = min(27, arguments.runs // 4)
    for i in range(n_grid):
        axes = {
            "optimizer__lr": 10.0 ** -(i % 3 + 2),
            "model__dropout": 0.1 * (i // 3 % 3),
            "model__n_layer": i // 9 + 1,
        }
        tags = {"sweep": "grid-00000000", "trial": str(i)}
        add_run(folder, "cross_entropy", 0, tags=tags, n_points=arguments.points, **axes)
    for i in range(arguments.runs - n_grid):
        loss = ("cross_entropy", "squentropy")[i % 2]
        add_run(folder, loss, i // 2 % 5, n_points=arguments.points, optimizer__lr=0.001 * (i // 10 + 1))


if __name__ == "__main__":
    main()
