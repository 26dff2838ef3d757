"""Functions for several processes, started by torchrun, that train one model. They work for a single process too."""

import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def launched() -> bool:
    """Return whether torchrun, or a program that sets the same variables, has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Connect to the other processes, if there are any."""
    if not launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    yield
    # Reference cycles of DistributedDataParallel hold the connections. Until Python exits they would keep threads,
    # which at times abort the process then.
    gc.collect()
    dist.destroy_process_group()  # not after a failure, where it could wait forever for the other processes


def rank() -> int:
    """Return the number of this process, from 0. Only the first one prints, records and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def data_parallel(module: nn.Module) -> nn.Module:
    """Average the gradients of a module over all processes after every backward pass."""
    return DistributedDataParallel(module) if world_size() > 1 else module


def gradient_sync(module: nn.Module, *, enabled: bool) -> AbstractContextManager[None]:
    """Average the gradients of the backward pass inside the block, or leave that to a later micro-batch."""
    if enabled or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def broadcast(module: nn.Module) -> None:
    """Copy the weights of a module from the first process to all others."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        dist.barrier()


def share_of_step(accumulate: int, batch_size: int) -> tuple[slice, slice]:
    """Return the micro-batches of a step that this process computes, and its rows of each.

    All processes together compute the same windows as a single process.

    Raises:
        ValueError: The step cannot be divided equally.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    number = int(os.environ.get("RANK", "0"))
    if accumulate % n == 0:
        return slice(number, accumulate, n), slice(None)
    if batch_size % n == 0:
        return slice(0, accumulate), slice(number, None, n)
    raise ValueError(
        f"{n} processes cannot divide a step equally: make train.accumulate={accumulate} "
        f"or train.batch_size={batch_size} a multiple of {n}"
    )
