"""A checkout of karpathy/nanoGPT: its model, its schedule, and the conversion of weights in both directions.

The folder belongs to the user and its files run unchanged; none of them is part of this project.
"""

import ast
import contextlib
import importlib.util
import io
import math
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from analysis.benchmarks.lib.loss_methods import listing_of_logits
from nanosq import config
from nanosq.data import corpus
from nanosq.data.corpus import Corpus
from nanosq.model import GPT

# On a CPU, train.py computes in fp32, within nullcontext(). It executes configuration files: this one has one line.
AUTOCAST_FILE = "autocast_on_cpu.py"
AUTOCAST = 'nullcontext = lambda: torch.autocast("cpu", torch.bfloat16)\n'

# Names of the modules of nanosq.model.GPT in nanoGPT: outside of the blocks, and in each of them.
OUTER_MODULES = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "final_norm": "transformer.ln_f",
}
BLOCK_MODULES = {
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.project": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.expand": "mlp.c_fc",
    "mlp.project": "mlp.c_proj",
}


class Checkout:
    """A folder with nanoGPT's model.py and train.py; ValueError if it has none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("model.py", "train.py"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} is not a checkout of karpathy/nanoGPT: it has no {name}")
        try:
            spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
            assert spec is not None
            assert spec.loader is not None
            self._module: Any = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = self._module  # torch.compile imports it by its name
            spec.loader.exec_module(self._module)
            _ = self._module.GPT.configure_optimizers, self._module.GPTConfig
            self._get_lr = _compile_function(folder / "train.py", "get_lr")
        except Exception as error:  # files of another project can raise anything
            raise ValueError(f"{folder} is not a checkout of karpathy/nanoGPT: {error}") from error

    def model(self, **sizes: Any) -> Any:
        """Return a new GPT of nanoGPT; `sizes` are the fields of its GPTConfig."""
        with silence():
            return self._module.GPT(self._module.GPTConfig(**sizes))

    def schedule(self, *, lr: float, warmup: int, max_steps: int, min_lr: float) -> Callable[[int], float]:
        """Return the function get_lr of train.py, from step to learning rate; importing train.py would train."""
        settings = {"learning_rate": lr, "warmup_iters": warmup, "lr_decay_iters": max_steps, "min_lr": min_lr}
        names: dict[str, Any] = {"math": math, **settings}
        exec(self._get_lr, names)
        return names["get_lr"]

    def copy_with_corpus(self, text: Corpus, folder: Path) -> Path:
        """Copy the checkout into `folder`, with the training and validation split as its data set "corpus"."""
        copy = folder / "nanogpt"
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns(".git", "data", "out*"))
        data = copy / "data" / "corpus"
        data.mkdir(parents=True)
        text.train.tokens.astype(np.uint16).tofile(data / "train.bin")
        text.val.tokens.astype(np.uint16).tofile(data / "val.bin")
        (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": text.tokenizer.vocab_size}))
        (copy / AUTOCAST_FILE).write_text(AUTOCAST)
        return copy


def train_command(**settings: object) -> list[str]:
    """Return the command that trains on the data set of `copy_with_corpus`, in that folder, without accumulation.

    With `dtype="bfloat16"` it computes so on a CPU, too.
    """
    settings = {"dataset": "corpus", "gradient_accumulation_steps": 1, **settings}
    files = [AUTOCAST_FILE] if settings.get("dtype") == "bfloat16" else []
    return [sys.executable, "train.py", *files, *(f"--{name}={value}" for name, value in settings.items())]


def prepare_corpus(cfg: DictConfig) -> Corpus:
    """Prepare the corpus of a configuration as run.py does."""
    source = config.build("data.source", cfg.data.source)
    tokenizer = config.build("data.tokenizer", cfg.data.tokenizer)
    return corpus.prepare(source, tokenizer, cache_dir=cfg.cache_dir)


class WithListing(nn.Module):
    """nanoGPT's model with the loss that the report put into it, Listing A.2, in place of F.cross_entropy."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits_BTV and the loss."""
        layers = self.model.transformer
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        hidden_BTD = layers.drop(layers.wte(tokens_BT) + layers.wpe(positions_T))
        for block in layers.h:
            hidden_BTD = block(hidden_BTD)
        logits_BTV = self.model.lm_head(layers.ln_f(hidden_BTD))
        return logits_BTV, listing_of_logits(logits_BTV.flatten(0, 1), targets_BT.flatten())


def name_in_nanogpt(name: str) -> str:
    """Return nanoGPT's name of a parameter of nanosq.model.GPT."""
    module, _, kind = name.rpartition(".")
    if module in OUTER_MODULES:
        return f"{OUTER_MODULES[module]}.{kind}"
    _, number, inner = module.split(".", maxsplit=2)
    return f"transformer.h.{number}.{BLOCK_MODULES[inner]}.{kind}"


def weights_for_nanogpt(model: GPT) -> dict[str, Tensor]:
    """Return the weights of a model as a state_dict of nanoGPT."""
    weights = {name_in_nanogpt(name): weight for name, weight in model.state_dict().items()}
    return weights | {"lm_head.weight": model.head_weight.detach()}


def weights_from_nanogpt(state: Mapping[str, Tensor], model: GPT) -> dict[str, Tensor]:
    """Return a state_dict of nanoGPT as one of `model`, which has the same shape."""
    state = {name.removeprefix("_orig_mod."): weight for name, weight in state.items()}  # a prefix of torch.compile
    return {name: state[name_in_nanogpt(name)] for name in model.state_dict()}


def silence() -> contextlib.AbstractContextManager[object]:
    """Suppress what nanoGPT prints when it builds a model or an optimizer."""
    return contextlib.redirect_stdout(io.StringIO())


def _compile_function(path: Path, name: str) -> Any:
    """Compile the definition of one function of a file."""
    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not functions:
        raise ValueError(f"{path} has no function {name}")
    return compile(ast.Module(body=list(functions), type_ignores=[]), str(path), "exec")
