"""The contracts of a tokenizer, a schedule, an optimizer and a model: each is tried before anything is recorded.

That of a loss is in nanosq/loss_check.py, and that of a source in nanosq/data/documents.py.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from nanosq.component_errors import calling
from nanosq.data import tokenizers
from nanosq.data.tokenizers import Tokenizer
from nanosq.errors import InputError
from nanosq.model import GPT

TOKENIZER = "a tokenizer is one of nanosq/data/tokenizers.py"
SCHEDULE = "a schedule maps (step, *, max_steps, warmup, min_lr_factor) to a factor on the learning rate, 0 or more"
OPTIMIZER = "an optimizer takes groups of parameters and its settings, and has a step without arguments"
MODEL = (
    "a model takes (vocab_size, *, block_size, ...), has block_size, head_weight of shape (V, D) and flops_per_token, "
    "and maps tokens of shape (B, T) to hidden states of shape (B, T, D)"
)
N_STEPS = 1000  # of a schedule that are tried
N_TOKENS = 3  # of a window that a model is tried with


def check_kind(component: object, name: str, kind: type, contract: str) -> None:
    """Raise an InputError if a component, or a part of it with this name, is not an object of a class."""
    if not isinstance(component, kind):
        raise InputError(f"{name} is a {type(component).__name__}, not of the class {kind.__name__}; {contract}")


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raise a ValueError if a corpus could not be read with a tokenizer."""
    check_kind(tokenizer, name, Tokenizer, TOKENIZER)
    with calling(name, TOKENIZER):
        tokenizers.load(tokenizer.state())


def check_schedule(schedule: Callable[[int], float], name: str, *, max_steps: int) -> None:
    """Try a schedule at about N_STEPS steps, among them the first one and the last one.

    Raises:
        ValueError: The schedule breaks the contract, or fails. The message says how, on one line.
    """
    for step in (*range(0, max_steps, math.ceil(max_steps / N_STEPS)), max_steps - 1):
        with calling(name, SCHEDULE):
            factor: object = schedule(step)
        if not _is_number(factor):
            raise InputError(f"{name} returns {factor!r} at step {step}; {SCHEDULE}")


def check_optimizer(
    build: Callable[[nn.Module], torch.optim.Optimizer], name: str, *, device: torch.device | None = None
) -> None:
    """Try an optimizer with one step of the smallest model.

    Args:
        build: Returns the optimizer of a model.
        name: Dotted name of its class, for messages.
        device: Device of the step.

    Raises:
        ValueError: The optimizer breaks the contract, or fails. The message says how, on one line.
    """
    model = nn.Linear(1, 1, device=device)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build(model)
    check_kind(optimizer, name, torch.optim.Optimizer, OPTIMIZER)
    with calling(name, OPTIMIZER):
        optimizer.step()


def check_model(model: Any, name: str, vocab_size: int) -> None:
    """Try a model on the device "meta", where nothing is computed.

    Args:
        model: The model, on this device.
        name: Dotted name of its class, for messages.
        vocab_size: Size of its vocabulary.

    Raises:
        ValueError: The model breaks the contract, or fails. The message says how, on one line.
    """
    check_kind(model, name, nn.Module, MODEL)
    with calling(name, MODEL):
        block_size, weight_VD, flops_per_token = model.block_size, model.head_weight, model.flops_per_token
        if not isinstance(block_size, int) or block_size < 1:
            raise InputError(f"{name}: block_size is {block_size!r}, not a number of tokens; {MODEL}")
        if not _is_number(flops_per_token):
            raise InputError(f"{name}: flops_per_token is {flops_per_token!r}, not a number; {MODEL}")
        check_kind(weight_VD, f"{name}.head_weight", Tensor, MODEL)
        if weight_VD.dim() != 2 or len(weight_VD) != vocab_size:
            raise InputError(f"{name}.head_weight has shape {tuple(weight_VD.shape)} with V = {vocab_size}; {MODEL}")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(f"{name} has no parameter to train; {MODEL}")
        if type(model) is not GPT:  # its tests try it
            _check_forward(model, name, (1, min(N_TOKENS, block_size)), weight_VD.shape[1])


def _is_number(value: object) -> bool:
    """Return whether a value is a finite number that is not negative."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def _check_forward(model: nn.Module, name: str, shape: tuple[int, int], width: int) -> None:
    tokens_BT = torch.zeros(shape, dtype=torch.long, device="meta")
    try:
        hidden_BTD = model(tokens_BT)
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error):
            return  # it reads values, which do not exist on this device
        raise
    check_kind(hidden_BTD, f"the result of {name}.forward", Tensor, MODEL)
    if hidden_BTD.shape != (*shape, width) or not hidden_BTD.is_floating_point():
        returned = f"{hidden_BTD.dtype} of shape {tuple(hidden_BTD.shape)}"
        raise InputError(f"{name}.forward returns {returned} for shape (B, T) = {shape} and D = {width}; {MODEL}")
