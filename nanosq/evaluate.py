"""Score a model on the text of files: every token once, each document from its own beginning.

python -m nanosq.evaluate RUN_ID --data test.txt
python -m nanosq.evaluate best.pt --data '*.jsonl' --column body --csv out.csv
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nanosq import command, option, terminal

if TYPE_CHECKING:
    from nanosq.data.corpus import Split
    from nanosq.evaluation import Evaluator, ScoredTokens

N_WINDOWS = 40  # of the student report, in batches of 4
SEED = 1337  # of nanoGPT
OPTIONS = "--"  # how the names of settings begin in messages
BATCH_TOKENS = 2**14  # in a batch: the activations of GPT-2 take less than 1 GB


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = command.parser("nanosq.evaluate", __doc__, "MODEL --data FILE ...")
    add, default = parser.add_argument, "default: %(default)s"
    files = "paths or globs of plain text, .jsonl, .parquet or .arrow; text and .jsonl may be compressed"
    add("--data", nargs="+", required=True, type=option.name, metavar="FILE", help=files)
    add(
        "--separator",
        type=option.text,
        default="<|endoftext|>",
        help=rf"text between the documents of plain text; a file without it is cut into passages; {default}",
    )
    add("--column", type=option.text, default="text", help=f"column or key that holds the text of a row; {default}")
    add("--device", default="auto", help=default)
    add("--precision", choices=command.PRECISIONS, help="default: the one in which the run was scored, else fp32")
    protocols = "report: print the mean over random windows too, as the student report measured it"
    add("--protocol", choices=("whole", "report"), default="whole", help=protocols)
    add("--windows", type=option.integer(1), metavar="N", help=f"number of random windows; default: {N_WINDOWS}")
    add(
        "--window-size",
        type=option.integer(1),
        metavar="N",
        help="tokens in a random window; default: 256, or a smaller block",
    )
    add("--seed", type=option.SEED, help=f"of random windows; default: {SEED}")
    add("--csv", type=option.file, metavar="OUT", help="file to write, with a row for each document")
    add("--json", action="store_true", help="print one JSON object, for scripts")
    return command.run(lambda: evaluate(parser.parse_args(arguments)))


def evaluate(options: argparse.Namespace) -> None:
    """Score the model that the options name, and print the scores.

    Raises:
        ValueError: An option, the model or a file cannot be used.
        OSError: A file cannot be read or written.
    """
    from nanosq import artifacts, report_protocol
    from nanosq.data import readers, sources, texts
    from nanosq.evaluation import Evaluator
    from nanosq.filesystem import atomic_write
    from nanosq.hardware import Hardware
    from nanosq.losses import cross_entropy

    counts = {"n_windows": options.windows, "window_size": options.window_size, "seed": options.seed}
    if options.protocol != "report" and any(value is not None for value in counts.values()):
        raise ValueError("--windows, --window-size and --seed are those of random windows: add --protocol report")
    paths = sources.find("data", options.data, settings=OPTIONS)
    if options.csv is not None and options.csv.resolve() in {path.resolve() for path in paths}:
        raise ValueError(f"--csv would replace {options.csv}, a file of --data: give it another name")
    reading = {"separator": options.separator, "column": options.column, "settings": OPTIONS}
    for path in paths:  # a file that cannot be read is an error before the model is read
        next(sources.read([path], **reading), None)
    hardware = Hardware.pick(device=options.device, precision=options.precision or "fp32", compile=False)
    trained = command.load(options.model, options.tracking_uri)
    if options.precision is None and "precision" in trained.facts:
        hardware = Hardware.pick(device=options.device, precision=trained.facts["precision"], compile=False)
    model = trained.build().to(hardware.device)
    evaluator = Evaluator(model, cross_entropy, hardware, batch_size=max(1, BATCH_TOKENS // model.block_size))
    split, places, loses_text = texts.encode_files(paths, trained.tokenizer, **reading)
    for path, n in Counter(place.file for place in places).items():
        if n > 1 and readers.is_cut(path, options.separator):
            reason = f"{path} has no --separator {options.separator!r}"
            print(f"note: {reason}: each of its {n:,} passages is scored from its own beginning", file=sys.stderr)
    if loses_text:
        print("note: the tokenizer loses text: bits per byte cannot be compared", file=sys.stderr)
    result: dict[str, Any] = {
        "model": options.model,
        "hardware": str(hardware),
        "tokenizer": type(trained.tokenizer).__name__,
        "vocab_size": trained.tokenizer.vocab_size,
        "block_size": model.block_size,
        "recorded": _recorded(options, split, trained.facts),
    }
    with hardware.waiting():
        if options.protocol == "report":
            counts = {"n_windows": N_WINDOWS, "seed": SEED} | {k: v for k, v in counts.items() if v is not None}
            result["report"] = asdict(report_protocol.score_random_windows(evaluator, split, **counts))
        evaluation = evaluator.score(split, _with_progress(evaluator, split))
    if math.isnan(evaluation.score.nll):
        raise ValueError("the model is broken: its logits are not finite numbers")
    score = asdict(evaluation.score)
    result |= {"documents": len(places), "tokens": int(split.starts[-1]), "bytes": split.n_bytes}
    result |= {name: score[name] for name in ("nll", "perplexity", "bits_per_byte", "accuracy", "ece")}
    if loses_text:
        result["bits_per_byte"] = None
    if options.csv is not None:
        with atomic_write(options.csv) as file:
            file.write(artifacts.documents_csv(split, places, evaluation, loses_text=loses_text).encode())
    print(_json(result) if options.json else terminal.fit(_tables(result), sys.stdout))


def _recorded(options: argparse.Namespace, split: "Split", facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the nll that the run of the model has recorded for these texts, if they are a split of it."""
    from nanosq.checkpoint import RUN_ID
    from nanosq.data.sources import SPLITS
    from nanosq.tracking.mlflow_store import MLflowStore

    digests = {digest: name for name, (*_, digest) in zip(SPLITS, facts.get("splits", []), strict=False)}
    name = digests.get(split.digest, "")
    if not name or not RUN_ID.fullmatch(options.model):
        return None
    history = MLflowStore(uri=options.tracking_uri).history(options.model, f"{name}/nll")
    precision = facts.get("precision", "an unknown precision")
    return {"metric": f"{name}/nll", "value": history[-1][1], "precision": precision} if history else None


