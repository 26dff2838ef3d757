"""Trained models: architecture, weights and tokenizer, read from a run, a file, a folder or the Hugging Face hub."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nanosq import checkpoint
from nanosq.command import MODEL
from nanosq.data import tokenizers
from nanosq.data.tokenizers import Tokenizer
from nanosq.filesystem import file_digest
from nanosq.huggingface import folder, hub, tokenizer
from nanosq.model import GPT
from nanosq.tracking import Store

TARGET = "nanosq.model.GPT"
PARTS = (".safetensors", ".json")  # suffixes of files of a folder in Hugging Face's format
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.pt)")


@dataclass(frozen=True)
class Pretrained:
    """A trained model.

    Args:
        path: The file or folder that it was read from.
        architecture: The arguments of `GPT` but for the size of the vocabulary.
        weights: The state of a `GPT`, on the CPU.
        tokenizer: The tokenizer of its tokens.
        facts: What a checkpoint holds besides: "settings", "run_id" and others. A folder may have "precision".
    """

    path: Path
    architecture: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    facts: Mapping[str, Any]

    def build(self) -> GPT:
        """Return the model, on the CPU and in evaluation mode.

        Raises:
            ValueError: The architecture is not one of `GPT`, or the weights do not fit it.
        """
        try:
            model = GPT(self.tokenizer.vocab_size, **self.architecture)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path}: {error}") from error
        self.check(model)
        model.load_state_dict(self.weights)
        return model.eval()

    def check(self, model: nn.Module, *, any_length: str = "") -> None:
        """Check the names and shapes of the weights, and that those of a `GPT` are finite.

        Args:
            model: A model that has the right ones, in memory or on the device "meta".
            any_length: Name of a tensor whose number of rows is not checked.

        Raises:
            ValueError: One differs or is not finite.
        """
        wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        if any_length in found:
            found[any_length] = (*wanted[any_length][:1], *found[any_length][1:])
        for name in sorted({*wanted, *found}):
            shape, needed = found.get(name), wanted.get(name)
            if shape != needed:
                problem = f"lacks the tensor {name}" if shape is None else f"has the tensor {name} of the shape {shape}"
                raise ValueError(
                    f"{self.path} holds another model: it {problem}, and this one needs {needed or 'none'}"
                )
            if isinstance(model, GPT) and not self.weights[name].isfinite().all():  # another one may have a mask
                raise ValueError(f"{self.path} is broken: numbers of the tensor {name} are not finite")


def locate(name: str, store: Store) -> Path:
    """Return the file or folder of a model.

    It has the name itself, or is the best.pt of a run with this id, or is downloaded from the Hugging Face hub.

    Raises:
        ValueError: There is none.
    """
    if not name:
        raise ValueError(f"the name of the model is empty: give the {MODEL}")
    path = Path(name)
    if path.exists():
        return path
    if checkpoint.RUN_ID.fullmatch(name):
        return store.checkpoint(name, "best.pt")
    if HUB_NAME.fullmatch(name):
        return hub.download(name)
    raise ValueError(f"there is no model {name}: give the {MODEL}")


def load(name: str, store: Store, *, is_gpt: bool = True) -> Pretrained:
    """Read a trained model.

    Args:
        name: Path of a checkpoint or of a folder in Hugging Face's format, id of a run, or a name on the hub.
        store: Store of the runs.
        is_gpt: Whether it must be a `GPT`. A model of any other class is in a checkpoint.

    Raises:
        ValueError: It does not exist, cannot be read, or is not a `GPT` and must be one.
    """
    path = locate(name, store)
    if path.suffix in PARTS and path.is_file():
        raise ValueError(f"{path} is a file of a model: give its folder, {str(path.parent)!r}")
    if path.is_dir() and is_gpt:
        if not (path / folder.CONFIG).is_file():
            raise ValueError(f"{path} has no {folder.CONFIG}: give the {MODEL}")
        architecture, weights = folder.read(path)
        n_rows = len(weights["token_embedding.weight"])
        return Pretrained(path, architecture, weights, tokenizer.read(path, n_rows), folder.facts(path))
    saved = checkpoint.load(path, checkpoint.WEIGHTS)
    target = saved["settings"].get("model._target_")
    if is_gpt and target != TARGET:
        raise ValueError(f"{path} holds a model of the class {target}: only those of {TARGET} can be read")
    try:
        its_tokenizer = tokenizers.load(saved["tokenizer"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Pretrained(path, saved["architecture"], saved["model"], its_tokenizer, saved)


def digest(path: Path) -> str:
    """Return the SHA-256 digest of a model in hexadecimal digits: of its file, or of the files of its folder.

    Raises:
        ValueError: The folder has no weights.
    """
    if not path.is_dir():
        return file_digest(path)
    files = [path / name for name in (folder.CONFIG, *tokenizer.FILES)] + folder.weight_files(path)
    lines = [f"{file.name} {file_digest(file)}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
