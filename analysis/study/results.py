"""The files of results/: runs.csv has a row for each run, stories.npz the nll of every test story of the final runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.report.bootstrap import Floats
from analysis.study.contrasts import BASELINE

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = Path(__file__).with_name("results")
ARMS = (BASELINE, "squentropy_1", "squentropy_0.1", "squentropy_0.01", "z_loss_0.001", "logit_penalty_0.1")
SETTING = ("optimizer", "lr", "dropout", "warmup", "layers", "width", "vocabulary", "steps")  # columns of runs.csv


def runs(part: str | None = None) -> "DataFrame":
    """Return all runs, or those of a part of the study, in the order in which they started."""
    import pandas as pd

    frame = pd.read_csv(FOLDER / "runs.csv", dtype={"vocabulary": str, "run_id": str})
    return frame if part is None else frame[frame["part"] == part]


def parts() -> list[str]:
    """Return the names of the parts that have runs."""
    return list(runs()["part"].unique())


def tuning(part: str, arm: str) -> "DataFrame":
    """Return the tuning runs of an arm, the one with the lowest validation nll first. Diverged runs are the last."""
    frame = runs(part)
    return frame[(frame["role"] == "tuning") & (frame["arm"] == arm)].sort_values("val/nll", na_position="last")


def finals(part: str) -> "dict[str, DataFrame]":
    """Return the final runs of each arm by its name, in the order of their seeds: those of its best tuning run."""
    frame, result = runs(part), {}
    for arm in ARMS:
        candidates = frame[(frame["role"] == "final") & (frame["arm"] == arm)]
        if len(candidates):
            best = tuning(part, arm).iloc[0]
            is_best = (candidates[list(SETTING)] == best[list(SETTING)]).all(axis=1)
            result[arm] = candidates[is_best].sort_values("seed")
    return result


def stories(part: str) -> tuple[dict[str, Floats], Floats, Floats]:
    """Return the nats of the test stories of a part, their tokens and their bytes.

    Returns:
        Nats by arm (n_seeds, n_stories), in the order of the seeds of `finals`; tokens and bytes (n_stories,).
    """
    with np.load(FOLDER / "stories.npz") as arrays:
        nll = {
            arm: np.stack([arrays[f"{part}/{arm}/{seed}"] for seed in frame["seed"]]).astype(np.float64)
            for arm, frame in finals(part).items()
        }
        return nll, arrays[f"{part}/tokens"].astype(np.float64), arrays[f"{part}/bytes"].astype(np.float64)


def replace(part: str, rows: "DataFrame", arrays: Mapping[str, np.ndarray]) -> None:
    """Write the runs and story scores of a part in place of those that the files have of it."""
    import pandas as pd

    FOLDER.mkdir(exist_ok=True)
    path, archive = FOLDER / "runs.csv", FOLDER / "stories.npz"
    others = [frame[frame["part"] != part] for frame in ([runs()] if path.exists() else [])]
    pd.concat([*others, rows]).to_csv(path, index=False)
    kept = {}
    if archive.exists():
        with np.load(archive) as before:
            kept = {key: before[key] for key in before if not key.startswith(f"{part}/")}
    np.savez_compressed(
        archive, allow_pickle=False, **kept, **{f"{part}/{key}": array for key, array in arrays.items()}
    )


def store(part: str) -> str:
    """Return the address of the MLflow store of a part, whose folder is in the current folder."""
    return f"sqlite:///{part}/mlflow.db"
