"""A checkout of karpathy/nanoGPT as the benchmarks use it: its model, its schedule, weights to and fro.

The folder is the user's and its files are run as they are; nothing of them is part of this project.
"""

import ast
import contextlib
import importlib.util
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.benchmarks.lib.loss_methods import listing_of_logits
from nanosq.model import GPT

# Modules of nanosq.model.GPT, by the names that they have there and in nanoGPT.
OUTER = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "final_norm": "transformer.ln_f",
}
OF_A_BLOCK = {
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.project": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.expand": "mlp.c_fc",
    "mlp.project": "mlp.c_proj",
}


class Checkout:
    """ValueError where the folder holds no model.py and train.py of nanoGPT."""

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
            spec.loader.exec_module(self._module)
            _ = self._module.GPT.configure_optimizers, self._module.GPTConfig
            self._get_lr = _function(folder / "train.py", "get_lr")
        except Exception as error:  # whatever a file of another project does
            raise ValueError(f"{folder} is not a checkout of karpathy/nanoGPT: {error}") from error

    def model(self, **sizes: Any) -> Any:
        """Its GPT; `sizes` are the fields of its GPTConfig."""
        with quiet():
            return self._module.GPT(self._module.GPTConfig(**sizes))

    def schedule(self, *, lr: float, warmup: int, max_steps: int, min_lr: float) -> Callable[[int], float]:
        """Its learning rate at each step: the function in its train.py, which cannot be imported without training."""
        settings = {"learning_rate": lr, "warmup_iters": warmup, "lr_decay_iters": max_steps, "min_lr": min_lr}
        names: dict[str, Any] = {"math": math, **settings}
        exec(self._get_lr, names)
        return names["get_lr"]


class WithListing(nn.Module):
    """Its GPT with the loss that the report put into it, Listing A.2, in the place of F.cross_entropy."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.model.transformer
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        hidden_BTD = parts.drop(parts.wte(tokens_BT) + parts.wpe(positions_T))
        for block in parts.h:
            hidden_BTD = block(hidden_BTD)
        logits_BTV = self.model.lm_head(parts.ln_f(hidden_BTD))
        return logits_BTV, listing_of_logits(logits_BTV.flatten(0, 1), targets_BT.flatten())


def name_in_nanogpt(name: str) -> str:
    """Of a parameter of nanosq.model.GPT."""
    module, _, kind = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{kind}"
    _, number, part = module.split(".", maxsplit=2)
    return f"transformer.h.{number}.{OF_A_BLOCK[part]}.{kind}"


def weights_for_nanogpt(model: GPT) -> dict[str, Tensor]:
    """The weights of a model as nanoGPT's load_state_dict takes them."""
    weights = {name_in_nanogpt(name): weight for name, weight in model.state_dict().items()}
    return weights | {"lm_head.weight": model.head_weight.detach()}


def weights_from_nanogpt(state: Mapping[str, Tensor], model: GPT) -> dict[str, Tensor]:
    """The weights of nanoGPT's state_dict as load_state_dict of `model`, of the same shape, takes them."""
    state = {name.removeprefix("_orig_mod."): weight for name, weight in state.items()}  # of a compiled model
    return {name: state[name_in_nanogpt(name)] for name in model.state_dict()}


def quiet() -> contextlib.AbstractContextManager[object]:
    """NanoGPT prints what it builds."""
    return contextlib.redirect_stdout(io.StringIO())


def _function(path: Path, name: str) -> Any:
    """The definition of one function of a file, compiled; to be executed where its globals are."""
    tree = ast.parse(path.read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        raise ValueError(f"{path} has no function {name}")
    return compile(ast.Module(body=list(found), type_ignores=[]), str(path), "exec")
