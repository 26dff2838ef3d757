"""Compare the speed at which nanosq, Hugging Face's transformers and karpathy/nanoGPT write text.

python -m analysis.benchmarks.generation --nanogpt DIR     DIR is a checkout of nanoGPT; without it, two contenders
python -m analysis.benchmarks.generation --tokens 16 --rounds 1                       a short trial

All have the same random weights, those of a GPT-2 of 124M parameters, and begin with one token. They sample as
nanoGPT's sample.py does by default: temperature 0.8, the 200 most likely tokens. transformers uses its generate() with
a cache of keys and values. nanoGPT has no cache. It writes one text at a time in fp32, as its sample.py does on a CPU.

The contenders take turns, and times are medians over the rounds. A time is divided by the number of new tokens of a
text. The last column is the time of a contender divided by that of nanosq for the same batch and precision.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, save, seconds, show
from analysis.benchmarks.lib.nanogpt import Checkout, weights_for_nanogpt
from nanosq import command, option, terminal, threads
from nanosq.data import tokenizers
from nanosq.generation import new_ids, prepare
from nanosq.hardware import Hardware
from nanosq.huggingface.weights import export_weights
from nanosq.model import GPT
from nanosq.settings import SampleSettings

TOKENIZER = tokenizers.gpt2()
SIZES: dict[str, Any] = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024}
TEMPERATURE, TOP_K = 0.8, 200  # defaults of nanoGPT's sample.py
FORMATS = {"ms/token": ".1f", "tokens/s": ",.1f", "times nanosq": ".2f"}

Write = Callable[[], object]  # writes texts once


class MeasuredWriter(NamedTuple):
    """A project that writes a number of texts at once in a precision."""

    batch: int
    precision: str
    project: str


def transformers_model(model: GPT) -> Any:
    """Return a GPT2LMHeadModel with the sizes and weights of a model that has biases and the exact GELU."""
    from transformers import GPT2Config, GPT2LMHeadModel

    first: Any = model.blocks[0]
    vocab_size, n_embd = model.head_weight.shape
    sizes = {"n_layer": len(model.blocks), "n_head": first.attention.n_head, "n_embd": n_embd}
    ends = {"bos_token_id": None, "eos_token_id": None}  # those of GPT-2 need not be in the vocabulary
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=model.block_size, **sizes, activation_function="gelu", **ends
    )
    result = GPT2LMHeadModel(config).eval()
    result.load_state_dict({**export_weights(model.state_dict()), "lm_head.weight": model.head_weight})
    return result


def writers(
    model: GPT, tokens: int, batches: list[int], precisions: list[str], device: str, checkout: Checkout | None
) -> dict[MeasuredWriter, Write]:
    """Return what each contender does in a round."""
    start_11 = torch.tensor([[TOKENIZER.end_of_text]], device=device)
    sampling = {"temperature": TEMPERATURE, "top_k": TOP_K, "max_new_tokens": tokens}
    theirs = transformers_model(model)
    cases: dict[MeasuredWriter, Write] = {}
    for precision in precisions:
        hardware = Hardware.pick(device=device, precision=precision, compile=False)
        own = prepare(copy.deepcopy(model), hardware)
        peer = copy.deepcopy(theirs).to(hardware.device, hardware.matmul_dtype)
        for batch in batches:
            settings = SampleSettings(batch, tokens, TEMPERATURE, "", TOP_K, None)
            cases[MeasuredWriter(batch, precision, "nanosq")] = partial(_drain, own, settings)
            start_B1 = start_11.repeat(batch, 1)
            cases[MeasuredWriter(batch, precision, "transformers")] = partial(
                peer.generate,
                start_B1,
                attention_mask=torch.ones_like(start_B1),
                **{**sampling, "do_sample": True, "eos_token_id": None, "pad_token_id": TOKENIZER.end_of_text},
            )
    if checkout is not None:
        nanogpt = checkout.model(vocab_size=TOKENIZER.vocab_size, **SIZES, bias=True, dropout=0.0).to(device).eval()
        nanogpt.load_state_dict(weights_for_nanogpt(model))
        cases[MeasuredWriter(1, "fp32", "nanoGPT")] = partial(nanogpt.generate, start_11, **sampling)
    return cases


def _drain(model: Any, settings: SampleSettings) -> None:
    n_tokens = sum(1 for _ in new_ids(model, TOKENIZER, settings))
    assert n_tokens == settings.length, "a text has ended before it was long enough"


def comparison(times: dict[MeasuredWriter, float], tokens: int) -> pd.DataFrame:
    """Return a row for each contender from its seconds for `tokens` tokens of each text."""
    rows = [
        (*case, 1000 * time / tokens, case.batch * tokens / time, time / times[case._replace(project="nanosq")])
        for case, time in sorted(times.items())
    ]
    return pd.DataFrame(rows, columns=[*MeasuredWriter._fields, *FORMATS]).set_index([*MeasuredWriter._fields])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.generation", __doc__)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument(
        "--tokens", type=option.integer(1), default=256, help="new tokens of a text; default: %(default)s"
    )
    parser.add_argument("--rounds", type=option.integer(1), default=3, help="default: %(default)s")
    parser.add_argument(
        "--batches", type=option.integer(1), nargs="+", default=[1, 8], help="texts at once; default: 1 8"
    )
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], metavar="NAME")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV file")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print a table and write it to a CSV file."""
    if options.nanogpt and not (1 in options.batches and "fp32" in options.precisions):
        raise ValueError("nanoGPT is compared with a batch of 1 in fp32")
    threads.use(None)
    checkout = Checkout(options.nanogpt) if options.nanogpt else None
    torch.manual_seed(0)
    model = GPT(TOKENIZER.vocab_size, **SIZES, bias=True)
    cases = writers(model, options.tokens, options.batches, options.precisions, options.device, checkout)
    hardware = Hardware.pick(device=options.device, precision="fp32", compile=False)
    print(f"{options.tokens} new tokens, {describe_machine(hardware)}\n", flush=True)
    times = median_seconds({case: partial(seconds, write) for case, write in cases.items()}, options.rounds)
    table = comparison(times, options.tokens)
    show(table, FORMATS)
    save(table, options.out / "generation.csv")


if __name__ == "__main__":
    sys.exit(main())
