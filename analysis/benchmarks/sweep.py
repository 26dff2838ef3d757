"""What a sweep costs: beside a loop over karpathy/nanoGPT's train.py, for each trial, and with pruning.

python -m analysis.benchmarks.sweep --nanogpt DIR         the report's 27 configurations, Listing A.3, on a small model
python -m analysis.benchmarks.sweep --nanogpt DIR --trials 3
python -m analysis.benchmarks.sweep --overhead            all that a trial takes besides training and evaluation
python -m analysis.benchmarks.sweep --pruning             a search of 30 trials with the median pruner and without

Beside nanoGPT, either side trains GPTs of 128 dimensions and 8 to 16 layers for 50 steps of 4 x 256 tokens of the
embedded corpus, with 50,304 tokens in the vocabulary, and evaluates the same number of tokens: nanoGPT so many random
batches (--eval-iters; its README advises 20 for a CPU, its default is 200) of two splits before and after training;
nanosq its validation and test split, whole, after it. nanosq's grid is timed before and after nanoGPT's runs, since the
machine may change. The corpus is prepared beforehand for both.
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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
from tqdm import tqdm

from analysis.benchmarks.lib.memory import place
from analysis.benchmarks.lib.nanogpt import Checkout
from analysis.benchmarks.quality import RUN, compose, copy_with_data, prepare
from nanosq.hardware import Hardware

LRS, DROPOUTS, LAYERS = (6e-6, 6e-4, 6e-2), (0.0, 0.1, 0.2), (8, 12, 16)  # Listing A.3
SIZES = {"n_embd": 128, "n_head": 4, "block_size": 256, "bias": False}
STEPS, BATCH_SIZE = 50, 4
STORY_TOKENS = 180  # a little less than a story of the corpus has
OVERRIDES = [
    *(f"model.{key}={value}" for key, value in SIZES.items()),
    *[f"train.batch_size={BATCH_SIZE}", "data.tokenizer.vocabulary=full", "data.tokenizer.pad_to=50304"],
    "data.window=anywhere",
]


def nanosq(overrides: list[str], *, trials: int, folder: Path) -> float:
    """Seconds of a whole sweep, from the command to its end."""
    command = [sys.executable, str(RUN), "-m", "hydra/sweeper=grid", *overrides]
    begin = time.monotonic()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    if result.returncode or len(re.findall(r"^#\d+: validation perplexity", result.stdout, re.MULTILINE)) != trials:
        raise RuntimeError(f"nanosq failed: {result.stderr[-2000:]}")
    return seconds


def nanogpt(folder: Path, lr: float, dropout: float, n_layer: int, *, eval_iters: int) -> float:
    """Seconds of one run of train.py as Listing A.3 calls it."""
    settings = {
        **SIZES,
        "dataset": "corpus",
        "compile": False,
        "batch_size": BATCH_SIZE,
        "gradient_accumulation_steps": 1,
        "max_iters": STEPS,
        "eval_interval": STEPS,
        "eval_iters": eval_iters,
        "learning_rate": f"{lr:.9f}",
        "min_lr": f"{lr / 10:.9f}",
        "dropout": dropout,
        "n_layer": n_layer,
        "device": "cpu",
        "dtype": "float32",
    }
    command = [sys.executable, "train.py", *(f"--{key}={value}" for key, value in settings.items())]
    begin = time.monotonic()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode or f"step {STEPS}:" not in result.stdout:
        raise RuntimeError(f"nanoGPT failed: {result.stderr[-2000:]}")
    return time.monotonic() - begin


def compare(checkout: Checkout, *, trials: int, n_jobs: int, eval_iters: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        evaluated = 4 * eval_iters * BATCH_SIZE * SIZES["block_size"]  # of two splits, twice
        stories = [f"data.source.{split}={evaluated // 2 // STORY_TOKENS}" for split in ("n_val", "n_test")]
        settings = [*OVERRIDES, *stories, f"cache_dir={folder / 'cache'}", "device=cpu"]
        prepared = prepare(compose(settings), folder)
        ours = len(prepared.val.tokens) + len(prepared.test.tokens)
        assert ours >= evaluated, f"{ours} tokens are less than nanoGPT evaluates"
        copy = copy_with_data(checkout, prepared, folder)
        configurations = list(itertools.product(LRS, DROPOUTS, LAYERS))[:trials]
        grid = settings
        if trials < len(LRS) * len(DROPOUTS) * len(LAYERS):
            axes = ("optimizer.lr", "model.dropout", "model.n_layer")
            columns = zip(*configurations, strict=True)
            grid += [f"{axis}={','.join(map(str, column))}" for axis, column in zip(axes, columns, strict=True)]
            grid += [f"hydra.sweeper.zip=[{','.join(axes)}]"]
        if n_jobs > 1:
            grid += ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}"]

        def sweep(number: int) -> float:
            at = folder / f"sweep_{number}"
            at.mkdir()
            return nanosq(grid, trials=trials, folder=at)

        print(f"{place(Hardware.pick(device='cpu', precision='auto', compile=False))}; {trials} trials", flush=True)
        sweeps = [sweep(0)]
        print(f"nanosq   {sweeps[0]:7.1f} s, {ours:,} tokens evaluated in each trial", flush=True)
        bar = tqdm(configurations, unit="run", disable=not sys.stderr.isatty())
        runs = [nanogpt(copy, *each, eval_iters=eval_iters) for each in bar]
        print(f"nanoGPT  {sum(runs):7.1f} s, {evaluated:,}; {min(runs):.1f} to {max(runs):.1f} s a run", flush=True)
        sweeps.append(sweep(1))
        print(f"nanosq   {sweeps[1]:7.1f} s, again")
        print(f"nanosq's sweep is {sum(runs) / statistics.fmean(sweeps):.2f} x as fast")


def overhead() -> None:
    """Trials that train one step of a tiny model and evaluate a thousand tokens: what they take is overhead."""
    tiny = [
        *["data.source.n_train=200", "data.source.n_val=10", "data.source.n_test=10", "device=cpu", "samples.count=0"],
        *["model.n_layer=1", "model.n_embd=16", "model.n_head=1", "model.block_size=64", "train.max_steps=1"],
    ]
    sweeps = {
        "grid": ["seed=range(20)"],
        "grid, found finished": ["seed=range(20)"],
        "optuna": ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=20", "model.n_layer=1"],
    }
    with TemporaryDirectory() as folder:
        for name, overrides in sweeps.items():
            command = [sys.executable, "-u", str(RUN), "-m", *overrides, *tiny]
            times = []
            with subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as ran:
                assert ran.stdout is not None
                for line in ran.stdout:
                    if re.match(r"#\d+: ", line):
                        times.append(time.monotonic())
            seconds = [after - before for before, after in itertools.pairwise(times)]
            print(
                f"{name:22} {len(times)} trials, each after the first {statistics.median(seconds):.2f} s "
                f"(median; {min(seconds):.2f} to {max(seconds):.2f})"
            )


def pruning(pruner: str, *, sampler_seed: int) -> None:
    """The search of `python run.py -m hydra/sweeper=optuna`, on fewer validation stories, with a pruner and without.

    Side by side, a thread each, since steps are counted and not seconds.
    """
    with ThreadPoolExecutor() as threads:
        studies = threads.map(partial(search, sampler_seed=sampler_seed), ("none", pruner))
    (all_steps, best), (steps, best_pruned) = studies
    print(f"{pruner}: {steps / all_steps:.0%} of the steps, a perplexity of {best_pruned / best:.3f} times the other")


def search(pruner: str, *, sampler_seed: int) -> tuple[int, float]:
    """Steps of all trials, and the best perplexity."""
    with TemporaryDirectory() as folder:  # of its own: a trial that is recorded is not trained again
        settings = [f"hydra/sweeper/pruner={pruner}", f"hydra.sweeper.study_name={pruner}"]
        seed = f"hydra.sweeper.sampler.seed={sampler_seed}"
        few = ["data.source.n_val=50", "data.source.n_test=10"]
        command = [sys.executable, str(RUN), "-m", "hydra/sweeper=optuna", *settings, seed, *few]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
        study = optuna.load_study(study_name=pruner, storage=f"sqlite:///{folder}/optuna.db")
        steps = sum(trial.last_step or 0 for trial in study.trials)  # every trial reports when it is evaluated
        states = Counter(trial.state.name for trial in study.trials)
        print(f"{pruner:10} {steps:6,} steps, best perplexity {study.best_value:.3f}  {dict(states)}", flush=True)
        return steps, study.best_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    what.add_argument("--overhead", action="store_true")
    what.add_argument("--pruning", nargs="?", const="median", metavar="PRUNER", help="of conf/hydra/sweeper/pruner")
    parser.add_argument("--trials", type=int, default=27, help="the first so many of the 27")
    parser.add_argument("--eval-iters", type=int, default=20, help="of nanoGPT")
    parser.add_argument("--n-jobs", type=int, default=1, help="of nanosq, side by side (hydra/launcher=joblib)")
    parser.add_argument("--sampler-seed", type=int, default=0, help="of the search")
    options = parser.parse_args()
    if options.overhead:
        overhead()
        return
    if options.pruning:
        pruning(options.pruning, sampler_seed=options.sampler_seed)
        return
    try:
        checkout = Checkout(options.nanogpt)
    except ValueError as error:
        parser.error(str(error))
    compare(checkout, trials=options.trials, n_jobs=options.n_jobs, eval_iters=options.eval_iters)


if __name__ == "__main__":
    main()
