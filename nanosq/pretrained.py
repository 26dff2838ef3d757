"""Trained models: architecture, weights and tokenizer, read from a run or from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nanosq import checkpoint
from nanosq.data import tokenizers
from nanosq.data.tokenizers import Tokenizer
from nanosq.model import GPT
from nanosq.tracking import Store

TARGET = "nanosq.model.GPT"


@dataclass(frozen=True)
class Pretrained:
    """A trained model.

    Args:
        path: The file or folder that it was read from.
        architecture: The arguments of `GPT` but for the size of the vocabulary.
        weights: The state of a `GPT`, on the CPU.
        tokenizer: The tokenizer of its tokens.
        facts: What a checkpoint holds besides: "settings", "run_id" and others. It is empty for other files.
    """

    path: Path
    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    facts: Mapping[str, Any]

    def build(self) -> GPT:
        """Return the model, on the CPU and in evaluation mode.

        Raises:
            ValueError: The weights do not fit the architecture and the vocabulary.
        """
        model = GPT(self.tokenizer.vocab_size, **self.architecture)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ValueError(f"{self.path}: the weights do not fit the architecture and the vocabulary") from error
        return model.eval()


def locate(name: str, store: Store) -> Path:
    """Return the file of a model: of its path, or of the id of a run, whose best.pt the store has.

    Raises:
        ValueError: There is none.
    """
    return store.checkpoint(name, "best.pt") if checkpoint.RUN_ID.fullmatch(name) else Path(name)


def load(name: str, store: Store) -> Pretrained:
    """Read a trained model.

    Args:
        name: Path of a checkpoint, or id of a run.
        store: Store of the runs.

    Raises:
        ValueError: It does not exist, cannot be read, or is not a `GPT`.
    """
    path = locate(name, store)
    saved = checkpoint.load(path)
    target = saved["settings"].get("model._target_")
    if target != TARGET:
        raise ValueError(f"{path} holds a model of the class {target}: only those of {TARGET} can be read")
    return Pretrained(path, saved["architecture"], saved["model"], tokenizers.load(saved["tokenizer"]), saved)
