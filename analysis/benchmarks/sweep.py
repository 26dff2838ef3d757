"""Measure what a sweep costs: beside a loop over karpathy/nanoGPT's train.py, in parallel, per trial, with pruning.

python -m analysis.benchmarks.sweep --nanogpt DIR         the report's 27 configurations, Listing A.3, on a small model
python -m analysis.benchmarks.sweep --nanogpt DIR --trials 3
python -m analysis.benchmarks.sweep --parallel --trials 6   runs at a time, as many as pay, and one after the other
python -m analysis.benchmarks.sweep --overhead            what a trial takes besides training and evaluation
python -m analysis.benchmarks.sweep --pruning             a search of 30 trials with the median pruner and without

With --nanogpt, each side trains GPTs of 128 dimensions and 8 to 16 layers for 50 steps of 4 x 256 tokens of the
embedded corpus, with a vocabulary of 50,304, and evaluates the same number of tokens. nanoGPT evaluates random batches
(--eval-iters; its README advises 20 for a CPU, its default is 200) of two splits before and after training, nanosq its
whole validation and test split after training. nanosq's grid runs before and after nanoGPT's loop, because the speed of
the machine may change. The corpus is prepared beforehand.

With --parallel, the grid of `python run.py -m hydra/sweeper=grid`, or its first trials, runs with the default launcher
and with hydra/launcher=basic in turn. OMP_NUM_THREADS should not be set.
"""

import argparse
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from tqdm import tqdm

from analysis.benchmarks.lib.measure import describe_machine, median_seconds
from analysis.benchmarks.lib.nanogpt import Checkout, prepare_corpus, train_command
from analysis.benchmarks.lib.processes import nanosq_command
from analysis.configuration import compose
from nanosq import command, option, terminal
from nanosq.hardware import Hardware
from nanosq.installation import CONF

LRS, DROPOUTS, LAYERS = (6e-6, 6e-4, 6e-2), (0.0, 0.1, 0.2), (8, 12, 16)  # Listing A.3
AXES = ("optimizer.lr", "model.dropout", "model.n_layer")
SIZES = {"n_embd": 128, "n_head": 4, "block_size": 256, "bias": False}
STEPS, BATCH_SIZE = 50, 4
PRUNERS = sorted(path.stem for path in (CONF / "hydra/sweeper/pruner").glob("*.yaml"))
STORY_TOKENS = 180  # a little less than the mean of the corpus
OVERRIDES = [
    *(f"model.{key}={value}" for key, value in SIZES.items()),
    *[f"train.batch_size={BATCH_SIZE}", "data.tokenizer.vocabulary=full", "data.tokenizer.pad_to=50304"],
    *["data.window=anywhere", "device=cpu"],
]


def nanosq_sweep(overrides: list[str], *, trials: int, folder: Path) -> float:
    """Return the seconds of a whole sweep, from the command to its end."""
    folder.mkdir(exist_ok=True)
    begin = time.monotonic()
    command = nanosq_command("-m", "hydra/sweeper=grid", *overrides)
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if result.returncode or len(re.findall(r"^#\d+: val perplexity", result.stdout, re.MULTILINE)) != trials:
        raise RuntimeError(f"nanosq failed: {result.stderr[-2000:]}")
    return seconds


def nanogpt_run(folder: Path, lr: float, dropout: float, n_layer: int, *, eval_iters: int) -> float:
    """Return the seconds of one run of train.py with the arguments of Listing A.3."""
    schedule = {"max_iters": STEPS, "learning_rate": f"{lr:.9f}", "min_lr": f"{lr / 10:.9f}"}
    evaluation = {"eval_interval": STEPS, "eval_iters": eval_iters}
    model = {**SIZES, "dropout": dropout, "n_layer": n_layer, "batch_size": BATCH_SIZE}
    command = train_command(**schedule, **evaluation, **model, compile=False, device="cpu", dtype="float32")
    begin = time.monotonic()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode or f"step {STEPS}:" not in result.stdout:
        raise RuntimeError(f"nanoGPT failed: {result.stderr[-2000:]}")
    return time.monotonic() - begin


def compare(checkout: Checkout, folder: Path, *, trials: int, eval_iters: int) -> None:
    """Print the time of nanosq's grid and of a loop over nanoGPT's train.py."""
    n_evaluated = 4 * eval_iters * BATCH_SIZE * 256  # of two splits, twice
    stories = [f"data.source.{split}={n_evaluated // 2 // STORY_TOKENS}" for split in ("n_val", "n_test")]
    overrides = [*OVERRIDES, *stories, f"cache_dir={folder / 'cache'}"]
    corpus = prepare_corpus(compose(overrides))
    n_ours = len(corpus.val.tokens) + len(corpus.test.tokens)
    assert n_ours >= n_evaluated, f"{n_ours} tokens are less than nanoGPT evaluates"
    nanogpt_folder = checkout.copy_with_corpus(corpus, folder)
    settings = list(itertools.product(LRS, DROPOUTS, LAYERS))[:trials]
    overrides += axes(settings)
    sweep = partial(nanosq_sweep, overrides, trials=len(settings))
    machine = describe_machine(Hardware.pick(device="cpu", precision="auto", compile=False))
    print(f"{machine}; {len(settings)} trials", flush=True)
    first = sweep(folder=folder / "first")
    print(f"nanosq   {first:7.1f} s, {n_ours:,} tokens evaluated in each trial", flush=True)
    bar = tqdm(settings, unit="run", disable=not sys.stderr.isatty())
    runs = [nanogpt_run(nanogpt_folder, *setting, eval_iters=eval_iters) for setting in bar]
    print(f"nanoGPT  {sum(runs):7.1f} s, {n_evaluated:,}; {min(runs):.1f} to {max(runs):.1f} s a run", flush=True)
    second = sweep(folder=folder / "second")
    print(f"nanosq   {second:7.1f} s, again")
    print(f"nanosq's sweep is {sum(runs) / statistics.fmean([first, second]):.2f} times as fast")


