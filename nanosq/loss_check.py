"""A check that a loss keeps its contract: the loss of a token comes from its own row of the logits and nothing else.

The head computes a loss in chunks of tokens. Without this check, a loss in which tokens depend on each other would have
another value for every size of a chunk.
"""

import torch
from torch import Tensor

from nanosq.component_errors import calling
from nanosq.errors import InputError, is_out_of_memory
from nanosq.losses import Loss, fused_form, softmax_terms

CONTRACT = "a loss maps (logits_NV, targets_N) to losses_N, each from its own row, for any N and V"
N, V = 4, 256  # large enough for a loss of the 100 largest logits
TOLERANCE = 1e-5  # relative; losses compute in float32


def check_loss(loss: Loss, name: str) -> None:
    """Try a loss on random logits, before anything else is done.

    The losses and gradients of several tokens must be those of each token alone. The losses of many tokens, with every
    class as a target several times, must be those of their parts: a wrong loss could count the targets. The loss must
    not change its arguments, which evaluation uses again. It must not be random: its value would depend on the size of
    a chunk, and evaluation is deterministic.

    Args:
        loss: The loss.
        name: Its name, for messages.

    Raises:
        ValueError: The loss breaks the contract, or fails. The message says how, on one line.
    """
    generator = torch.Generator().manual_seed(0)
    logits_NV = 3.0 * torch.randn(N, V, generator=generator)
    logits_NV[0] *= 10.0  # as of a model that is certain
    targets_N = torch.randint(V, (N,), generator=generator)

    with torch.no_grad():
        first_N = _call(loss, name, logits_NV.clone(), targets_N)
    losses_N, gradients_NNV = _differentiate(loss, name, logits_NV, targets_N)
    if not _close(first_N, losses_N):
        raise InputError(f"{name} is random or keeps a state: a second call gives other losses; {CONTRACT}")
    rows = zip(logits_NV.split(1), targets_N.split(1), strict=True)
    alone_N, alone_N1V = map(torch.cat, zip(*(_differentiate(loss, name, *row) for row in rows), strict=True))
    alone_NNV = torch.block_diag(*alone_N1V.squeeze(1)).view(N, N, V)
    for what, together, alone in (("loss", losses_N, alone_N), ("gradient", gradients_NNV, alone_NNV)):
        if not _close(together, alone):
            if together.isnan().any():
                raise InputError(f"{name} is undefined for large logits: use log_softmax or logsumexp, not exp and log")
            raise InputError(f"{name} is not per token: the {what} of a token depends on the others; {CONTRACT}")

    many_NV, classes_N = torch.randn(2 * V, V, generator=generator), torch.arange(V).repeat(2)
    with torch.no_grad():
        together_N = _call(loss, name, many_NV, classes_N)
        parts = zip(many_NV.chunk(4), classes_N.chunk(4), strict=True)  # each has half of the classes once
        in_parts_N = torch.cat([_call(loss, name, *part) for part in parts])
    if not _close(together_N, in_parts_N):
        raise InputError(f"{name} is not per token: the loss of a token depends on the others' targets; {CONTRACT}")

    if (fused := fused_form(loss)) is not None:
        fused_NV = logits_NV.clone()
        with calling(name, CONTRACT):
            fused_N = fused(fused_NV, targets_N, [slice(N)], factor=torch.ones(()), softmax=softmax_terms)
        if not (
            isinstance(fused_N, Tensor) and _close(fused_N, losses_N) and _close(fused_NV, gradients_NNV.sum(dim=0))
        ):
            raise InputError(f"{name} has an attribute 'fused' that computes another loss: delete the attribute")


def _differentiate(loss: Loss, name: str, logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses, and the gradient of each of them with respect to all logits."""
    leaf_NV = logits_NV.clone().requires_grad_()
    losses_N = _call(loss, name, leaf_NV, targets_N)
    gradients: list[Tensor] = []
    if losses_N.requires_grad:
        with calling(name, CONTRACT):
            pairs = [torch.autograd.grad(loss_1, leaf_NV, retain_graph=True, allow_unused=True) for loss_1 in losses_N]
            gradients = [gradient for (gradient,) in pairs if gradient is not None]
    if len(gradients) < len(losses_N):
        raise InputError(f"{name} is not differentiable: its losses have no gradient with respect to the logits")
    return losses_N.detach(), torch.stack(gradients)


def _call(loss: Loss, name: str, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Return the losses, after a check of what a single call can show."""
    before_NV, before_N = logits_NV.detach().clone(), targets_N.clone()
    try:
        with calling(name, CONTRACT):
            losses_N = loss(logits_NV, targets_N)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{name} needs too much memory: {len(targets_N)} tokens of {V} classes do not fit") from error
    if not isinstance(losses_N, Tensor):
        raise InputError(f"{name} returns {type(losses_N).__name__}, not a tensor; {CONTRACT}")
    if losses_N.shape != targets_N.shape:
        shapes = f"shape {tuple(losses_N.shape)} for targets of shape {tuple(targets_N.shape)}"
        raise InputError(f"{name} returns {shapes}, not one loss for each token; {CONTRACT}")
    if losses_N.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{name} returns {losses_N.dtype}, not torch.float32 as the logits; {CONTRACT}")
    if losses_N.device != logits_NV.device or losses_N.layout != torch.strided:
        kind = f"{losses_N.layout} on {losses_N.device}"
        raise InputError(f"{name} returns a tensor of {kind}, not a dense one on the device of the logits; {CONTRACT}")
    if not (torch.equal(logits_NV, before_NV) and torch.equal(targets_N, before_N)):
        raise InputError(f"{name} changes its arguments in place: make it compute new tensors")
    return losses_N


def _close(actual: Tensor, expected: Tensor) -> bool:
    """Return whether two results are equal up to rounding. Infinite and undefined values must be in the same places."""
    largest = expected.nan_to_num(0.0, 0.0, 0.0).abs().max().item()
    return torch.allclose(actual, expected, rtol=TOLERANCE, atol=TOLERANCE / 10 * largest, equal_nan=True)
