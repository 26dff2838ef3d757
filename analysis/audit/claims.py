"""What the report says, claim by claim, and the number that its own settings and losses come to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from analysis.audit import recompute
from analysis.page import Cell, number
from nanosq.data.bpe import GPT2_SIZE

READ_OFF = 0.1  # how far a value read off a figure may be from the true one
FIVE_LOSSES = {
    "cross_entropy": "Cross-entropy (equation 1)",
    "squentropy": "Squentropy (equation 2)",
    "squentropy_listing": "Squentropy (Listing A.2)",
    "squentropy_repo": "Squentropy (the code that was run)",
    "mse_probabilities": 'The code\'s older "mse"',
}
TABLE_1 = ("paper_cross_entropy", "paper_squentropy")
ORIGINAL, FORK = (f"github.com/{owner}/NanoGPT-Loss-Stop-Analysis" for owner in ("sujen07", "BigSuj"))
COUNT = (
    "python -c \"import torch; from nanosq.model import GPT; torch.set_default_device('meta'); print(sum(p.numel() for "
    'p in GPT(50304, n_layer={}, block_size=1024, n_head=12, n_embd=768).parameters()))"'
)


@dataclass(frozen=True)
class Report:
    """What the report says, and what is known of its data; losses in the unit of each."""

    test_losses: tuple[float, float] = (1.826, 1.899)  # Table 1: cross-entropy, squentropy
    train_losses: tuple[float, float] = (1.805, 1.885)
    perplexities: tuple[float, float] = (3.8, 5.2)
    digits: float = 0.05  # to which these are rounded
    first_loss: float = 11.2  # of squentropy: figure 2
    evaluations: tuple[int, int] = (23, 40)  # points of figures 1 and 2
    best_lr: float = 6e-5  # section 2.7
    parameters: float = 127e6  # section 2.2
    hours: tuple[float, float, float] = (24, 4, 14 * 24)  # section 1.2, README, section 2.3
    scored_tokens: int = 10 * 4 * 256  # test_perplexity.py: batches, stories and tokens of each
    train_stories: int = 2_119_719  # of TinyStories
    train_tokens: float = 471.7e6  # of them, without end of text


class Row(NamedTuple):
    claim: str
    reported: Cell
    found: Cell
    holds: bool | None  # None: cannot be told
    how: str


def losses(said: Report) -> Iterator[Row]:
    """For each loss: could a run of it have begun, and ended, as the report's did?"""
    from nanosq import losses as functions

    settings = recompute.preset("paper_cross_entropy")
    n_classes, width = int(settings["data.tokenizer.pad_to"]), int(settings["model.n_embd"])
    for name, title in FIVE_LOSSES.items():
        loss = getattr(functions, name)
        first = recompute.initial_value(loss, n_classes=n_classes, width=width)
        least = recompute.floor(loss, n_classes=n_classes).value
        reached = said.train_losses[name != "cross_entropy"]
        yield Row(
            f"{title} begins where Figure 2 does",
            _quoted(said.first_loss),
            number(first),
            abs(first - said.first_loss) <= READ_OFF,
            f"pytest tests/analysis/audit/test_audit.py -k 'initial and {name}'",
        )
        yield Row(
            f"{title} can fall to the training loss in Table 1",
            _quoted(reached),
            number(least) if least > 1e-6 else Cell("0", least),
            least <= reached,
            f"pytest tests/test_losses.py -k 'floor and {name}'",
        )


def facts(said: Report) -> Iterator[Row]:
    """Those that need neither a text nor a run."""
    yield from _table_1(said)
    yield from _search(said)
    yield from _data(said)
    yield _read(
        "--loss_func=squentropy, in the code that the report links, trains",
        "squentropy",
        "cross-entropy",
        f"read in the source: model.py of {FORK}",
    )
    hours = [Cell(f"{hours:g} hours", hours) for hours in said.hours]
    yield Row(
        "Training takes as long as section 1.2 says",
        hours[0],
        Cell(", ".join(each.text for each in hours[1:])),
        len(set(said.hours)) == 1,
        f"read in the source, README.md of {ORIGINAL}, and in section 2.3",
    )


def _table_1(said: Report) -> Iterator[Row]:
    for name, loss, perplexity in zip(
        ("Cross-entropy", "Squentropy"), said.test_losses, said.perplexities, strict=True
    ):
        yield Row(
            f"{name}: the test perplexity is exp of the test loss",
            _quoted(perplexity),
            number(math.exp(loss)),
            abs(math.exp(loss) - perplexity) <= said.digits,
            f'python -c "from math import exp; print(exp({loss}))"',
        )
    loss, perplexity = said.test_losses[1], said.perplexities[1]
    penalty = loss - math.log(perplexity)
    yield Row(
        "Both test losses are in nats: nothing is added to squentropy's negative log-likelihood, log of its perplexity",
        _quoted(loss),
        Cell(f"{math.log(perplexity):.4g} + {penalty:.3g}", penalty),
        abs(penalty) <= said.digits / perplexity,
        f'python -c "from math import log; print({loss} - log({perplexity}))"',
    )
    yield _read(
        "Right panel of Figure 1", "test loss of cross-entropy", "test loss of squentropy", "read in the figures"
    )
    first, second = said.evaluations
    yield Row(
        "Both models were evaluated equally often while they trained",
        Cell(f"{first} times, cross-entropy", first),
        Cell(f"{second} times, squentropy", second),
        first == second,
        "read in the figures",
    )
    pair = [recompute.preset(name) for name in TABLE_1]
    differing = [key for key in pair[0] | pair[1] if pair[0].get(key) != pair[1].get(key) and key != "/loss"]
    yield Row(
        "The two columns of Table 1 differ in nothing but the loss",
        Cell("one has optimal hyperparameters"),
        Cell("; ".join(f"{key} {pair[0][key]:g} and {pair[1][key]:g}" for key in differing) or "the loss alone"),
        not differing,
        "diff conf/experiment/paper_cross_entropy.yaml conf/experiment/paper_squentropy.yaml",
    )
    yield _read(
        "The architecture is GPT-2's without modification: with biases",
        "bias: true",
        f"bias: {pair[0]['model.bias']}".lower(),
        "grep bias conf/experiment/paper_cross_entropy.yaml",
    )


