"""Compare nanosq with karpathy/nanoGPT: the same training, its speed and its memory.

python -m analysis.benchmarks.training --nanogpt DIR                      parity and speed
python -m analysis.benchmarks.training --nanogpt DIR --parity --shapes gpt2-small
python -m analysis.benchmarks.training --nanogpt DIR --speed --shapes wide gpt2
python -m analysis.benchmarks.training --profile --shapes wide            where the time of a step of nanosq goes

DIR is a checkout of nanoGPT, whose model, optimizer and schedule run unchanged.

Parity: both start from the same weights and see the same batches, in float32, with nanoGPT's learning rates; the table
has the losses of every step and their difference. Training is chaotic: with --warmup 5 the learning rate is high at
once, and differences of 1e-6 grow a thousandfold. --float64 shows whether a difference is more than rounding.

Speed: both projects in fp32, as nanoGPT's train.py computes on a CPU, and in bf16 if the machine is fast with it, by
autocast in nanoGPT. nanosq is compiled as in a long run; nanoGPT as its train.py does it, on a GPU only. A step is
forward, backward, clipping and optimizer. Both projects are alive at the same time, each in a process of its own, and
take turns: times are medians over the rounds. The speedup is given to nanoGPT in the same precision, and to nanoGPT in
fp32. Peak memory is what the process takes beyond what it had before the model was built. MFU is the speed as a share
of that of a large matrix product in the same precision. Its operations are counted as in PaLM, appendix B: attention
with all T x T pairs, although half are masked.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from analysis.benchmarks.lib.measure import describe_machine, median_seconds, save, show
from analysis.benchmarks.lib.memory import MIB
from analysis.benchmarks.lib.nanogpt import Checkout, weights_for_nanogpt
from analysis.benchmarks.lib.training_profile import time_shares
from analysis.benchmarks.lib.training_steps import (
    LR,
    SHAPES,
    Measured,
    MeasuredTrainer,
    Shape,
    Worker,
    batches,
    nanogpt_step,
    nanosq_step,
)
from nanosq import terminal
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


def measure(
    contenders: Iterable[MeasuredTrainer], shape: Shape, rounds: int, folder: Path
) -> dict[MeasuredTrainer, Measured]:
    """Measure contenders that take turns. Leave out those that do not fit into the memory."""
    peaks: dict[MeasuredTrainer, int] = {}
    with ExitStack() as stack:

        def timer(contender: MeasuredTrainer) -> Callable[[], float]:
            worker = stack.enter_context(Worker(contender, shape, folder))

            def step() -> float:
                seconds, peaks[contender] = worker.step()
                return seconds

            return step

        timers = {}
        for contender in contenders:
            step = timer(contender)
            try:
                for _ in range(2):  # they touch new memory, and are not timed
                    step()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                print(f"{contender}: does not fit into the memory of this machine", flush=True)
            else:
                timers[contender] = step
        times = median_seconds(timers, rounds, warmup=0)
    return {contender: Measured(time, peaks[contender]) for contender, time in times.items()}


def speed(checkout: Checkout, shape: Shape, places: Sequence[Hardware], rounds: int) -> pd.DataFrame:
    """Return speed and memory of both projects with both losses, in the precisions of `places`."""
    found: dict[MeasuredTrainer, Measured] = {}
    for loss, place in itertools.product(LOSSES, places):
        # nanosq comes first: it keeps its memory, so that nanoGPT, which needs more, is told what is left.
        pair = MeasuredTrainer("nanosq", loss, place), MeasuredTrainer("nanoGPT", loss, _as_nanogpt(place))
        for contender, cost in measure(pair, shape, rounds, checkout.folder).items():
            print(f"{contender}: {cost.seconds:.3g} s/step, {cost.peak_bytes / MIB:,.0f} MiB", flush=True)
            found[contender] = cost
    rows = []
    for contender, cost in found.items():
        missing = Measured(math.nan, 0)
        same, first = (
            found.get(MeasuredTrainer("nanoGPT", contender.loss, _as_nanogpt(place)), missing)
            for place in (contender.hardware, places[0])
        )
        memory = cost.peak_bytes / (same.peak_bytes or math.nan)
        mfu = shape.flops / cost.seconds / contender.hardware.peak_flops
        speeds = 1000 * cost.seconds, shape.tokens / cost.seconds
        speedups = same.seconds / cost.seconds, first.seconds / cost.seconds
        rows.append((str(contender), *speeds, *speedups, cost.peak_bytes / MIB, memory, mfu))
    first_column = f"to {places[0].precision}"
    columns = ["contender", "ms/step", "tokens/s", "speedup", first_column, "peak MiB", "memory ratio", "MFU"]
    return pd.DataFrame(rows, columns=columns).set_index("contender")


def _as_nanogpt(place: Hardware) -> Hardware:
    """Return the hardware with the compilation of nanoGPT's train.py."""
    return Hardware(place.device, precision=place.precision, compile=place.device.type == "cuda")


