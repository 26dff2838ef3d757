"""The student report's claims, and the number that its own settings and losses give for each claim."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from analysis.audit import recompute
from analysis.page import Cell, number
from nanosq.data.bpe import GPT2_SIZE
from nanosq.data.sources import report_rows
from nanosq.installation import program

READING_ERROR = 0.1  # of a value that is read from a figure
FIVE_LOSSES = {
    "cross_entropy": "Cross-entropy (equation 1)",
    "squentropy": "Squentropy (equation 2)",
    "squentropy_listing": "Squentropy (Listing A.2)",
    "squentropy_repo": "Squentropy (the code that was run)",
    "mse_probabilities": 'The code\'s older "mse"',
}
TABLE_1 = ("paper_cross_entropy", "paper_squentropy")  # presets with the settings of its two columns
ORIGINAL, FORK = (f"github.com/{owner}/NanoGPT-Loss-Stop-Analysis" for owner in ("sujen07", "BigSuj"))
COUNT_PARAMETERS = (
    "python -c \"import torch; from nanosq.model import GPT; torch.set_default_device('meta'); print(sum(p.numel() for "
    'p in GPT(50304, n_layer={}, block_size=1024, n_head=12, n_embd=768).parameters()))"'
)
NOT_GIVEN = Cell("not given")


@dataclass(frozen=True)
class ReportedNumbers:
    """The numbers that the report gives, and what is known of its data. Losses are in their own units."""

    test_losses: tuple[float, float] = (1.826, 1.899)  # Table 1: cross-entropy, squentropy
    train_losses: tuple[float, float] = (1.805, 1.885)
    perplexities: tuple[float, float] = (3.8, 5.2)
    rounding: float = 0.05  # of these
    first_loss: float = 11.2  # of squentropy: Figure 2
    evaluations: tuple[int, int] = (23, 40)  # points in Figures 1 and 2
    best_lr: float = 6e-5  # section 2.7
    parameters: float = 127e6  # section 2.2
    hours: tuple[float, float, float] = (24, 4, 14 * 24)  # section 1.2, README, section 2.3
    scored_tokens: int = 10 * 4 * 256  # test_perplexity.py: batches, stories, tokens of a story
    train_stories: int = 2_119_719  # of TinyStories
    train_tokens: float = 471.7e6  # of them, without end of text


class Claim(NamedTuple):
    """A claim of the report beside the number that we compute for it."""

    text: str
    reported: Cell
    computed: Cell
    is_right: bool | None  # None: the report gives no number, or we have none
    check: str  # a command, or where to read the number


def losses(reported: ReportedNumbers) -> Iterator[Claim]:
    """Yield, for each loss: can a run with it start and end where the report's did?"""
    from nanosq import losses as functions

    settings = recompute.preset("paper_cross_entropy")
    n_classes, width = settings["data.tokenizer.pad_to"], settings["model.n_embd"]
    for name, title in FIVE_LOSSES.items():
        loss = getattr(functions, name)
        first = recompute.initial_value(loss, n_classes=n_classes, width=width)
        lowest = recompute.lowest_value(loss, n_classes=n_classes)
        reached = reported.train_losses[name != "cross_entropy"]
        yield Claim(
            f"{title} starts where Figure 2 does",
            _as_given(reported.first_loss),
            number(first),
            abs(first - reported.first_loss) <= READING_ERROR,
            f"pytest tests/analysis/audit/test_audit.py -k 'initial and {name}'",
        )
        yield Claim(
            f"{title} can reach the training loss in Table 1",
            _as_given(reached),
            number(lowest) if lowest > 1e-6 else Cell("0", lowest),
            lowest <= reached,
            f"pytest tests/test_losses.py -k 'floor and {name}'",
        )


