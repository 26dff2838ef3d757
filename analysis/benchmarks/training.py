"""Compare nanosq with karpathy/nanoGPT: the same training, its speed and its memory.

python -m analysis.benchmarks.training --nanogpt DIR                      parity and speed
python -m analysis.benchmarks.training --nanogpt DIR --parity --shapes gpt2-small
python -m analysis.benchmarks.training --nanogpt DIR --speed --shapes wide gpt2
python -m analysis.benchmarks.training --profile --shapes wide            where the time of a step of nanosq goes

DIR is a checkout of nanoGPT, whose model, optimizer and schedule run unchanged.

Parity: both start from the same weights and see the same batches, in float32, with nanoGPT's learning rates; the table
has the losses of every step and their difference. Training is chaotic: with --warmup 5 the learning rate is high at
once, and differences of 1e-6 grow a thousandfold. --float64 shows whether a difference is more than rounding.

Speed: nanosq in the precision that it chooses for the machine, compiled as in a long run, and nanoGPT as its train.py
runs there: float32 on a CPU, bf16 and compiled on a GPU. A step is forward, backward, clipping and optimizer. Times are
medians over rounds in which each contender takes one step in a process of its own. Peak memory is what the process
takes beyond what it had before the model was built. MFU is the speed as a share of that of a large matrix product in
the same precision. Its operations are counted as in PaLM, appendix B: attention with all T x T pairs, although half are
masked. If all processes together do not fit into the memory, one loss is measured after the other.
"""

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, save, show
from analysis.benchmarks.lib.memory import MIB, available_memory
from analysis.benchmarks.lib.nanogpt import Checkout, weights_for_nanogpt
from analysis.benchmarks.lib.training_profile import time_shares
from analysis.benchmarks.lib.training_steps import (
    LR,
    SHAPES,
    MeasuredTrainer,
    Shape,
    Worker,
    batches,
    nanogpt_step,
    nanosq_step,
)
from nanosq.errors import is_out_of_memory
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.optim import cosine, cosine_from_zero

LOSSES = ("cross_entropy", "squentropy")
MIN_LR_FACTOR, WARMUP, MAX_STEPS = 0.1, 2000, 600_000  # nanoGPT's defaults


def parity(
    checkout: Checkout, shape: Shape, steps: int, device: torch.device, *, warmup: int, dtype: torch.dtype
) -> pd.DataFrame:
    """Return the losses of both projects at each step, from the same weights and on the same batches."""
    schedule = checkout.schedule(lr=LR, warmup=warmup, max_steps=MAX_STEPS, min_lr=MIN_LR_FACTOR * LR)
    cosine_schedule = cosine if schedule(0) else cosine_from_zero  # nanoGPT before December 2024
    factors = partial(cosine_schedule, max_steps=MAX_STEPS, warmup=warmup, min_lr_factor=MIN_LR_FACTOR)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(0)
        model, nanogpt_model = GPT(**shape.sizes).to(device), checkout.model(**shape.sizes).to(device)
        nanogpt_model.load_state_dict(weights_for_nanogpt(model))
        hardware = Hardware.pick(device=str(device), precision="fp32", compile=False)
        theirs = nanogpt_step(nanogpt_model, MeasuredTrainer("nanoGPT", "cross_entropy", hardware), schedule=schedule)
        ours = nanosq_step(model, MeasuredTrainer("nanosq", "cross_entropy", hardware), schedule=factors)
        losses = [
            (float(theirs(*batch)), float(ours(*batch)))
            for batch in tqdm(batches(shape, steps, device=device), desc="parity", disable=not sys.stderr.isatty())
        ]
    finally:
        torch.set_default_dtype(default)
    table = pd.DataFrame(losses, columns=["nanoGPT", "nanosq"]).rename_axis("step")
    return table.assign(difference=table["nanosq"] - table["nanoGPT"])


def peak_memory(contenders: list[MeasuredTrainer], shape: Shape, folder: Path) -> dict[MeasuredTrainer, int]:
    """Return the peak memory in bytes of two steps for each contender that fits into the memory."""
    peaks = {}
    for contender in tqdm(contenders, desc="memory", disable=not sys.stderr.isatty()):
        try:
            with Worker(contender, shape, folder) as worker:
                peaks[contender] = [worker.step() for _ in range(2)][-1].peak_bytes
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f"{contender}: does not fit into the memory of this machine")
    return peaks


def step_times(
    peaks: dict[MeasuredTrainer, int], shape: Shape, rounds: int, folder: Path
) -> dict[MeasuredTrainer, float]:
    """Return the median seconds of a step; two steps of each contender come first, because they touch new memory."""
    groups = [list(peaks)]
    if sum(peaks.values()) > available_memory(next(iter(peaks)).hardware.device):
        groups = [[contender for contender in peaks if contender.loss == loss] for loss in LOSSES]

    def timer(worker: Worker) -> Callable[[], float]:
        return lambda: worker.step().seconds

    times: dict[MeasuredTrainer, float] = {}
    for group in groups:
        with ExitStack() as stack:
            workers = {name: stack.enter_context(Worker(name, shape, folder)) for name in group}
            times |= median_seconds({name: timer(worker) for name, worker in workers.items()}, rounds, warmup=2)
    return times


