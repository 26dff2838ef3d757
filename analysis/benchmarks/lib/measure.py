"""Times of alternatives, and tables of results."""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from tqdm import tqdm

from nanosq import terminal
from nanosq.hardware import Hardware

K = TypeVar("K")


def describe_machine(hardware: Hardware) -> str:
    """Return the name of the GPU, or the number of threads of the CPU, and the version of PyTorch."""
    on_gpu = hardware.device.type == "cuda"
    place = torch.cuda.get_device_name(hardware.device) if on_gpu else f"{torch.get_num_threads()} threads"
    return f"{place}, torch {torch.__version__}"


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def median_seconds(
    cases: Mapping[K, Callable[[], float]], rounds: int, *, warmup: int = 1, description: str = "timing"
) -> dict[K, float]:
    """Return the median time of each case; a case is a function that runs it once and returns the seconds.

    Each case runs once in a round, so that a busy moment of the machine slows all of them alike. The first `warmup`
    rounds do not count.
    """
    times: dict[K, list[float]] = {case: [] for case in cases}
    for _ in tqdm(range(warmup + rounds), desc=description, unit="round", disable=not sys.stderr.isatty()):
        for case, run in cases.items():
            times[case].append(run())
    return {case: statistics.median(values[warmup:]) for case, values in times.items()}


def show(table: pd.DataFrame, formats: Mapping[str, str]) -> None:
    """Print a table with the given formats of its columns, as in `{"seconds": ".3f"}`."""
    frame = table.reset_index()
    columns = [[format(value, formats.get(str(name), "")) for value in frame[name]] for name in frame]
    print(f"{terminal.table([str(name) for name in frame], [*zip(*columns, strict=True)])}\n")


def save(table: pd.DataFrame, path: Path) -> None:
    """Write a table, index included, to a CSV file in a new or existing folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path)
