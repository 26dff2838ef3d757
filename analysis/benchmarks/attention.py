"""Compare causal attention in bfloat16 on a CPU: PyTorch's kernels, and nanosq's blocks of queries.

The table has the times of a forward and backward pass, their ratios to PyTorch's flash attention, and the errors of the
result relative to float64.

python -m analysis.benchmarks.attention
python -m analysis.benchmarks.attention --rounds 30
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from unittest import mock

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.benchmarks.lib.measure import median_seconds, seconds, show
from nanosq import attention, command, option, terminal
from nanosq.hardware import keep_freed_memory

# Batch, heads, time and head width of a small model, experiment=ten_minutes, two lengths between, and model=gpt2.
SHAPES = [(4, 4, 256, 32), (8, 4, 256, 64), (4, 4, 512, 64), (4, 4, 768, 64), (4, 12, 1024, 64)]
BLOCK_SIZES = [32, 64, 128, 256, 512]

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def pytorch(backend: SDPBackend, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
    """Use a kernel of PyTorch."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)


def blocks(n_queries: int, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
    """Use nanosq's blocks, of this size, for every length of the window."""
    longest = query_BHTK.shape[2] + 1
    with mock.patch.multiple(attention, QUERIES=n_queries, FLASH_FROM=longest, RECOMPUTE_FROM=longest):
        return attention.causal_attention(query_BHTK, key_BHTK, value_BHTK)


def compare(B: int, H: int, T: int, K: int, rounds: int) -> pd.DataFrame:
    """Return a row for each implementation at one shape; the inputs are laid out as in a transformer block."""
    heads_BT3HK = torch.randn(B, T, 3, H, K).bfloat16().requires_grad_()
    grad_BHTK = torch.randn(B, H, T, K).bfloat16()
    implementations: dict[str, Attention] = {
        "PyTorch, flash": partial(pytorch, SDPBackend.FLASH_ATTENTION),
        "PyTorch, math": partial(pytorch, SDPBackend.MATH),
        **{f"blocks of {n_queries}": partial(blocks, n_queries) for n_queries in BLOCK_SIZES if n_queries <= T},
    }

    def run(attend: Attention) -> None:
        attend(*heads_BT3HK.permute(2, 0, 3, 1, 4)).backward(grad_BHTK)
        heads_BT3HK.grad = None

    cases = {name: partial(seconds, partial(run, attend)) for name, attend in implementations.items()}
    table = pd.DataFrame({"ms": pd.Series(median_seconds(cases, rounds)) * 1000})
    table["ratio"] = table["ms"] / table["ms"]["PyTorch, flash"]
    qkv_3BHTK = heads_BT3HK.detach().permute(2, 0, 3, 1, 4)
    exact_BHTK = pytorch(SDPBackend.MATH, *qkv_3BHTK.double())
    errors = {name: attend(*qkv_3BHTK).double() - exact_BHTK for name, attend in implementations.items()}
    table["error"] = pd.Series({name: float(error.norm() / exact_BHTK.norm()) for name, error in errors.items()})
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.attention", __doc__)
    parser.add_argument(
        "--rounds", type=option.integer(1), default=10, help="passes of each implementation; default: %(default)s"
    )
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print a table for each shape."""
    keep_freed_memory()
    for B, H, T, K in SHAPES:
        print(f"batch {B}, {H} heads of {K}, {T} tokens; {torch.get_num_threads()} threads, torch {torch.__version__}")
        show(compare(B, H, T, K, options.rounds), {"ms": ".2f", "ratio": ".2f", "error": ".0e"})


if __name__ == "__main__":
    sys.exit(main())
