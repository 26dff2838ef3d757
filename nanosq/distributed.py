"""Several processes that train one model, as torchrun starts them; a single process is the case of one."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, has started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the other processes, where there are any."""
    if not launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    yield
    dist.destroy_process_group()  # not after a failure: there it could wait for ever for those that go on


def rank() -> int:
    """The number of this process, from 0; the first alone speaks, records and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def data_parallel(module: nn.Module) -> nn.Module:
    """The module itself, or with its gradients averaged over all processes after every backward pass."""
    return DistributedDataParallel(module) if world_size() > 1 else module


def gradient_sync(module: nn.Module, *, enabled: bool) -> AbstractContextManager[None]:
    """Average the gradients of the backward pass inside the block, or leave that to a later micro-batch."""
    if enabled or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def share(accumulate: int, batch_size: int) -> tuple[slice, slice]:
    """Which micro-batches of a step, and which rows of each, are this process's.

    All processes together take the same windows as one alone would. ValueError where they cannot take equally many.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    at = int(os.environ.get("RANK", "0"))
    if accumulate % n == 0:
        return slice(at, accumulate, n), slice(None)
    if batch_size % n == 0:
        return slice(0, accumulate), slice(at, None, n)
    raise ValueError(
        f"{n} processes cannot share a step equally: make train.accumulate={accumulate} "
        f"or train.batch_size={batch_size} a multiple of {n}"
    )
