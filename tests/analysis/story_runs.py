"""Runs of 30 stories, made for tests: how many nats a token each story takes is given."""

import csv
import io
import math
from typing import Any

import numpy as np

from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting, settings

N = 30
TOKENS = np.arange(100, 100 + N)
DIFFICULTY = np.random.default_rng(0).permutation(np.linspace(0.5, 1.5, N))


def stories_csv(nats: np.ndarray, *, text: str = "One  day,\na fox.", n_bytes: int = 4) -> str:
    file = io.StringIO()
    lines = csv.writer(file)
    lines.writerow(("story", "tokens", "bytes", "nll", "text"))
    order = np.argsort(nats)
    shown = {*order[:10].tolist(), *order[-10:].tolist()}
    for story, (tokens, value) in enumerate(zip(TOKENS, nats, strict=False)):
        lines.writerow((story, tokens, tokens * n_bytes, tokens * value, f"{story}: {text}" if story in shown else ""))
    return file.getvalue()


def run(
    loss: str,
    seed: int,
    nats: np.ndarray,
    *,
    text_hash: str = "abc",
    metrics: Any = None,
    csv_file: Any = "",
    **params: str,
) -> RecordedRun:
    """A finished run with these nats a token of each story; no artifact where csv_file is None."""
    nll = float((TOKENS[: len(nats)] * nats).sum() / TOKENS[: len(nats)].sum())
    return RecordedRun(
        id=f"{loss}-{seed}",
        name=f"{loss} tiny",
        status="FINISHED",
        started=seed,
        link="",
        artifact_uri="",
        params={"loss._target_": f"nanosq.losses.{loss}", "seed": str(seed)} | params,
        metrics={"test/nll": nll, "val/nll": nll, "test/bits_per_byte": nll / 4 / math.log(2)} | (metrics or {}),
        tags={"text": text_hash},
        _texts={"stories.csv": stories_csv(nats) if csv_file == "" else csv_file},
    )


def setting(loss: str, seeds: tuple[int, ...] = (1, 2, 3), shift: float = 0.0, **options: Any) -> RecordedSetting:
    """Runs whose stories lie by `shift` nats a token, and a little luck, above their difficulty."""
    rng = np.random.default_rng([*loss.encode(), *seeds])
    found = [run(loss, seed, DIFFICULTY + shift + 0.01 * rng.standard_normal(N), **options) for seed in seeds]
    return settings(found)[0]