def _search(said: Report) -> Iterator[Row]:
    settings, axes = recompute.preset("paper_grid"), recompute.grid()
    rates, (steps,) = axes["optimizer.lr"], axes["train.max_steps"]
    yield Row(
        "The best learning rate is one of those searched",
        _quoted(said.best_lr),
        Cell(", ".join(f"{rate:g}" for rate in rates)),
        any(math.isclose(said.best_lr, rate) for rate in rates),
        "grep optimizer.lr conf/hydra/sweeper/grid.yaml",
    )
    default = settings["optimizer.lr"] * settings["train.min_lr_factor"]
    yield Row(
        "It is nanoGPT's default min_lr, a tenth of the default learning rate",
        _quoted(said.best_lr),
        _quoted(default),
        math.isclose(said.best_lr, default),
        "grep lr conf/experiment/paper_cross_entropy.yaml",
    )
    factor, warmup = recompute.largest_lr_factor(settings, int(steps)), int(settings["train.warmup"])
    yield Row(
        f"A trial of {steps:g} iterations, in a warm-up of {warmup}, gets to the learning rate it is named after",
        Cell("100 %", 1.0),
        Cell(f"{100 * factor:.4g} %", factor),
        factor >= 1,
        'python -c "from nanosq.optim import cosine_from_zero as f; '
        f'print(f({steps - 1:g}, max_steps={steps:g}, warmup={warmup}, min_lr_factor=0.1))"',
    )
    tokens = recompute.tokens_per_step(settings)
    unknown = Cell("not given")
    how = 'python -c "print({})"'
    yield Row("Tokens an iteration", unknown, number(tokens), None, how.format("4 * 40 * 1024"))
    yield Row("Tokens a trial", unknown, number(tokens * steps), None, how.format(f"4 * 40 * 1024 * {steps:g}"))
    of_table_1 = {recompute.preset(name)["model.n_layer"] for name in TABLE_1}
    for n_layer in axes["model.n_layer"]:
        without, total = recompute.n_parameters(settings, int(n_layer))
        claimed = n_layer in of_table_1
        agrees = any(abs(n - said.parameters) <= 0.5e6 for n in (without, total))
        yield Row(
            f"Parameters with {n_layer:g} layers, without positions and with them",
            Cell(f"{said.parameters / 1e6:g}M", said.parameters) if claimed else unknown,
            Cell(f"{without / 1e6:.1f}M, {total / 1e6:.1f}M", without),
            agrees if claimed else None,
            COUNT.format(f"{n_layer:g}"),
        )


def _data(said: Report) -> Iterator[Row]:
    settings = recompute.preset("paper_cross_entropy")
    held_out = recompute.n_held_out(said.train_stories)
    yield Row(
        "Stories in the test set: 0.05 % of the training split, drawn with seed 2357",
        Cell("not given"),
        Cell(f"{held_out:,}", held_out),
        None,
        f'python -c "from nanosq.data.sources import report_rows as f; print(f({said.train_stories}).sum())"',
    )
    yield _read(
        "The models are scored on",
        "a test set",
        "the validation set that chose them",
        f"read in the source: data/TinyStories/prepare.py of {ORIGINAL}",
    )
    held_out_tokens = said.train_tokens * held_out / said.train_stories
    share = said.scored_tokens / held_out_tokens
    yield Row(
        "The perplexity script scores each story of the test set",
        Cell(f"about {round(held_out_tokens, -3):,.0f} tokens", held_out_tokens),
        Cell(f"{said.scored_tokens:,} random ones, {100 * share:.1f} %", said.scored_tokens),
        share >= 1,
        'python -c "print(10 * 4 * 256)"',
    )
    classes = int(settings["data.tokenizer.pad_to"])
    dead = classes - GPT2_SIZE
    yield Row(
        f"Each of the C = {classes:,} classes stands for a token, none for padding",
        Cell("0 of padding", 0),
        Cell(f"{dead} of padding", dead),
        dead == 0,
        f'python -c "from nanosq.data.bpe import GPT2_SIZE; print({classes} - GPT2_SIZE)"',
    )


def ids(stories: Path | None) -> Row:
    """ValueError where the file cannot be read."""
    n = recompute.n_ids_used(stories) if stories else None
    return Row(
        "Each of GPT-2's tokens occurs in TinyStories",
        Cell(f"{GPT2_SIZE:,}", GPT2_SIZE),
        Cell("not computed: give --stories FILE") if n is None else Cell(f"{n:,}", n),
        None if n is None else n == GPT2_SIZE,
        f"python -m analysis.audit --stories {stories or 'FILE'}",
    )


def _read(claim: str, reported: str, found: str, how: str) -> Row:
    return Row(claim, Cell(reported), Cell(found), reported == found, how)


def _quoted(value: float) -> Cell:  # with no more digits than were given
    return Cell(f"{value:g}", value)
