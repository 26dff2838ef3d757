"""What the report's settings come to: least and first values of its losses, sizes of its models, text of its trials."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, C), targets (N,) to losses (N,)

CONF = Path(__file__).parents[2] / "conf"
INIT_STD = 0.02  # of every weight of a new GPT-2, nanosq/model.py


class Floor(NamedTuple):
    value: float  # the least
    target: float  # the logit of the target there
    others: float  # every other logit there


def preset(name: str) -> dict[str, Any]:
    """The settings of conf/experiment by dotted key, numbers as such, and its choice of components, as in "/loss"."""
    plain = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for choice in plain.pop("defaults", []):
        if isinstance(choice, str):  # another preset, which this one changes
            found |= preset(choice)
        else:
            found |= {key.removeprefix("override "): value for key, value in choice.items()}
    return found | dict(_flat(plain))


def grid() -> dict[str, list[float]]:
    """The numbers of each axis of Listing A.3, one or more."""
    text = yaml.safe_load((CONF / "hydra/sweeper/grid.yaml").read_text(encoding="utf-8"))
    axes = {key: [as_number(part) for part in str(value).split(",")] for key, value in text["params"].items()}
    return {key: values for key, values in axes.items() if all(isinstance(value, float) for value in values)}


def initial_value(loss: "Loss", *, n_classes: int, width: int) -> float:
    """Expected loss of a new GPT-2, in the unit of the loss.

    Its final layer norm gives hidden states of length sqrt(width), so logits are normal with variance
    width * INIT_STD^2. The classes take the quantiles of that distribution; the target, which all losses weigh
    differently, is integrated over by Gauss and Hermite's rule.
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


def floor(loss: "Loss", *, n_classes: int) -> Floor:
    """The least value for a target that is certain, found by SciPy's L-BFGS-B on the loss function itself.

    Two numbers are enough: a loss that is convex in the logits and treats all wrong classes alike has a least value
    where these are equal. From a target that is all but certain, because "mse", which is not convex but has no value
    below 0, is flat where the target has no probability yet.
    """
    import torch
    from scipy import optimize

    target = torch.tensor([0])

    def value_and_gradient(at: np.ndarray) -> tuple[float, np.ndarray]:
        f = torch.from_numpy(at).requires_grad_()
        value = loss(torch.cat([f[:1], f[1:].expand(n_classes - 1)]).unsqueeze(0), target).sum()
        (gradient,) = torch.autograd.grad(value, f)
        return value.item(), gradient.numpy()

    with _one_thread():
        found = optimize.minimize(value_and_gradient, (30.0, 0.0), jac=True, method="L-BFGS-B")
    return Floor(float(found.fun), *map(float, found.x))


@contextmanager
def _one_thread() -> Iterator[None]:
    """On arrays as small as these, threads mostly wait for each other, for seconds where others compute too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def n_parameters(settings: Mapping[str, Any], n_layer: int) -> tuple[int, int]:
    """Of the GPT of a preset at another depth: without the embedding of positions, and with it."""
    import torch

    from nanosq.model import GPT

    sizes = {key: int(settings[f"model.{key}"]) for key in ("block_size", "n_head", "n_embd")}
    with torch.device("meta"):
        model = GPT(int(settings["data.tokenizer.pad_to"]), n_layer=n_layer, bias=settings["model.bias"], **sizes)
    total = sum(weight.numel() for weight in model.parameters())
    return total - model.position_embedding.weight.numel(), total


def largest_lr_factor(settings: Mapping[str, Any], max_steps: int) -> float:
    """The most of its learning rate that a run of so many steps gets to under the schedule of a preset."""
    from nanosq import optim

    schedule = getattr(optim, settings["/schedule"])
    shape = {"warmup": int(settings["train.warmup"]), "min_lr_factor": settings["train.min_lr_factor"]}
    return max(schedule(step, max_steps=max_steps, **shape) for step in range(max_steps))


def tokens_per_step(settings: Mapping[str, Any]) -> int:
    return math.prod(int(settings[key]) for key in ("train.batch_size", "train.accumulate", "model.block_size"))


@cache
def n_held_out(n_stories: int) -> int:
    """Stories that the report's split takes away from so many."""
    from nanosq.data.sources import report_rows

    return int(report_rows(n_stories).sum())


def n_ids_used(path: Path) -> int:
    """How many of GPT-2's ids occur in the documents of a file, of any format of data=text; its end of text is one.

    ValueError where the file cannot be read.
    """
    from nanosq.data import files, tokenizers

    if not path.is_file():
        raise ValueError(f"there is no file {path}: give --stories a file of text")
    files.check(path)
    end = "<|endoftext|>"
    documents = (text for text, _ in files.read(path, end if files.holds(path, end) else "", "text"))
    tokenizer = tokenizers.gpt2()
    used = np.zeros(tokenizer.vocab_size, dtype=bool)
    used[tokenizer.end_of_text] = True
    while some := list(islice(documents, 1000)):
        used[np.concatenate(tokenizer.encode(some))] = True
    return int(used.sum())


def _flat(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", as_number(value)


def as_number(value: Any) -> Any:
    """What is written as a number, as one; YAML takes 6e-4 for text."""
    if isinstance(value, bool | list):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