def speed(checkout: Checkout, shape: Shape, hardware: Hardware, rounds: int) -> pd.DataFrame:
    """Return speed and memory of both projects with both losses."""
    on_gpu = hardware.device.type == "cuda"
    as_nanogpt = Hardware(hardware.device, precision="bf16" if on_gpu else "fp32", compile=on_gpu)
    projects = (("nanoGPT", as_nanogpt), ("nanosq", hardware))
    contenders = [MeasuredTrainer(project, loss, place) for loss in LOSSES for project, place in projects]
    peaks = peak_memory(contenders, shape, checkout.folder)
    times = step_times(peaks, shape, rounds, checkout.folder) if peaks else {}
    rows = []
    for contender, time in times.items():
        rival = MeasuredTrainer("nanoGPT", contender.loss, as_nanogpt)
        speedup = times.get(rival, math.nan) / time
        memory = peaks[contender] / peaks.get(rival, math.nan)
        mfu = shape.flops / time / contender.hardware.peak_flops
        rows.append((str(contender), 1000 * time, shape.tokens / time, speedup, peaks[contender] / MIB, memory, mfu))
    columns = ["contender", "ms/step", "tokens/s", "speedup", "peak MiB", "memory ratio", "MFU"]
    return pd.DataFrame(rows, columns=columns).set_index("contender")


def profile(shape: Shape, hardware: Hardware) -> pd.DataFrame:
    """Return the shares of a step of squentropy, and print the time that its matrix products need at least."""
    contender = MeasuredTrainer("nanosq", "squentropy", replace(hardware, compile=False, compile_loss=False))
    peak = hardware.peak_flops
    milliseconds = 1000 * shape.matrix_flops / peak
    print(f"{contender}: at least {milliseconds:.1f} ms, 6 N tokens at {peak / 1e12:.2f} TFLOP/s of a large product")
    return pd.DataFrame({"share": pd.Series(time_shares(contender, shape))})


def parse() -> tuple[argparse.Namespace, Hardware, Checkout | None]:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--parity", action="store_true", help="compare the losses of every step")
    parser.add_argument("--speed", action="store_true", help="compare time and memory of a step")
    parser.add_argument("--profile", action="store_true", help="show where the time of a step of nanosq goes")
    shapes = ", ".join(SHAPES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["wide"], metavar="SHAPE", help=shapes)
    parser.add_argument("--steps", type=int, default=50, help="steps of parity; default: %(default)s")
    parser.add_argument("--warmup", type=int, default=WARMUP, help="of parity's schedule; default: %(default)s steps")
    parser.add_argument("--float64", action="store_true", help="parity in double precision")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of speed; default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="of nanosq")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="nanosq; default: as in a long run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the CSV files")
    options = parser.parse_args()
    if not (options.parity or options.speed or options.profile):
        options.parity = options.speed = True
    try:
        compile = "auto" if options.compile is None else options.compile
        hardware = Hardware.pick(
            device=options.device, precision=options.precision, compile=compile, n_flops=math.inf, n_logits=math.inf
        )
        torch.compiler.reset()  # `pick` has compiled a loss of eight classes; the benchmark has another size
        if not (options.parity or options.speed):
            return options, hardware, None
        if options.nanogpt is None:
            raise ValueError("--nanogpt DIR is needed, a checkout of karpathy/nanoGPT")
        return options, hardware, Checkout(options.nanogpt)
    except ValueError as error:
        parser.error(str(error))


def main() -> None:
    """Print tables for each shape and write them to CSV files."""
    options, hardware, checkout = parse()
    for name in options.shapes:
        shape = SHAPES[name]
        print(f"{name}: {shape}, {hardware}, {describe_machine(hardware)}")
        if checkout and options.parity:
            dtype = torch.float64 if options.float64 else torch.float32
            table = parity(checkout, shape, options.steps, hardware.device, warmup=options.warmup, dtype=dtype)
            show(table.iloc[:: max(1, options.steps // 50)], {"difference": "+.1e"})
            print(f"largest difference in {options.steps} steps: {table['difference'].abs().max():.1e}\n")
            save(table, options.out / f"training_parity_{name}.csv")
        if checkout and options.speed:
            table = speed(checkout, shape, hardware, options.rounds)
            formats = {"ms/step": ".1f", "tokens/s": ",.0f", "speedup": ".2f", "peak MiB": ",.0f"}
            show(table, {**formats, "memory ratio": ".2f", "MFU": ".1%"})
            print(
                "speedup, memory ratio: to nanoGPT with the same loss; for squentropy, to Listing A.2 of the report\n"
            )
            save(table, options.out / f"training_{name}.csv")
        if options.profile:
            table = profile(shape, hardware)
            show(table, {"share": ".1%"})
            save(table, options.out / f"training_profile_{name}.csv")


if __name__ == "__main__":
    main()
