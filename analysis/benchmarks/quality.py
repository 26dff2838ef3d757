"""What nanosq and karpathy/nanoGPT learn of the same text in the same time.

python -m analysis.benchmarks.quality --nanogpt DIR --train FILE --valid FILE
python -m analysis.benchmarks.quality --nanogpt DIR --train FILE --valid FILE --minutes 10 --lrs 1e-3 2e-3 4e-3

nanosq trains as `python run.py experiment=ten_minutes data=text` with these files does. nanoGPT's train.py, unmodified,
trains a model of the same shape on the same tokens in batches of the same size, at each of the learning rates. How many
steps fit into the minutes is measured first, separately for each. DIR is a checkout of nanoGPT, FILE anything that
`data=text` takes.

Both are scored by nanosq/evaluate.py on the whole validation split, which is cut from --train and chooses nanoGPT's
learning rate, and on the whole of --valid, which neither sees before. The minutes are of training, with nanosq's
evaluation at its end. A line of quality.csv is not trained again; --steps and --nanogpt-iterations give the numbers of
steps themselves.
"""

import argparse
import csv
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml

from analysis.benchmarks.lib.memory import place, write
from analysis.benchmarks.lib.nanogpt import Checkout, weights_from_nanogpt
from analysis.benchmarks.lib.processes import Program, seconds_per_step, train
from nanosq import config
from nanosq.data import corpus
from nanosq.data.batches import evaluation_windows
from nanosq.data.corpus import Corpus
from nanosq.evaluate import evaluate
from nanosq.hardware import Hardware
from nanosq.losses import cross_entropy
from nanosq.model import GPT

RUN = Path(__file__).parents[2] / "run.py"
CALIBRATION_SECONDS = 30.0
MANY = 10**6  # steps: more than a calibration takes
SPLITS = ("val", "test")


@dataclass(frozen=True)
class Setting:
    """What must be the same for two results to be compared."""

    machine: str
    minutes: float
    train: str
    valid: str
    overrides: str


@dataclass(frozen=True)
class Result:
    contender: str
    lr: float
    steps: int
    tokens: int
    trained_minutes: float
    val_bits_per_byte: float
    val_nll: float
    val_perplexity: float
    test_bits_per_byte: float
    test_nll: float
    test_perplexity: float


class Table:
    """The results in a CSV file, each written as soon as it is there."""

    def __init__(self, path: Path, setting: Setting) -> None:
        self._path = path
        self._setting = {name: str(value) for name, value in asdict(setting).items()}
        self._rows = list(csv.DictReader(path.open())) if path.exists() else []

    @property
    def results(self) -> list[Result]:
        rows = [row for row in self._rows if self._setting.items() <= row.items()]
        return [Result(**{field.name: _type(field)(row[field.name]) for field in fields(Result)}) for row in rows]

    def steps(self, contender: str) -> int | None:
        """As many as that contender has taken in this setting before."""
        return next((result.steps for result in self.results if result.contender == contender), None)

    def add(self, contender: str, lr: float, steps: int, measure: Callable[[], Result]) -> None:
        """Measure a result that is not there yet."""
        if (contender, lr, steps) not in [(r.contender, r.lr, r.steps) for r in self.results]:
            self._rows.append(self._setting | {name: str(value) for name, value in asdict(measure()).items()})
            write(self._path, self._rows[0], [row.values() for row in self._rows])


