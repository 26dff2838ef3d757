"""Compare what nanosq and karpathy/nanoGPT learn from the same text in the same time.

nanosq trains as `python run.py experiment=ten_minutes data=text` with these files. nanoGPT's train.py, unchanged,
trains a model of the same shape on the same tokens with the same batch size, once for each of its learning rates. First
the program measures how many steps of each fit into the minutes; --steps and --nanogpt-iterations set them instead.
Results depend on these numbers only.

Both compute in --precision. On a CPU, train.py does not use autocast: in bf16 it gets a configuration file of one line,
by which its `nullcontext` is the autocast context. It is compiled if it is faster: try --nanogpt-compile.

nanosq/evaluation.py scores both on the whole validation split, which is cut from --train and chooses nanoGPT's learning
rate, and on the whole of --valid, which no training sees. The minutes are of training and, for nanosq, one evaluation.

python -m analysis.benchmarks.quality --nanogpt DIR --train train.txt.xz --valid valid.txt.xz
python -m analysis.benchmarks.quality --nanogpt DIR --train FILE --valid FILE --minutes 1 --lrs 1e-3 2e-3

DIR is a checkout of nanoGPT; FILE is any file that `data=text` reads.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig

from analysis.benchmarks.lib.measure import describe_machine, save, show
from analysis.benchmarks.lib.nanogpt import Checkout, prepare_corpus, train_command, weights_from_nanogpt
from analysis.benchmarks.lib.processes import Program, nanosq_command
from analysis.configuration import compose
from nanosq import command, config, option, terminal
from nanosq.evaluation import Evaluator
from nanosq.hardware import Hardware
from nanosq.losses import cross_entropy
from nanosq.model import GPT

CALIBRATION_SECONDS = 30.0
MANY_STEPS = 10**6  # more than a calibration takes
SPLITS = ("val", "test")
METRICS = ("bits_per_byte", "nll", "perplexity")


@dataclass(frozen=True)
class TimedComparison:
    """Both projects on one text, with one shape."""

    overrides: list[str]
    cfg: DictConfig  # what they give
    checkout: Checkout
    hardware: Hardware  # compiled if nanoGPT is
    folder: Path  # temporary
    logs: Path

    @cached_property
    def corpus(self) -> Any:
        """The corpus of both projects."""
        return prepare_corpus(self.cfg)

    @cached_property
    def nanogpt_folder(self) -> Path:
        """A copy of nanoGPT with the corpus."""
        return self.checkout.copy_with_corpus(self.corpus, self.folder)

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """Arguments of the model that have the same names in both projects."""
        arguments = config.arguments(self.cfg.model)
        return {name: value for name, value in arguments.items() if name != "embedding_std"}  # nanoGPT: 0.02

    def nanosq(self, steps: int) -> Program:
        """Return nanosq's training."""
        settings = [f"train.max_steps={steps}", f"train.eval_every={steps}", "train.checkpoint_every=null"]
        outputs = ["tracking=none", "samples.count=0", f"checkpoint_dir={quoted(self.folder / 'checkpoints')}"]
        command = nanosq_command(*self.overrides, *settings, *outputs, "resume=never")
        return Program(command, Path.cwd(), begin=r".* parameters, vocabulary ", step=r"step +(\d+)/")

    def nanogpt(self, steps: int, lr: float) -> Program:
        """Return nanoGPT's training."""
        settings = {
            **self.sizes,
            "batch_size": self.cfg.train.batch_size,
            "learning_rate": lr,
            "min_lr": lr / 10,
            "max_iters": steps,
            "lr_decay_iters": steps,
            "warmup_iters": round(0.05 * steps),
            "eval_interval": steps,  # spend the time on training
            "eval_iters": 1,
            "log_interval": 10,
            "always_save_checkpoint": True,
            "device": self.hardware.device,
            "dtype": str(self.hardware.matmul_dtype).removeprefix("torch."),
            "compile": self.hardware.compile,
        }
        return Program(train_command(**settings), self.nanogpt_folder, begin="step 0:", step=r"(?:iter|step) (\d+):")

    def calibrate(self, program: Program, minutes: float, name: str) -> int:
        """Return how many steps of a program fit into the minutes."""
        log = self.logs / f"{name}_calibration.log"
        return int(60 * minutes / program.seconds_per_step(seconds=CALIBRATION_SECONDS, log=log))

    def train_nanosq(self, steps: int) -> dict[str, object]:
        """Train and return a row of the table; the scores are those that run.py prints."""
        log = self.logs / "nanosq.log"
        seconds, output = self.nanosq(steps).train(steps, log=log)
        try:
            scores = {split: printed_scores(output, split) for split in SPLITS}
        except ValueError as error:
            raise RuntimeError(f"{error}: {log}") from error
        tokens = steps * self.cfg.train.batch_size * self.cfg.train.accumulate * self.cfg.model.block_size
        return row("nanosq", self.cfg.optimizer.lr, steps, tokens, seconds, scores)

    def train_nanogpt(self, steps: int, lr: float) -> dict[str, object]:
        """Train, score and return a row of the table."""
        seconds, _ = self.nanogpt(steps, lr).train(steps, log=self.logs / f"nanogpt_{lr:g}.log")
        checkpoint = torch.load(self.nanogpt_folder / "out" / "ckpt.pt", map_location="cpu", weights_only=True)
        model = GPT(self.corpus.tokenizer.vocab_size, **self.sizes)
        model.load_state_dict(weights_from_nanogpt(checkpoint["model"], model))
        model.to(self.hardware.device)
        batch_size = self.cfg.train.batch_size
        evaluator = Evaluator(model, cross_entropy, self.hardware, batch_size=4 * batch_size)
        splits = {name: evaluator.score(getattr(self.corpus, name)).score for name in SPLITS}
        scores = {name: {metric: getattr(score, metric) for metric in METRICS} for name, score in splits.items()}
        return row("nanoGPT", lr, steps, steps * batch_size * model.block_size, seconds, scores)


