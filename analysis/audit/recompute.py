"""Numbers that follow from the report's settings: values of its losses, sizes of its models, lengths of its trials."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from analysis.configuration import compose
from nanosq import config
from nanosq.installation import CONF

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), targets (N,) to losses (N,)

INIT_STD = 0.02  # of every weight of a new GPT-2, nanosq/model.py


@cache
def preset(name: str) -> Mapping[str, Any]:
    """Return the settings of a preset of conf/experiment by dotted key: `{"model.n_layer": 12, ...}`."""
    return config.flatten(compose([f"experiment={name}"]))


def grid_axis(key: str) -> list[float]:
    """Return the values of one axis of the report's grid, Listing A.3."""
    axes: Any = OmegaConf.load(CONF / "hydra/sweeper/grid.yaml")
    return list(OmegaConf.create(f"[{axes.params[key]}]"))


def initial_value(loss: "Loss", *, n_classes: int, width: int) -> float:
    """Return the expected loss of a new GPT-2, in the unit of the loss.

    The final layer norm gives hidden states of length sqrt(width), so the logits are normal with variance
    width * INIT_STD^2. The other classes take the quantiles of that distribution. The target, to which every loss gives
    another weight, is integrated out by Gauss-Hermite quadrature.
    """
    import torch
    from scipy import special

    deviation = math.sqrt(width) * INIT_STD
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    quantiles = special.ndtri((np.arange(n_classes - 1) + 0.5) / (n_classes - 1))
    logits = np.concatenate([nodes[:, None], np.broadcast_to(quantiles, (len(nodes), n_classes - 1))], axis=1)
    with _one_thread():
        values = loss(torch.from_numpy(deviation * logits), torch.zeros(len(nodes), dtype=torch.int64))
    return float(values.numpy() @ (weights / weights.sum()))


def lowest_value(loss: "Loss", *, n_classes: int) -> float:
    """Find the lowest value of a loss when the target is certain, by SciPy's L-BFGS-B on the loss function itself.

    Two numbers are enough: a loss that is convex in the logits and treats all wrong classes alike is lowest where their
    logits are equal. The search starts at a target that is almost certain, because "mse", which is not convex but never
    negative, is flat where the target has no probability.
    """
    import torch
    from scipy import optimize

    target = torch.tensor([0])

    def value_and_gradient(point: np.ndarray) -> tuple[float, np.ndarray]:
        f = torch.from_numpy(point).requires_grad_()
        value = loss(torch.cat([f[:1], f[1:].expand(n_classes - 1)]).unsqueeze(0), target).sum()
        (gradient,) = torch.autograd.grad(value, f)
        return value.item(), gradient.numpy()

    with _one_thread():
        result = optimize.minimize(value_and_gradient, (30.0, 0.0), jac=True, method="L-BFGS-B")
    return float(result.fun)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: on arrays this small, threads mostly wait for each other."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def n_parameters(settings: Mapping[str, Any], n_layer: int) -> tuple[int, int]:
    """Count the parameters of a preset's GPT at another depth, without and with the position embeddings."""
    import torch

    from nanosq.model import GPT

    sizes = {key: settings[f"model.{key}"] for key in ("block_size", "n_head", "n_embd", "bias")}
    with torch.device("meta"):
        model = GPT(settings["data.tokenizer.pad_to"], n_layer=n_layer, **sizes)
    total = sum(weight.numel() for weight in model.parameters())
    return total - model.position_embedding.weight.numel(), total


def largest_lr_factor(settings: Mapping[str, Any], max_steps: int) -> float:
    """Return the largest share of the learning rate that a run of `max_steps` reaches on a preset's schedule."""
    schedule = config.get_target(settings["schedule._target_"])
    shape = {"warmup": settings["train.warmup"], "min_lr_factor": settings["train.min_lr_factor"]}
    return max(schedule(step, max_steps=max_steps, **shape) for step in range(max_steps))


def tokens_per_step(settings: Mapping[str, Any]) -> int:
    """Return how many tokens one optimizer step of a preset sees."""
    return math.prod(settings[key] for key in ("train.batch_size", "train.accumulate", "model.block_size"))


def n_ids_used(path: Path) -> int:
    """Count the GPT-2 tokens that occur in the documents of a file, the end-of-text token included.

    Raises:
        ValueError: The file does not exist or cannot be read.
    """
    from nanosq.data import sources, tokenizers

    if not path.is_file():
        raise ValueError(f"there is no file {path}: give --stories a file of text")
    tokenizer = tokenizers.gpt2()
    used = np.zeros(tokenizer.vocab_size, dtype=bool)
    used[tokenizer.end_of_text] = True
    documents = sources.text("test", train=str(path), test=str(path))
    while texts := [document.text for document in islice(documents, 1000)]:
        used[np.concatenate(tokenizer.encode(texts))] = True
    return int(used.sum())