@dataclass(frozen=True)
class Nanosq:
    overrides: list[str]
    lr: float
    tokens_per_step: int
    logs: Path

    def program(self, steps: int, checkpoints: Path) -> Program:
        settings = [f"train.max_steps={steps}", f"train.eval_every={steps}", "train.checkpoint_every=null"]
        places = ["tracking=none", "samples.count=0", f"checkpoint_dir={_quoted(checkpoints)}"]
        command = [sys.executable, str(RUN), *self.overrides, *settings, *places]
        return Program(command, Path.cwd(), begin=r".* parameters, vocabulary ", step=r"step +(\d+)/")

    def calibrate(self) -> float:
        with TemporaryDirectory() as folder:
            program = self.program(MANY, Path(folder))
            return seconds_per_step(program, seconds=CALIBRATION_SECONDS, log=self.logs / "nanosq_calibration.log")

    def measure(self, steps: int) -> Result:
        with TemporaryDirectory() as folder:
            seconds, text = train(self.program(steps, Path(folder)), steps, log=self.logs / "nanosq.log")
        pattern = r"^{} +perplexity ([\d.]+) +nll ([\d.]+).* bits/byte ([\d.]+)"
        found = [re.search(pattern.format(split), text, re.MULTILINE) for split in SPLITS]
        if not all(found):
            raise RuntimeError(f"nanosq reported no scores: {self.logs / 'nanosq.log'}")
        scores = [(float(match[3]), float(match[2]), float(match[1])) for match in found if match]
        tokens = steps * self.tokens_per_step
        return Result("nanosq", self.lr, steps, tokens, seconds / 60, *scores[0], *scores[1])


@dataclass(frozen=True)
class NanoGPT:
    folder: Path  # a copy of the checkout, with the corpus as one of its data sets
    sizes: dict[str, Any]
    batch_size: int
    device: torch.device
    prepared: Corpus
    logs: Path

    def program(self, steps: int, lr: float) -> Program:
        settings = {
            **self.sizes,
            "dataset": "corpus",
            "batch_size": self.batch_size,
            "gradient_accumulation_steps": 1,
            "learning_rate": lr,
            "min_lr": lr / 10,
            "max_iters": steps,
            "lr_decay_iters": steps,
            "warmup_iters": round(0.05 * steps),
            "eval_interval": steps,  # trains, and does little else
            "eval_iters": 1,
            "log_interval": 10,
            "always_save_checkpoint": True,
            "device": self.device,
        }
        if self.device.type != "cuda":
            settings |= {"dtype": "float32", "compile": False}
        command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in settings.items())]
        return Program(command, self.folder, begin=r"step 0:", step=r"(?:iter|step) (\d+):")

    def calibrate(self) -> float:
        log = self.logs / "nanogpt_calibration.log"
        return seconds_per_step(self.program(MANY, 1e-3), seconds=CALIBRATION_SECONDS, log=log)

    def measure(self, steps: int, lr: float) -> Result:
        seconds, _ = train(self.program(steps, lr), steps, log=self.logs / f"nanogpt_{lr:g}.log")
        state = torch.load(self.folder / "out" / "ckpt.pt", map_location="cpu", weights_only=True)["model"]
        model = GPT(self.prepared.tokenizer.vocab_size, **self.sizes)
        model.load_state_dict(weights_from_nanogpt(state, model))
        hardware = Hardware(self.device)
        model.to(hardware.device)
        scores = []
        for split in (getattr(self.prepared, name) for name in SPLITS):
            windows = evaluation_windows(split, block_size=model.block_size, batch_size=4 * self.batch_size)
            sizes = {"n_documents": len(split.document_bytes), "n_bytes": split.n_bytes}
            scores.append(evaluate(model, cross_entropy, windows, **sizes, hardware=hardware).score)
        figures = [figure for score in scores for figure in (score.bits_per_byte, score.nll, score.perplexity)]
        tokens = steps * self.batch_size * model.block_size
        return Result("nanoGPT", lr, steps, tokens, seconds / 60, *figures)


def compose(overrides: list[str]) -> dict[str, Any]:
    """The configuration that run.py has for these overrides, as plain values; ValueError where it has none."""
    command = [sys.executable, str(RUN), *overrides, "--cfg", "job", "--resolve"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise ValueError(result.stderr.strip().rpartition("\n")[2].removeprefix("error: "))
    return yaml.safe_load(result.stdout)


def prepare(cfg: dict[str, Any], folder: Path) -> Corpus:
    """The corpus that run.py has for a configuration."""
    parts = {}
    for name in ("source", "tokenizer"):
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(cfg["data"][name]))
        parts[name] = config.load(path)
    return corpus.prepare(**parts, cache_dir=cfg["cache_dir"])


