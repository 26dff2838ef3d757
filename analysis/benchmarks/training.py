"""nanosq beside karpathy/nanoGPT: the same training, its speed, its memory.

python -m analysis.benchmarks.training --nanogpt DIR                      both of what follows
python -m analysis.benchmarks.training --nanogpt DIR --parity --shapes gpt2-small
python -m analysis.benchmarks.training --nanogpt DIR --speed --shapes wide gpt2
python -m analysis.benchmarks.training --profile --shapes wide            where the time of a step of nanosq goes

DIR is a checkout of nanoGPT, whose model, optimizer and schedule run as they are.

Parity: both start from the same weights and see the same batches, in float32, with nanoGPT's learning rates; the losses
of every step, and by how much they differ. Training is chaotic: with --warmup 5 the learning rate is at its full height
at once, and differences of 1e-6 in float32 grow a thousandfold. --float64 tells rounding from another computation.

Speed: nanosq in the precision that it picks for the machine, compiled as in a long run, and nanoGPT as its train.py
runs there: float32 on a CPU, bf16 and compiled on a GPU. A step is forward, backward, clipping and optimizer. Times are
medians over rounds in which each contender takes one step in a process of its own, so that a busy moment of the machine
hits all alike. Peak memory is what the process takes beyond what it had before the model was built. MFU is the part of
the speed of a large matrix product, in the contender's precision, that the operations of the model come to, counted as
in PaLM, appendix B: all of T x T for attention, though half is never seen. Where all contenders at once do not fit into
the memory, each is started anew in each round.
"""

import argparse
import math
import statistics
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from analysis.benchmarks.lib.memory import MIB, available_memory, place, write
from analysis.benchmarks.lib.nanogpt import Checkout, weights_for_nanogpt
from analysis.benchmarks.lib.training_profile import shares
from analysis.benchmarks.lib.training_steps import LR, SHAPES, Contender, Shape, batches, nanogpt_step, nanosq_step
from analysis.benchmarks.lib.training_workers import Measured, Worker
from nanosq.hardware import Hardware
from nanosq.model import GPT
from nanosq.optim import cosine, cosine_from_zero

LOSSES = ("cross_entropy", "squentropy")
MIN_LR_FACTOR, WARMUP, MAX_STEPS = 0.1, 2000, 600_000  # nanoGPT's own


def both_losses(
    checkout: Checkout, shape: Shape, steps: int, device: torch.device, *, warmup: int, dtype: torch.dtype
) -> list[tuple[float, float]]:
    """The losses of nanoGPT and of nanosq at each step, from the same weights, on the same batches."""
    theirs = checkout.schedule(lr=LR, warmup=warmup, max_steps=MAX_STEPS, min_lr=MIN_LR_FACTOR * LR)
    shape_of_ours = cosine if theirs(0) else cosine_from_zero  # nanoGPT before December 2024
    ours = partial(shape_of_ours, max_steps=MAX_STEPS, warmup=warmup, min_lr_factor=MIN_LR_FACTOR)

    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    model = GPT(**shape.sizes).to(device)
    its_model = checkout.model(**shape.sizes).to(device)
    its_model.load_state_dict(weights_for_nanogpt(model))
    hardware = Hardware.pick(device=str(device), precision="fp32", compile=False)
    its_step = nanogpt_step(its_model, Contender("nanoGPT", "cross_entropy", hardware), schedule=theirs)
    our_step = nanosq_step(model, Contender("nanosq", "cross_entropy", hardware), schedule=ours)
    return [
        (float(its_step(*batch)), float(our_step(*batch)))
        for batch in tqdm(batches(shape, steps, device=device), desc="parity", disable=not sys.stderr.isatty())
    ]


def parity(
    checkout: Checkout,
    name: str,
    steps: int,
    device: torch.device,
    *,
    warmup: int,
    dtype: torch.dtype,
    verbose: bool,
    out: Path,
) -> None:
    losses = both_losses(checkout, SHAPES[name], steps, device, warmup=warmup, dtype=dtype)
    torch.set_default_dtype(torch.float32)
    rows = [(step, its, ours, ours - its) for step, (its, ours) in enumerate(losses)]
    if verbose or steps <= 50:
        print(f"{'step':>5} {'nanoGPT':>10} {'nanosq':>10} {'difference':>11}")
        for step, its, ours, difference in rows:
            print(f"{step:5} {its:10.6f} {ours:10.6f} {difference:+11.1e}")
    print(f"largest difference in {steps} steps {max(abs(row[3]) for row in rows):.1e}\n")
    write(out / f"training_parity_{name}.csv", ["step", "nanogpt_loss", "nanosq_loss", "difference"], rows)


def peaks(contenders: list[Contender], shape: Shape, folder: Path) -> dict[Contender, int]:
    """Peak memory in bytes of two steps, one process after another, of those whom the machine can hold."""
    found = {}
    for contender in tqdm(contenders, desc="memory", disable=not sys.stderr.isatty()):
        with Worker(contender, shape, folder) as worker:
            try:
                found[contender] = [worker.step() for _ in range(2)][-1].peak_bytes
            except MemoryError:
                print(f"{contender}: does not fit into the memory of this machine")
    return found


