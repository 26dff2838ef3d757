"""Causal attention in bfloat16 on a CPU: PyTorch's kernels, and blocks of queries as in nanosq/model.py.

python -m analysis.benchmarks.attention

Times of a forward and backward pass, medians over rounds in which each way runs once; errors of the result are
relative to float64.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from nanosq import model
from nanosq.hardware import keep_freed_memory

# Batch, heads, time, width of a head: of model=tiny, of experiment=ten_minutes, of model=gpt2.
SHAPES = [(4, 4, 256, 32), (8, 4, 256, 64), (4, 12, 1024, 64)]
QUERIES = [32, 64, 128, 256, 512]

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def pytorch(backend: SDPBackend, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)


def blocks(queries: int, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
    model.QUERIES = queries
    return model.causal_attention(query_BHTK, key_BHTK, value_BHTK)


def seconds(attention: Attention, heads_BT3HK: Tensor, grad_BHTK: Tensor) -> float:
    """Of a pass, from the projected heads as a transformer block has them and back to them."""
    begin = time.perf_counter()
    attention(*heads_BT3HK.permute(2, 0, 3, 1, 4)).backward(grad_BHTK)
    heads_BT3HK.grad = None
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    for B, H, T, K in SHAPES:
        heads_BT3HK = torch.randn(B, T, 3, H, K).bfloat16().requires_grad_()
        grad_BHTK = torch.randn(B, H, T, K).bfloat16()
        ways: dict[str, Attention] = {
            "PyTorch, flash": partial(pytorch, SDPBackend.FLASH_ATTENTION),
            "PyTorch, math": partial(pytorch, SDPBackend.MATH),
        }
        ways |= {f"blocks of {queries}": partial(blocks, queries) for queries in QUERIES if queries <= T}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, way in ways.items():
                times[name].append(seconds(way, heads_BT3HK, grad_BHTK))
        exact = pytorch(SDPBackend.MATH, *heads_BT3HK.detach().double().permute(2, 0, 3, 1, 4))
        print(f"batch {B}, {H} heads of {K}, {T} tokens; {torch.get_num_threads()} threads, torch {torch.__version__}")
        flash = statistics.median(times["PyTorch, flash"][1:])
        for name, way in ways.items():
            median = statistics.median(times[name][1:])
            error = way(*heads_BT3HK.detach().permute(2, 0, 3, 1, 4)).double() - exact
            print(f"{name:15} {median * 1000:8.2f} ms {median / flash:6.2f}   error {error.norm() / exact.norm():.0e}")
        print()


if __name__ == "__main__":
    main()
