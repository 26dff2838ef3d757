"""Checkpoints: written whole or not at all, and read without executing anything."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

FORMAT = "nanosq-1"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file is the old one or the new one whenever the plug is pulled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; ValueError where there is none or where it is damaged."""
    if not Path(path).is_file():
        raise ValueError(f"no checkpoint at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of nanosq, or is damaged") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of nanosq")
    return state


def snapshot(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """All that training changes: weights, optimizer, random generators."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> None:
    """Undo what training has changed since a snapshot; ValueError for weights alone or for another model."""
    if "optimizer" not in state:
        raise ValueError("the checkpoint holds weights alone; resume from a last.pt, see train.checkpoint_every")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError("the checkpoint belongs to another model or vocabulary") from error
    torch.set_rng_state(state["rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