def times(peak_bytes: dict[Contender, int], shape: Shape, rounds: int, folder: Path) -> dict[Contender, list[Measured]]:
    """Steps of the contenders in turn, after two of each that are not counted, in which memory is first touched."""
    together = [list(peak_bytes)]
    if sum(peak_bytes.values()) > available_memory(next(iter(peak_bytes)).hardware.device):
        print("all at once do not fit into the memory: those of one loss take turns, then those of the other")
        together = [[each for each in peak_bytes if each.loss == loss] for loss in LOSSES]
    measured: dict[Contender, list[Measured]] = {contender: [] for contender in peak_bytes}
    bar = tqdm(total=rounds * len(together), desc="timing", unit="round", disable=not sys.stderr.isatty())
    for contenders in together:
        with ExitStack() as stack:
            workers = {each: stack.enter_context(Worker(each, shape, folder)) for each in contenders}
            for worker in [*workers.values()] * 2:
                worker.step()
            for _ in range(rounds):
                for contender, worker in workers.items():
                    measured[contender].append(worker.step())
                bar.update()
    bar.close()
    return measured


def speed(checkout: Checkout, name: str, hardware: Hardware, rounds: int, *, out: Path) -> None:
    shape = SHAPES[name]
    on_gpu = hardware.device.type == "cuda"
    as_nanogpt = Hardware(hardware.device, precision="bf16" if on_gpu else "fp32", compile=on_gpu)
    contenders = [
        Contender(project, loss, its)
        for loss in LOSSES
        for project, its in (("nanoGPT", as_nanogpt), ("nanosq", hardware))
    ]
    peak_bytes = peaks(contenders, shape, checkout.folder)
    if not peak_bytes:
        return
    measured = times(peak_bytes, shape, rounds, checkout.folder)
    seconds = {each: statistics.median(step.seconds for step in steps) for each, steps in measured.items()}

    width = max(len(str(contender)) for contender in contenders)
    print(f"{'':{width}} {'ms/step':>8} {'tokens/s':>9} {'speedup':>7} {'peak MiB':>9} {'ratio':>6} {'MFU':>6}")
    rows = []
    for each, time_ in seconds.items():
        rival = Contender("nanoGPT", each.loss, as_nanogpt)
        speedup = seconds[rival] / time_ if rival in seconds else float("nan")
        ratio = peak_bytes[each] / peak_bytes[rival] if rival in seconds else float("nan")
        mfu = shape.flops / time_ / each.hardware.peak_flops
        print(
            f"{each!s:{width}} {1000 * time_:8.1f} {shape.tokens / time_:9,.0f} {speedup:7.2f} "
            f"{peak_bytes[each] / MIB:9,.0f} {ratio:6.2f} {mfu:6.1%}"
        )
        rows.append([each.project, each.loss, each.hardware, time_, shape.tokens / time_, peak_bytes[each], mfu])
    print("\nspeedup, ratio: to nanoGPT with the same loss, which is Listing A.2 of the report for squentropy\n")
    header = ["project", "loss", "hardware", "seconds", "tokens_per_second", "peak_bytes", "mfu"]
    write(out / f"training_{name}.csv", header, rows)


def profile(name: str, hardware: Hardware, *, out: Path) -> None:
    """Where the time of a step of squentropy goes, and how far it is from the floor."""
    shape, contender = SHAPES[name], Contender("nanosq", "squentropy", hardware)
    found = shares(contender, shape)
    print(f"{contender}: shares of a step")
    for part, share in found.items():
        print(f"{part:32} {share:6.1%}")
    peak = hardware.peak_flops
    milliseconds = 1000 * shape.matrix_flops / peak
    print(f"floor: 6 N tokens at the {peak / 1e12:.2f} TFLOP/s of a large product, {milliseconds:.1f} ms\n")
    write(out / f"training_profile_{name}.csv", ["part", "share"], found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=["wide"], metavar="SHAPE", help=", ".join(SHAPES)
    )
    parser.add_argument("--steps", type=int, default=50, help="of parity")
    parser.add_argument(
        "--warmup", type=int, default=WARMUP, help="steps of parity's schedule; nanoGPT's where not given"
    )
    parser.add_argument("--float64", action="store_true", help="parity in double precision")
    parser.add_argument("--verbose", action="store_true", help="every step of parity, however many")
    parser.add_argument("--rounds", type=int, default=5, help="of speed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="of nanosq")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="nanosq; where not given, as for a run that repays it"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the CSV files")
    options = parser.parse_args()
    if not (options.parity or options.speed or options.profile):
        options.parity = options.speed = True
    try:
        compile = "auto" if options.compile is None else options.compile
        long = {"n_flops": math.inf, "n_logits": math.inf}
        hardware = Hardware.pick(device=options.device, precision=options.precision, compile=compile, **long)
        checkout = None
        if options.parity or options.speed:
            if options.nanogpt is None:
                raise ValueError("--nanogpt DIR is needed, a checkout of karpathy/nanoGPT")
            checkout = Checkout(options.nanogpt)
    except ValueError as error:
        parser.error(str(error))
    for name in options.shapes:
        print(f"{name}: {SHAPES[name]}, {hardware}, {place(hardware)}, torch {torch.__version__}")
        if checkout and options.parity:
            parity(
                checkout,
                name,
                options.steps,
                hardware.device,
                warmup=options.warmup,
                dtype=torch.float64 if options.float64 else torch.float32,
                verbose=options.verbose,
                out=options.out,
            )
        if checkout and options.speed:
            speed(checkout, name, hardware, options.rounds, out=options.out)
        if options.profile:
            profile(name, replace(hardware, compile=False, compile_loss=False), out=options.out)


if __name__ == "__main__":
    main()
