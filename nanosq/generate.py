"""Let a model write texts.

python -m nanosq.generate MODEL --prompt "Once upon a time" --num 3
python -m nanosq.generate MODEL --temperature 0.7 --top-k 200 --top-p 0.95
python -m nanosq.generate --compare RUN_A RUN_B --prompt "One day"

Without a prompt, the model begins a story. On a terminal the first text appears while the model writes it. --compare
shows the texts of two models side by side. Text number i depends on the seed and on i, not on --num.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nanosq import command, option, terminal
from nanosq.typesetting import NARROW, WordWrap, side_by_side, wrap

if TYPE_CHECKING:
    from nanosq.data.tokenizers import Tokenizer
    from nanosq.model import GPT
    from nanosq.settings import SampleSettings

SEPARATOR = "\n\n---\n\n"  # between texts
NAMES = {"count": "--num", "length": "--max-new-tokens"}  # of settings, where they differ from those of the options


def parser() -> option.Parser:
    """Return the parser of the command."""
    result = command.parser("nanosq.generate", __doc__, "MODEL | --compare MODEL MODEL", nargs="+")
    result.add_argument("--compare", action="store_true", help="show the texts of two MODELs side by side")
    prompt = "beginning of the texts; repeat it for several beginnings"
    result.add_argument("--prompt", action="append", type=option.text, help=prompt)
    result.add_argument(
        "--num", type=option.integer(1, 10_000), default=1, help="texts for each prompt; default: %(default)s"
    )
    result.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="default: %(default)s")
    result.add_argument("--temperature", type=float, default=0.8, help="0: the most likely token; default: %(default)s")
    result.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely tokens")
    result.add_argument("--top-p", type=float, metavar="P", help="from those that together have probability P")
    result.add_argument("--seed", type=option.SEED, default=0, help="default: %(default)s")
    result.add_argument("--device", default="auto", help="cpu, cuda, mps; default: a GPU if there is one")
    result.add_argument(
        "--precision", choices=command.PRECISIONS, default="fp32", help="bf16 is faster, but rounds differently"
    )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Print texts of a model, or of two models side by side."""
    return command.run(lambda: _work(parser().parse_intermixed_args(arguments)))  # also MODEL --compare MODEL


def _work(options: argparse.Namespace) -> None:
    from nanosq.settings import SampleSettings

    if len(options.model) != 1 + options.compare:
        raise ValueError("--compare takes two models" if options.compare else "give one model, or two with --compare")
    settings = [
        SampleSettings(
            count=options.num,
            length=options.max_new_tokens,
            temperature=options.temperature,
            prompt=prompt,
            top_k=options.top_k,
            top_p=options.top_p,
        )
        for prompt in options.prompt or [""]
    ]
    settings[0].check(lambda key: NAMES.get(key, f"--{key.replace('_', '-')}"))
    from nanosq import threads
    from nanosq.generation import prepare
    from nanosq.hardware import Hardware

    threads.use(None)
    hardware = Hardware.pick(device=options.device, precision=options.precision, compile=False)
    writers = []
    for name in options.model:
        trained = command.load(name, options.tracking_uri)
        model = prepare(trained.build(), hardware)
        writers.append(_Writer(model, trained.tokenizer, options.seed))
        longest = max(len(ids) for ids in trained.tokenizer.encode([each.prompt for each in settings]))
        if longest >= model.block_size:  # the end of text comes before the prompt
            print(f"note: of a prompt of {longest:,} tokens, {name} sees only the end", file=sys.stderr)
    with hardware.waiting():
        if options.compare:
            _compare(options.model, writers, settings)
        else:
            _print(writers[0], settings)


@dataclass(frozen=True)
class _Writer:
    """A model that writes texts."""

    model: "GPT"
    tokenizer: "Tokenizer"
    seed: int

    def write(self, settings: "SampleSettings", listen: Callable[[str], object] | None = None) -> list[str]:
        """Return texts. `listen` receives the first one in pieces, as they come; without it, a bar shows progress."""
        from tqdm import tqdm

        from nanosq.generation import stream

        pieces = stream(self.model, self.tokenizer, settings, seed=self.seed)
        is_hidden = listen is not None or not sys.stderr.isatty()
        texts = [""] * settings.count
        for new in tqdm(pieces, total=settings.length + 2, unit="token", leave=False, disable=is_hidden):
            texts = [text + piece for text, piece in zip(texts, new, strict=True)]
            if listen and new:
                listen(new[0])
        return texts


def _print(writer: _Writer, settings: "Sequence[SampleSettings]") -> None:
    """Print the texts of all prompts, the first one of each as it comes if this is a terminal."""
    if not sys.stdout.isatty():
        print(SEPARATOR.join(text for each in settings for text in writer.write(each)))
        return
    lines = WordWrap(terminal.width(), partial(print, end="", flush=True))
    try:
        for number, each in enumerate(settings):
            lines.add(SEPARATOR if number else "")
            _, *others = writer.write(each, lines.add) or [""]
            lines.add("".join(SEPARATOR + text for text in others))
    finally:
        lines.end()
        print()


def _compare(names: Sequence[str], writers: "Sequence[_Writer]", settings: "Sequence[SampleSettings]") -> None:
    """Print the texts of models side by side, or one below the other on a narrow terminal."""
    columns, separator = terminal.width(), ""
    if columns >= NARROW:
        print(f"{side_by_side(names, columns)}\n")
    for each in settings:
        for texts in zip(*(writer.write(each) for writer in writers), strict=True):
            if columns >= NARROW:
                block = side_by_side(texts, columns)
            else:
                below = (f"{name}:\n{text}" for name, text in zip(names, texts, strict=True))
                block = "\n".join(wrap("\n\n".join(below), columns))
            print(separator + block, flush=True)
            separator = SEPARATOR[1:]  # `print` has begun a line


if __name__ == "__main__":
    sys.exit(main())