def copy_with_data(checkout: Checkout, prepared: Corpus, folder: Path) -> Path:
    """A copy of nanoGPT that has the training and validation split among its data sets."""
    copy = folder / "nanogpt"
    shutil.copytree(checkout.folder, copy, ignore=shutil.ignore_patterns(".git", "data", "out*"))
    data = copy / "data" / "corpus"
    data.mkdir(parents=True)
    prepared.train.tokens.astype(np.uint16).tofile(data / "train.bin")
    prepared.val.tokens.astype(np.uint16).tofile(data / "val.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": prepared.tokenizer.vocab_size}))
    return copy


def report(results: list[Result]) -> None:
    print(f"{'':8} {'lr':>6} {'steps':>6} {'tokens':>11} {'minutes':>7}   {'bits/byte':17} {'nll':17} perplexity")
    print(f"{'':42}   {'val':>8} {'test':>8} {'val':>8} {'test':>8} {'val':>8} {'test':>8}")
    for r in results:
        print(
            f"{r.contender:8} {r.lr:6g} {r.steps:6} {r.tokens:11,} {r.trained_minutes:7.1f}   "
            f"{r.val_bits_per_byte:8.4f} {r.test_bits_per_byte:8.4f} {r.val_nll:8.4f} {r.test_nll:8.4f} "
            f"{r.val_perplexity:8.3f} {r.test_perplexity:8.3f}"
        )
    print()
    for contender in dict.fromkeys(r.contender for r in results):
        best = min((r for r in results if r.contender == contender), key=lambda r: r.val_bits_per_byte)
        print(f"{contender}, lr {best.lr:g}: {best.test_bits_per_byte:.4f} test bits/byte")


def _quoted(value: object) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _type(field: Any) -> Callable[[str], Any]:
    return field.type


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, metavar="DIR", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE")
    parser.add_argument("--valid", type=Path, required=True, metavar="FILE")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--lrs", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3], metavar="LR", help="of nanoGPT")
    parser.add_argument("--steps", type=int, help="of nanosq")
    parser.add_argument("--nanogpt-iterations", type=int)
    parser.add_argument(
        "--overrides", nargs="+", default=[], metavar="KEY=VALUE", help="settings of run.py; nanoGPT follows the shape"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("benchmarks"), help="folder of the CSV file and the logs")
    options = parser.parse_args()
    files = options.train.resolve(), options.valid.resolve()
    sources = [f"data.source.{key}={_quoted(file)}" for key, file in zip(("train", "test"), files, strict=True)]
    with TemporaryDirectory() as folder:
        try:
            hardware = Hardware.pick(device=options.device, precision="fp32", compile=False)
            checkout = Checkout(options.nanogpt)
            overrides = ["experiment=ten_minutes", "data=text", *sources, f"device={hardware.device}"]
            overrides += options.overrides
            cfg = compose(overrides)
            prepared = prepare(cfg, Path(folder))
        except (ValueError, OSError) as error:
            parser.error(str(error))
        train_file, valid_file = map(str, files)
        setting = Setting(place(hardware), options.minutes, train_file, valid_file, " ".join(options.overrides))
        table = Table(options.out / "quality.csv", setting)
        logs = (options.out / "quality").resolve()
        sizes = {key: value for key, value in cfg["model"].items() if not key.startswith("_")}
        batch_size = cfg["train"]["batch_size"]
        theirs = NanoGPT(
            copy_with_data(checkout, prepared, Path(folder)), sizes, batch_size, hardware.device, prepared, logs
        )
        tokens = batch_size * cfg["train"]["accumulate"] * sizes["block_size"]
        ours = Nanosq(overrides, float(cfg["optimizer"]["lr"]), tokens, logs)

        def fit(given: int | None, contender: str, calibrate: Callable[[], float]) -> int:
            return given or table.steps(contender) or int(60 * options.minutes / calibrate())

        steps = fit(options.steps, "nanosq", ours.calibrate)
        iterations = fit(options.nanogpt_iterations, "nanoGPT", theirs.calibrate)
        print(f"{options.minutes:g} minutes, {place(hardware)}: nanosq {steps} steps, nanoGPT {iterations} iterations")
        for lr in options.lrs:
            table.add("nanoGPT", lr, iterations, partial(theirs.measure, iterations, lr))
        table.add("nanosq", ours.lr, steps, partial(ours.measure, steps))
        report(table.results)


if __name__ == "__main__":
    main()
