"""The files of results/: runs.csv has a row for each run, stories.npz the nll of every test story of the final runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.report.bootstrap import Floats
from analysis.study.contrasts import BASELINE

if TYPE_CHECKING:
    from pandas import DataFrame

PRIMARY = "text"  # the part that decides
FOLDER = Path(__file__).with_name("results")
ARMS = (BASELINE, "squentropy_1", "squentropy_0.1", "squentropy_0.01", "z_loss_0.001", "logit_penalty_0.1")
SETTING = ("optimizer", "lr", "dropout", "warmup", "layers", "width", "vocabulary", "steps")  # columns of runs.csv
ENDED = ("finished", "diverged")


def runs(part: str | None = None) -> "DataFrame":
    """Return all runs, or those of a part of the study, in the order in which they started."""
    import pandas as pd

    frame = pd.read_csv(FOLDER / "runs.csv", dtype={"vocabulary": str, "run_id": str})
    return frame if part is None else frame[frame["part"] == part]


def parts() -> list[str]:
    """Return the names of the parts that have runs."""
    return list(runs()["part"].unique())


def tuning(part: str, arm: str) -> "DataFrame":
    """Return the tuning runs of an arm that ended, the lowest validation nll first. That of a diverged run is inf."""
    frame = runs(part)
    chosen = (frame["role"] == "tuning") & (frame["arm"] == arm) & frame["state"].isin(ENDED)
    return frame[chosen].fillna({"val/nll": math.inf}).sort_values("val/nll")


def at_edge(part: str) -> dict[str, float]:
    """Return the arms whose best learning rate is the lowest or highest that was tried, with this rate."""
    rates = {arm: tuning(part, arm)["lr"] for arm in finals(part)}
    return {arm: float(tried.iloc[0]) for arm, tried in rates.items() if tried.iloc[0] in (tried.min(), tried.max())}


def finals(part: str) -> "dict[str, DataFrame]":
    """Return the final runs of each arm by its name, in the order of their seeds.

    They are those of its best tuning run. A run that diverged has no scores. The last run of a seed counts.

    Raises:
        ValueError: An arm lacks final runs of its best setting, or two versions of the program trained.
    """
    frame, result = runs(part), {}
    for arm in ARMS:
        candidates = frame[(frame["role"] == "final") & (frame["arm"] == arm) & frame["state"].isin(ENDED)]
        if len(candidates):
            best = tuning(part, arm).iloc[0]
            is_best = (candidates[list(SETTING)] == best[list(SETTING)]).all(axis=1)
            result[arm] = candidates[is_best].drop_duplicates("seed", keep="last").sort_values("seed")
    seeds = {arm: tuple(chosen["seed"]) for arm, chosen in result.items()}
    if len({*seeds.values()}) > 1 or () in seeds.values():
        raise ValueError(f"{part}: the arms lack final runs of their best settings; their seeds are {seeds}")
    programs = {program for chosen in result.values() for program in chosen["program"]}
    if len(programs) > 1:
        raise ValueError(f"{part}: {len(programs)} versions of the program have trained the final runs")
    return result


def diverged(part: str) -> list[str]:
    """Return the arms of which a final run has diverged. They have no mean."""
    return [arm for arm, frame in finals(part).items() if _has_diverged(frame)]


def _has_diverged(frame: "DataFrame") -> bool:
    return not frame["state"].eq("finished").all()


def stories(part: str, seeds: Sequence[int] = ()) -> tuple[dict[str, Floats], Floats, Floats]:
    """Return the nats of the test stories, their tokens and their bytes, without arms of which a run has diverged.

    Args:
        part: The part of the study.
        seeds: The seeds; by default all.

    Returns:
        Nats by arm (n_seeds, n_stories), in the order of the seeds; tokens and bytes (n_stories,).
    """
    nll = {}
    with np.load(FOLDER / "stories.npz") as arrays:
        for arm, frame in finals(part).items():
            if not _has_diverged(frame):
                chosen = frame[frame["seed"].isin(seeds)] if seeds else frame
                nll[arm] = np.stack([arrays[f"{part}/{run_id}"] for run_id in chosen["run_id"]]).astype(np.float64)
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