def axes(settings: Sequence[Sequence[float]]) -> list[str]:
    """Return the overrides of a grid that has these values of AXES as its trials."""
    values = [",".join(map(str, column)) for column in zip(*settings, strict=True)]
    overrides = [f"{axis}={text}" for axis, text in zip(AXES, values, strict=True)]
    return [*overrides, f"hydra.sweeper.zip=[{','.join(AXES)}]"] if len(settings) > 1 else overrides


def in_parallel(folder: Path, *, trials: int, rounds: int) -> None:
    """Print the time of the grid with the default launcher, and with one run after the other."""
    settings = list(itertools.product(LRS, DROPOUTS, LAYERS))[:trials]
    overrides = ["device=cpu", "resume=never", *axes(settings)]  # never: every round trains all of them
    sweep = partial(nanosq_sweep, trials=len(settings), folder=folder / "sweeps")
    launchers: dict[str, list[str]] = {"default": [], "hydra/launcher=basic": ["hydra/launcher=basic"]}
    cases = {name: partial(sweep, [*overrides, *lines]) for name, lines in launchers.items()}
    machine = describe_machine(Hardware.pick(device="cpu", precision="auto", compile=False))
    print(f"{machine}; {len(settings)} trials, medians of {rounds} rounds", flush=True)
    medians = median_seconds(cases, rounds, description="sweeps")
    for name, seconds in medians.items():
        print(f"{name:20} {seconds:6.1f} s, {seconds / len(settings):5.2f} s a trial")
    print(f"the default takes {medians['default'] / medians['hydra/launcher=basic']:.2f} times as long as basic")


def overhead(folder: str) -> None:
    """Print the time of trials that train a tiny model for one step and evaluate a thousand tokens."""
    tiny = [
        *["data.source.n_train=200", "data.source.n_val=10", "data.source.n_test=10", "device=cpu", "samples.count=0"],
        *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64", "train.max_steps=1"],
    ]
    sweeps = {
        "grid": ["train.warmup=range(20)"],
        "grid, already finished": ["train.warmup=range(20)"],
        "optuna": ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=20"],
    }
    for name, overrides in sweeps.items():
        command = nanosq_command("-m", *overrides, *tiny)
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with process:
            assert process.stdout is not None
            times = [time.monotonic() for line in process.stdout if re.match(r"#\d+: ", line)]
        seconds = [after - before for before, after in itertools.pairwise(times)]
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(
            f"{name:23} {len(times)} trials, median of all but the first {statistics.median(seconds):.2f} s ({spread})"
        )


def pruning(pruner: str, *, seed: int) -> None:
    """Compare the search of `python run.py -m hydra/sweeper=optuna`, on fewer validation stories, with and without.

    Both run in parallel with one thread each, because steps are counted and not seconds.
    """
    with ThreadPoolExecutor() as threads:
        (all_steps, best), (steps, pruned_best) = threads.map(partial(search, seed=seed), ("none", pruner))
    print(f"{pruner}: {steps / all_steps:.0%} of the steps, {pruned_best / best:.3f} times the best perplexity without")


def search(pruner: str, *, seed: int) -> tuple[int, float]:
    """Run a search and return the steps of all its trials, and the best perplexity."""
    with TemporaryDirectory() as folder:  # one for each search, because recorded trials are not trained again
        study = [f"hydra/sweeper/pruner={pruner}", f"hydra.sweeper.study_name={pruner}"]
        few = ["data.source.n_val=50", "data.source.n_test=10"]
        command = nanosq_command("-m", "hydra/sweeper=optuna", f"hydra.sweeper.sampler.seed={seed}", *study, *few)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
        result = optuna.load_study(study_name=pruner, storage=f"sqlite:///{folder}/optuna.db")
        # Every trial reports at its evaluations. A step of the study is a thousandth of training.
        max_steps = result.user_attrs["settings"]["train.max_steps"]
        steps = max_steps * sum(trial.last_step or 0 for trial in result.trials) // 1000
        states = Counter(trial.state.name for trial in result.trials)
        print(f"{pruner:10} {steps:6,} steps, best perplexity {result.best_value:.3f}  {dict(states)}", flush=True)
        return steps, result.best_value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.sweep", __doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    mode.add_argument("--parallel", action="store_true", help="compare launchers")
    mode.add_argument("--overhead", action="store_true", help="time trials of a tiny model")
    mode.add_argument(
        "--pruning", nargs="?", const="median", choices=PRUNERS, metavar="PRUNER", help=", ".join(PRUNERS)
    )
    parser.add_argument("--trials", type=option.integer(1), default=27, help="the first of the 27 configurations")
    parser.add_argument(
        "--rounds", type=option.integer(1), default=5, help="of --parallel, after a first one that does not count"
    )
    parser.add_argument("--eval-iters", type=option.integer(1), default=20, help="batches of nanoGPT's evaluation")
    parser.add_argument("--sampler-seed", type=option.integer(0, 2**32 - 1), default=0, help="of the search")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Run one of the measurements."""
    if options.pruning:
        pruning(options.pruning, seed=options.sampler_seed)
        return
    with TemporaryDirectory() as folder:
        if options.overhead:
            overhead(folder)
            return
        if options.parallel:
            in_parallel(Path(folder), trials=options.trials, rounds=options.rounds)
            return
        checkout = Checkout(options.nanogpt)
        compare(checkout, Path(folder), trials=options.trials, eval_iters=options.eval_iters)


if __name__ == "__main__":
    sys.exit(main())
