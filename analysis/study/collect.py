"""Copy the runs of a part of the study from MLflow into results/.

python -m analysis.study.collect PART      read PART/mlflow.db, which commands.sh has written
"""

import math
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from analysis import runs
from analysis.recorded_run import RecordedRun, normal
from analysis.report import stories
from analysis.study import results
from nanosq import command, option, terminal

PARAMETERS = {
    "optimizer": "optimizer",
    "lr": "optimizer.lr",
    "dropout": "model.dropout",
    "warmup": "train.warmup",
    "layers": "model.n_layer",
    "width": "model.n_embd",
    "vocabulary": "data.tokenizer.vocabulary",
    "steps": "train.max_steps",
    "seed": "seed",
}
METRICS = (
    *("val/nll", "val/temperature", "test/nll", "test/perplexity", "test/bits_per_byte", "test/excess_nll"),
    *("test/accuracy", "test/ece", "test/nll_calibrated", "test/ece_calibrated"),
    *("test/nll_frequent", "test/nll_medium", "test/nll_rare", "train/seconds", "train/tokens"),
)
TAGS = {
    "parameters": "parameters",
    "text": "text",
    "program": "code",
    "commit": "mlflow.source.git.commit",
    "hardware": "hardware",
    "threads": "threads",
}
PACKAGES = ("torch", "numpy", "hydra-core", "optuna", "mlflow")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rows of a part and return the exit status."""
    parser = terminal.parser("analysis.study.collect", __doc__, "PART")
    parser.add_argument("part", type=option.name, metavar="PART", help="a part of commands.sh: its folder")

    def work() -> None:
        part = parser.parse_args(arguments).part
        recorded = sorted(runs.load(results.store(part)), key=lambda run: run.started)
        if not recorded:
            raise ValueError(f"{part}/mlflow.db has no runs: train them with commands.sh {part}")
        if running := [run.label for run in recorded if run.state == "running"]:
            raise ValueError(f"{len(running)} runs have not ended, such as {running[0]}: run commands.sh {part}")
        collect(part, recorded)
        print(f"{len(recorded)} runs of {part} are in {results.FOLDER}")

    return command.run(work)


def collect(part: str, recorded: Sequence[RecordedRun]) -> None:
    """Write the runs of a part, the scores of the test stories of its final runs, and the machine.

    Raises:
        ValueError: A final run has no scores of its stories.
    """
    import pandas as pd

    arrays: dict[str, np.ndarray] = {}
    for run in recorded:
        if role(run) == "final" and run.state == "finished":
            scores = stories.read(run)
            arrays[run.id] = scores.nll.astype(np.float32)
            arrays |= {"tokens": scores.tokens.astype(np.int32), "bytes": scores.bytes.astype(np.int32)}
    results.replace(part, pd.DataFrame([row(part, run) for run in recorded]), arrays)
    path = results.FOLDER / "machines.csv"
    others = [frame[frame["part"] != part] for frame in ([pd.read_csv(path)] if path.exists() else [])]
    pd.concat([*others, pd.DataFrame([{"part": part, **machine()}])]).to_csv(path, index=False)


def row(part: str, run: RecordedRun) -> dict[str, Any]:
    """Return the row of a run in runs.csv. A run that has not finished has no scores, whatever it has logged before."""
    started = datetime.fromtimestamp(run.started / 1000, UTC)
    return {
        "part": part,
        "role": role(run),
        "arm": arm(run),
        **{column: normal(run.params.get(key, "")) for column, key in PARAMETERS.items()},
        "state": run.state,
        **{key: run.metric(key) if run.state == "finished" else math.nan for key in METRICS},
        **{column: run.tags.get(tag, "") for column, tag in TAGS.items()},
        "started": started.isoformat(timespec="seconds"),
        "run_id": run.id,
    }


def role(run: RecordedRun) -> str:
    """Return what a run was trained for: tuning, final, or a grid."""
    sweep = run.tags.get("sweep", "")
    if not sweep.startswith("compare-"):
        return "grid"
    return "final" if sweep.endswith("/confirmation") else "tuning"


def arm(run: RecordedRun) -> str:
    """Return the name of the arm of a run: its loss, and the weight of the penalty."""
    weight = run.params.get("loss.weight")
    return run.loss if weight is None else f"{run.loss}_{normal(weight)}"


def machine() -> dict[str, str | int]:
    """Return the hardware and the versions of this machine. A part has to be collected where it was trained."""
    path = Path("/proc/cpuinfo")
    info = path.read_text() if path.exists() else ""
    models = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "bf16 instructions": " ".join(flag for flag in ("avx512_bf16", "amx_bf16") if flag in info) or "none",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
