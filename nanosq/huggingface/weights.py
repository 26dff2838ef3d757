"""Names and layout of weights: those of `GPT`, and those of GPT2LMHeadModel in Hugging Face's transformers.

The linear layers of GPT2LMHeadModel have weights of the shape (n_in, n_out), those of PyTorch and `GPT` (n_out, n_in).
Its head is tied to the token embedding, as ours, and all its layers have biases.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

PREFIX = "transformer."  # of all names but that of the head; the files of some models lack it
HEAD = "lm_head.weight"
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # causal masks, which older files contain


class Place(NamedTuple):
    """A tensor in both formats."""

    ours: str
    theirs: str
    shape: tuple[int, ...]  # in Hugging Face's format
    is_transposed: bool = False


def places(vocab_size: int, *, block_size: int, n_layer: int, n_embd: int) -> Iterator[Place]:
    """Yield all tensors of a model with biases."""
    D = n_embd
    yield Place("token_embedding.weight", "wte.weight", (vocab_size, D))
    yield Place("position_embedding.weight", "wpe.weight", (block_size, D))
    for i in range(n_layer):
        ours, theirs = f"blocks.{i}", f"h.{i}"
        yield from _norm(f"{ours}.attention_norm", f"{theirs}.ln_1", D)
        yield from _linear(f"{ours}.attention.query_key_value", f"{theirs}.attn.c_attn", D, 3 * D)
        yield from _linear(f"{ours}.attention.project", f"{theirs}.attn.c_proj", D, D)
        yield from _norm(f"{ours}.mlp_norm", f"{theirs}.ln_2", D)
        yield from _linear(f"{ours}.mlp.expand", f"{theirs}.mlp.c_fc", D, 4 * D)
        yield from _linear(f"{ours}.mlp.project", f"{theirs}.mlp.c_proj", 4 * D, D)
    yield from _norm("final_norm", "ln_f", D)


def import_weights(
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    vocab_size: int,
    *,
    block_size: int,
    n_layer: int,
    n_embd: int,
) -> dict[str, Tensor]:
    """Return the state of a `GPT` with biases, in float32.

    All shapes are compared before a tensor is read, so that wrong sizes cost no memory.

    Args:
        shapes: Shapes of the tensors of a GPT2LMHeadModel, by name.
        read: Returns the tensor of a name.
        vocab_size: Number of rows of the token embedding.
        block_size: Number of rows of the position embedding.
        n_layer: Number of blocks.
        n_embd: Model width.

    Raises:
        ValueError: A tensor is missing, unknown, has another shape or no floating-point numbers, or the head is not
            the token embedding. The message names the first such tensor.
    """
    names = {name.removeprefix(PREFIX): name for name in shapes}
    if len(names) < len(shapes):
        raise ValueError(f"the weights contain tensors with the prefix {PREFIX} and again without it")
    found: list[Place] = []
    for place in places(vocab_size, block_size=block_size, n_layer=n_layer, n_embd=n_embd):
        shape = shapes.get(names.get(place.theirs, ""))
        if shape != place.shape:
            problem = "is missing" if shape is None else f"has the shape {shape}"
            raise ValueError(f"the tensor {place.theirs} {problem}; its shape should be {place.shape}")
        found.append(place)
    known = {place.theirs for place in found} | {HEAD}
    for name in names:
        if name not in known and not MASKS.fullmatch(name):
            raise ValueError(f"the tensor {name} of the shape {shapes[names[name]]} is not one of GPT-2")

    def weights(name: str) -> Tensor:
        tensor = read(names[name])
        if not tensor.is_floating_point():
            raise ValueError(f"the tensor {name} must have floating-point numbers, not {tensor.dtype}")
        return tensor.float()

    if HEAD in names and (shapes[HEAD] != found[0].shape or not torch.equal(weights(HEAD), weights(found[0].theirs))):
        raise ValueError(
            f"the tensor {HEAD} must equal wte.weight: only a head that is tied to the embedding is supported"
        )
    return {p.ours: weights(p.theirs).t() if p.is_transposed else weights(p.theirs) for p in found}


def export_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a GPT2LMHeadModel from the state of a `GPT`. Biases that the model lacks are zero."""
    vocab_size, n_embd = state["token_embedding.weight"].shape
    block_size = len(state["position_embedding.weight"])
    n_layer = sum(name.endswith(".attention_norm.weight") for name in state)
    tensors = {}
    for place in places(vocab_size, block_size=block_size, n_layer=n_layer, n_embd=n_embd):
        tensor = state.get(place.ours)
        if tensor is None:
            tensor = torch.zeros(place.shape)
        elif place.is_transposed:
            tensor = tensor.t()
        tensors[PREFIX + place.theirs] = tensor.float().contiguous()
    return tensors


def without_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a `GPT` without its biases."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(".bias")}


def _norm(ours: str, theirs: str, size: int) -> Iterator[Place]:
    yield Place(f"{ours}.weight", f"{theirs}.weight", (size,))
    yield Place(f"{ours}.bias", f"{theirs}.bias", (size,))


def _linear(ours: str, theirs: str, n_in: int, n_out: int) -> Iterator[Place]:
    yield Place(f"{ours}.weight", f"{theirs}.weight", (n_in, n_out), is_transposed=True)
    yield Place(f"{ours}.bias", f"{theirs}.bias", (n_out,))