def facts(reported: ReportedNumbers) -> Iterator[Claim]:
    """Yield the claims that can be checked without a text and without a run."""
    yield from _table_1(reported)
    yield from _search(reported)
    yield from _data(reported)
    yield _quotation(
        "--loss_func=squentropy trains squentropy", "squentropy", "cross-entropy", f"read model.py of {FORK}"
    )
    first, *others = [Cell(f"{hours:g} hours", hours) for hours in reported.hours]
    yield Claim(
        "Training takes as long as section 1.2 says",
        first,
        Cell(", ".join(cell.text for cell in others)),
        len(set(reported.hours)) == 1,
        f"read README.md of {ORIGINAL}, and section 2.3",
    )


def _table_1(reported: ReportedNumbers) -> Iterator[Claim]:
    columns = zip(("Cross-entropy", "Squentropy"), reported.test_losses, reported.perplexities, strict=True)
    for name, loss, perplexity in columns:
        yield Claim(
            f"{name}: the test perplexity is exp(test loss)",
            _as_given(perplexity),
            number(math.exp(loss)),
            abs(math.exp(loss) - perplexity) <= reported.rounding,
            f'python -c "from math import exp; print(exp({loss}))"',
        )
    loss, perplexity = reported.test_losses[1], reported.perplexities[1]
    penalty = loss - math.log(perplexity)
    yield Claim(
        "Both test losses are in nats: squentropy's is the logarithm of its perplexity, without a penalty",
        _as_given(loss),
        Cell(f"{math.log(perplexity):.4g} + {penalty:.3g}", penalty),
        abs(penalty) <= reported.rounding / perplexity,
        f'python -c "from math import log; print({loss} - log({perplexity}))"',
    )
    yield _quotation(
        "Figure 1's right panel shows cross-entropy",
        "cross-entropy's test loss",
        "squentropy's test loss",
        "read Figure 1",
    )
    first, second = reported.evaluations
    yield Claim(
        "Both models were evaluated equally often during training",
        Cell(f"{first} times, cross-entropy", first),
        Cell(f"{second} times, squentropy", second),
        first == second,
        "count the points in Figures 1 and 2",
    )
    one, other = map(recompute.preset, TABLE_1)
    differing = [key for key in one if one[key] != other.get(key) and not key.startswith("loss.")]
    yield Claim(
        "The two columns of Table 1 differ only in the loss",
        Cell("one has optimal hyperparameters"),
        Cell("; ".join(f"{key} {one[key]:g} and {other[key]:g}" for key in differing) or "only in the loss"),
        not differing,
        " ".join(["diff", *(f"<({program()} experiment={name} --cfg job)" for name in TABLE_1)]),
    )
    yield _quotation(
        "The architecture is that of GPT-2 without changes, so it has biases",
        "bias: true",
        f"bias: {one['model.bias']}".lower(),
        f"{program()} experiment=paper_cross_entropy --cfg job | grep bias",
    )