def profile(shape: Shape, hardware: Hardware) -> pd.DataFrame:
    """Return the shares of a step of squentropy, and print the time that its matrix products need at least."""
    contender = MeasuredTrainer("nanosq", "squentropy", replace(hardware, compile=False, compile_loss=False))
    peak = hardware.peak_flops
    milliseconds = 1000 * shape.matrix_flops / peak
    print(f"{contender}: at least {milliseconds:.1f} ms, 6 N tokens at {peak / 1e12:.2f} TFLOP/s of a large product")
    return pd.DataFrame({"share": pd.Series(time_shares(contender, shape))})


def parse() -> tuple[argparse.Namespace, list[Hardware], Checkout | None]:
    """Read the command line. The fastest precision is the last one."""
    parser = terminal.parser("analysis.benchmarks.training", __doc__)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--parity", action="store_true", help="compare the losses of every step")
    parser.add_argument("--speed", action="store_true", help="compare time and memory of a step")
    parser.add_argument("--profile", action="store_true", help="show where the time of a step of nanosq goes")
    shapes = ", ".join(SHAPES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["wide"], metavar="SHAPE", help=shapes)
    parser.add_argument("--steps", type=int, default=50, help="steps of parity; default: %(default)s")
    parser.add_argument("--warmup", type=int, default=WARMUP, help="of parity's schedule; default: %(default)s steps")
    parser.add_argument("--float64", action="store_true", help="parity in double precision")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of speed; default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--precision", nargs="+", choices=["fp32", "bf16", "auto"], default=["fp32", "auto"], help="of speed"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="nanosq; default: as in a long run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the CSV files")
    options = parser.parse_args()
    if not (options.parity or options.speed or options.profile):
        options.parity = options.speed = True
    try:
        compile = "auto" if options.compile is None else options.compile
        places = [
            Hardware.pick(device=options.device, precision=name, compile=compile, n_flops=math.inf, n_logits=math.inf)
            for name in options.precision
        ]
        places = [*dict.fromkeys(places)]  # auto is fp32 on some machines
        torch.compiler.reset()  # `pick` has compiled a loss of eight classes; the benchmark has another size
        if not (options.parity or options.speed):
            return options, places, None
        if options.nanogpt is None:
            raise ValueError("--nanogpt DIR is needed, a checkout of karpathy/nanoGPT")
        return options, places, Checkout(options.nanogpt)
    except ValueError as error:
        parser.error(str(error))


def main() -> None:
    """Print tables for each shape and write them to CSV files."""
    options, places, checkout = parse()
    hardware = places[-1]
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
            table = speed(checkout, shape, places, options.rounds)
            first = f"to {places[0].precision}"
            formats = {"ms/step": ".1f", "tokens/s": ",.0f", "speedup": ".2f", first: ".2f", "peak MiB": ",.0f"}
            show(table, {**formats, "memory ratio": ".2f", "MFU": ".1%"})
            print(
                "speedup, memory ratio: to nanoGPT in the same precision with the same loss; for squentropy, with "
                f"Listing A.2 of the student report\n{first}: speedup to nanoGPT in {places[0].precision}\n"
            )
            save(table, options.out / f"training_{name}.csv")
        if options.profile:
            table = profile(shape, hardware)
            show(table, {"share": ".1%"})
            save(table, options.out / f"training_profile_{name}.csv")


if __name__ == "__main__":
    main()