def printed_scores(output: str, split: str) -> dict[str, float]:
    """Return perplexity, nll and bits per byte of a split from the table that run.py prints; ValueError without it."""
    above_floor, accuracy = r"(?: +[\d.]+)?", r" +[\d.]+%"
    match = re.search(rf"^{split} +([\d.]+) +([\d.]+){above_floor} +([\d.]+){accuracy}", output, re.MULTILINE)
    if match is None:
        raise ValueError(f"nanosq reported no score of the {split} split")
    return dict(zip(METRICS, map(float, match.groups()[::-1]), strict=True))


def row(
    name: str, lr: float, steps: int, tokens: int, seconds: float, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, object]:
    """Return a row of the table."""
    columns = {f"{split} {metric}": scores[split][metric] for metric in METRICS for split in SPLITS}
    return {"contender": name, "lr": lr, "steps": steps, "tokens": tokens, "minutes": seconds / 60, **columns}


def quoted(value: object) -> str:
    """Quote a value for Hydra's command line."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.quality", __doc__)
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--train", type=option.existing, required=True, metavar="FILE")
    parser.add_argument("--valid", type=option.existing, required=True, metavar="FILE")
    parser.add_argument("--minutes", type=option.positive, default=10, help="of each training; default: %(default)s")
    parser.add_argument(
        "--lrs", type=option.positive, nargs="+", default=[1e-3, 2e-3, 4e-3], metavar="LR", help="of nanoGPT"
    )
    parser.add_argument("--steps", type=option.integer(1), help="of nanosq; default: as many as fit into the minutes")
    parser.add_argument(
        "--nanogpt-iterations", type=option.integer(1), help="of nanoGPT; default: as many as fit into the minutes"
    )
    parser.add_argument("--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of run.py")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp32"], help="of both projects")
    parser.add_argument("--nanogpt-compile", action="store_true", help="compile nanoGPT on a CPU, too")
    parser.add_argument("--out", type=option.folder, default="benchmarks", help="folder of the CSV file and the logs")
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> None:
    """Print the table and write it to a CSV file, after each training."""
    files = [
        f"data.source.train={quoted(options.train.resolve())}",
        f"data.source.test={quoted(options.valid.resolve())}",
    ]
    with TemporaryDirectory() as folder:
        hardware = Hardware.pick(device=options.device, precision=options.precision, compile=False)
        hardware = replace(hardware, compile=options.nanogpt_compile or hardware.device.type == "cuda")
        place = [f"device={hardware.device}", f"precision={hardware.precision}"]
        overrides = ["experiment=ten_minutes", "data=text", *files, *place, *options.overrides]
        checkout, cfg, logs = Checkout(options.nanogpt), compose(overrides), (options.out / "quality").resolve()
        both = TimedComparison(overrides, cfg, checkout, hardware, Path(folder), logs)
        both.nanogpt_folder.stat()  # prepares the text
        steps = options.steps or both.calibrate(both.nanosq(MANY_STEPS), options.minutes, "nanosq")
        iterations = options.nanogpt_iterations or both.calibrate(
            both.nanogpt(MANY_STEPS, 1e-3), options.minutes, "nanogpt"
        )
        print(
            f"{options.minutes:g} minutes, {hardware.precision}, {describe_machine(hardware)}: {steps} steps, nanoGPT "
            f"{'compiled, ' if hardware.compile else ''}{iterations} steps"
        )
        rows: list[dict[str, object]] = []
        for lr in [*options.lrs, None]:
            rows.append(both.train_nanosq(steps) if lr is None else both.train_nanogpt(iterations, lr))
            table = pd.DataFrame(rows).set_index("contender")
            save(table, options.out / "quality.csv")
    show(table, {"lr": "g", "tokens": ",", "minutes": ".1f"})
    for contender, results in table.groupby(level=0):
        best = results.sort_values("val bits_per_byte").iloc[0]
        print(f"{contender}, lr {best['lr']:g}: {best['test bits_per_byte']:.4f} test bits/byte")


if __name__ == "__main__":
    sys.exit(main())