def _with_progress(evaluator: "Evaluator", split: "Split") -> "Iterator[ScoredTokens]":
    """Yield the batches of a split with a progress bar, if there is a terminal."""
    from tqdm import tqdm

    n_tokens = len(split.tokens) - 1
    with tqdm(desc="scoring", total=n_tokens, unit="token", unit_scale=True, leave=False, disable=None) as bar:
        for batch in evaluator.batches(split):
            yield batch
            bar.update(len(batch.targets_N))


def _json(result: dict[str, Any]) -> str:
    """Return a result as JSON, in which a number that is infinite or not a number is null."""
    return json.dumps(json.loads(json.dumps(result), parse_constant=lambda _: None))


def _tables(result: dict[str, Any]) -> str:
    """Return a result as text for a reader."""
    header = ("documents", "tokens", "bytes", "nll", "perplexity", "bits/byte", "accuracy", "ece")
    counts = [f"{result[key]:,}" for key in header[:3]]
    nll, perplexity = f"{result['nll']:.6f}", f"{result['perplexity']:.4f}"
    bits = result["bits_per_byte"]
    others = ["-" if bits is None else f"{bits:.4f}", f"{result['accuracy']:.1%}", f"{result['ece']:.2%}"]
    text = terminal.table(header, [[*counts, nll, perplexity, *others]])
    text += "\n{model}: {hardware}, {tokenizer} with {vocab_size:,} tokens, blocks of {block_size:,}".format(**result)
    if recorded := result["recorded"]:
        text += "\nthe run has recorded {metric} {value:.6f} for this text, in {precision}".format(**recorded)
    if report := result.get("report"):
        n, size = report["windows"], report["window_size"]
        scores = [f"{report[key]:.6f}" for key in ("nll", "standard_error")]
        random = [f"{n:,} random windows of {size:,}", f"{n * size:,}", *scores, f"{report['perplexity']:.4f}"]
        whole = ["every token once", counts[1], nll, "", perplexity]
        text += "\n\n" + terminal.table(("protocol", "tokens", "nll", "standard error", "perplexity"), [random, whole])
    return text


if __name__ == "__main__":
    sys.exit(main())