def _search(reported: ReportedNumbers) -> Iterator[Claim]:
    settings = recompute.preset("paper_cross_entropy")
    rates, (steps,) = recompute.grid_axis("optimizer.lr"), recompute.grid_axis("train.max_steps")
    yield Claim(
        "The best learning rate is one of those that were searched",
        _as_given(reported.best_lr),
        Cell(", ".join(f"{rate:g}" for rate in rates)),
        any(math.isclose(reported.best_lr, rate) for rate in rates),
        f"{program()} hydra/sweeper=grid --cfg hydra | grep optimizer.lr",
    )
    min_lr = settings["optimizer.lr"] * settings["train.min_lr_factor"]
    yield Claim(
        "The best learning rate is nanoGPT's default min_lr, a tenth of its default learning rate",
        _as_given(reported.best_lr),
        _as_given(min_lr),
        math.isclose(reported.best_lr, min_lr),
        f"{program()} experiment=paper_cross_entropy --cfg job | grep lr",
    )
    factor, warmup = recompute.largest_lr_factor(settings, int(steps)), settings["train.warmup"]
    yield Claim(
        f"A trial of {steps} iterations reaches its learning rate, though the warmup takes {warmup}",
        Cell("100 %", 1.0),
        Cell(f"{100 * factor:.4g} %", factor),
        factor >= 1,
        'python -c "from nanosq.optim import cosine_from_zero as f; '
        f'print(f({steps - 1}, max_steps={steps}, warmup={warmup}, min_lr_factor=0.1))"',
    )
    tokens, product = recompute.tokens_per_step(settings), "4 * 40 * 1024"
    yield Claim("Tokens of an iteration", NOT_GIVEN, number(tokens), None, f'python -c "print({product})"')
    yield Claim("Tokens of a trial", NOT_GIVEN, number(tokens * steps), None, f'python -c "print({product} * {steps})"')
    depths_in_table_1 = {recompute.preset(name)["model.n_layer"] for name in TABLE_1}
    for n_layer in map(int, recompute.grid_axis("model.n_layer")):
        without, total = recompute.n_parameters(settings, n_layer)
        claimed = n_layer in depths_in_table_1
        agrees = any(abs(n - reported.parameters) <= 0.5e6 for n in (without, total))
        yield Claim(
            f"Parameters with {n_layer} layers, without and with position embeddings",
            Cell(f"{reported.parameters / 1e6:g}M", reported.parameters) if claimed else NOT_GIVEN,
            Cell(f"{without / 1e6:.1f}M, {total / 1e6:.1f}M", without),
            agrees if claimed else None,
            COUNT_PARAMETERS.format(n_layer),
        )


def _data(reported: ReportedNumbers) -> Iterator[Claim]:
    held_out = int(report_rows(reported.train_stories).sum())
    yield Claim(
        "Stories in the test set: 0.05 % of the training split, drawn with seed 2357",
        NOT_GIVEN,
        Cell(f"{held_out:,}", held_out),
        None,
        f'python -c "from nanosq.data.sources import report_rows as f; print(f({reported.train_stories}).sum())"',
    )
    yield _quotation(
        "The models are scored on", "a test set", "the validation set", f"read TinyStories/prepare.py of {ORIGINAL}"
    )
    n_tokens = reported.train_tokens * held_out / reported.train_stories
    share = reported.scored_tokens / n_tokens
    yield Claim(
        "The perplexity script scores every story of the test set",
        Cell(f"about {round(n_tokens, -3):,.0f} tokens", n_tokens),
        Cell(f"{reported.scored_tokens:,} random tokens, {100 * share:.1f} %", reported.scored_tokens),
        share >= 1,
        'python -c "print(10 * 4 * 256)"',
    )
    n_classes = recompute.preset("paper_cross_entropy")["data.tokenizer.pad_to"]
    padding = n_classes - GPT2_SIZE
    yield Claim(
        f"Every one of the C = {n_classes:,} classes is a token, none is padding",
        Cell("0 of padding", 0),
        Cell(f"{padding} of padding", padding),
        padding == 0,
        f'python -c "from nanosq.data.bpe import GPT2_SIZE; print({n_classes} - GPT2_SIZE)"',
    )


def vocabulary(stories: Path | None) -> Claim:
    """Check how many of GPT-2's tokens a file of stories uses; ValueError if it cannot be read."""
    n = recompute.n_ids_used(stories) if stories else None
    return Claim(
        "Every token of GPT-2 occurs in TinyStories",
        Cell(f"{GPT2_SIZE:,}", GPT2_SIZE),
        Cell("not computed: give --stories FILE") if n is None else Cell(f"{n:,}", n),
        None if n is None else n == GPT2_SIZE,
        f"{program('analysis.audit')} --stories {stories or 'FILE'}",
    )


def _quotation(claim: str, reported: str, correct: str, source: str) -> Claim:
    return Claim(claim, Cell(reported), Cell(correct), reported == correct, source)


def _as_given(value: float) -> Cell:
    """Show a number with the digits that the report gives."""
    return Cell(f"{value:g}", value)
