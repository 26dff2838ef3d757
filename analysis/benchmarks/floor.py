"""Check from outside that the floor of data=stories is the entropy of its text.

Counting: some parts of a story are written in the same way in every story. The entropy of their counts, with Miller's
correction for what a sample misses (1955), must agree with the exact entropy, and the chi-square of the counts with the
exact probabilities. Compression: no compressor needs less than the floor, except by luck of the sample, whose standard
error is printed. `val/excess_nll` of a run is the same check for a model. The exit status is 1 if a check fails.

python -m analysis.benchmarks.floor                        60,000 stories, 10 million tokens of GPT-2
python -m analysis.benchmarks.floor --seed 3               other stories
"""

import argparse
import bz2
import lzma
import math
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from tqdm import tqdm

from analysis.benchmarks.lib.measure import show
from nanosq import command, option, terminal
from nanosq.data import stories, tokenizers

RULES = yaml.safe_load(Path(stories.__file__).with_name("stories.yaml").read_text(encoding="utf-8"))
LIMIT = 4.0  # standard errors within which a difference counts as luck


def any_text(rule: str) -> str:
    """Return a pattern that matches every text of a rule."""
    return "|".join(re.escape(entry["text"] if isinstance(entry, dict) else entry) for entry in RULES[rule])


NAMES = f"{any_text('girls')}|{any_text('boys')}"
OPENING = [re.compile(pattern) for pattern in (rf"\b({NAMES})\b", rf"\b({any_text('traits')})\b", any_text("homes"))]
FRIEND = re.compile(rf"\b(?:her|his) friend ({NAMES})\b")
DAY = re.compile(
    r"\bOne (?:sunny|warm|bright|windy|fine|quiet|lovely|cool) (?:morning|day|afternoon|Sunday|Monday|Friday)\b"
)


def opening(text: str) -> list[str]:
    """Return hero, trait and home as the first paragraph names them."""
    paragraph = text.split("\n\n")[0]
    return [match[0] for pattern in OPENING if (match := pattern.search(paragraph))]


def hero_and_friend(text: str) -> list[str]:
    """Return the names of the hero and the friend; nothing in a story without a friend."""
    friend = FRIEND.search(text)
    return [opening(text)[0], friend[1]] if friend else []


# A template of the grammar, and a function that finds in a story the words with which the template was filled.
PARTS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "hero, trait and home": ("{a_child}, {traits}, {homes}", opening),
    "hero and friend": ("{a_child}, {a_friend}", hero_and_friend),
    "the day": ("{one_day}", DAY.findall),
}


class PartEntropy(NamedTuple):
    """The entropy of a part in nats, exact and estimated from its counts."""

    counted: int
    different: int
    exact: float
    estimate: float
    error: float  # standard error of the estimate
    chi_square: float  # in standard deviations from its mean: 0 +- 1 if the counts follow the probabilities

    @property
    def agrees(self) -> bool:
        """True if the counts follow the exact probabilities."""
        return abs(self.estimate - self.exact) < LIMIT * self.error and abs(self.chi_square) < LIMIT


def part_entropy(template: str, find: Callable[[str], Sequence[str]], texts: list[str]) -> PartEntropy:
    """Count what a template wrote; ValueError if the grammar cannot have written it, or if too much is missing."""
    grammar = stories.Grammar({**RULES, stories.START: [template]})
    counts = Counter(", ".join(words) for text in texts if (words := find(text)))
    logs = {text: grammar.log_probability(text) for text in counts}
    seen = math.fsum(map(math.exp, logs.values()))
    if abs(seen - 1) > 1e-9:
        raise ValueError(
            f"{template}: the texts that were found have probability {seen:.6f}, not 1; give more --stories"
        )
    n, k = counts.total(), len(counts)
    exact = -math.fsum(math.exp(log) * log for log in logs.values())
    spread = math.fsum(math.exp(log) * (log + exact) ** 2 for log in logs.values())
    expected = {text: n * math.exp(log) for text, log in logs.items()}
    chi_square = math.fsum((count - expected[text]) ** 2 / expected[text] for text, count in counts.items())
    variance = 2 * (k - 1) + (math.fsum(math.exp(-log) for log in logs.values()) - k * k - 2 * k + 2) / n
    return PartEntropy(
        counted=n,
        different=k,
        exact=exact,
        estimate=-math.fsum(c / n * math.log(c / n) for c in counts.values()) + (k - 1) / (2 * n),
        error=math.sqrt(spread / n + (k - 1) / (2 * n * n)),  # only the second term is left for equal probabilities
        chi_square=(chi_square - (k - 1)) / math.sqrt(variance),
    )


def compressed_bits(texts: list[str]) -> dict[str, int]:
    """Return the compressed size of all texts together, with an end of text after each."""
    data = "\0".join([*texts, ""]).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 27}]
    xz = lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    return {"bz2 -9": 8 * len(bz2.compress(data, 9)), "xz -9e": 8 * len(xz)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = terminal.parser("analysis.benchmarks.floor", __doc__)
    parser.add_argument(
        "--stories", type=option.integer(2), default=60_000, help="number of stories; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=option.SEED, default=2, help="of the stories; default: %(default)s, training takes 0"
    )
    return command.run(lambda: work(parser.parse_args(arguments)))


def work(options: argparse.Namespace) -> int:
    """Print the checks; return 1 if one fails."""
    generated = stories.stories("train", n_train=options.stories, seed=options.seed)
    documents = list(tqdm(generated, total=options.stories, desc="stories", leave=False))
    texts = [document.text for document in documents]
    n_tokens = sum(len(ids) + 1 for ids in tokenizers.gpt2().encode(texts))
    print(f"{len(texts):,} stories, {n_tokens:,} tokens\n\nentropy in nats")
    parts = {name: part_entropy(*part, texts) for name, part in PARTS.items()}
    checks = [part.agrees for part in parts.values()]
    table = pd.DataFrame(parts.values(), index=pd.Index(parts), columns=PartEntropy._fields).assign(agrees=checks)
    show(table, {"exact": ".4f", "estimate": ".4f", "error": ".4f", "chi_square": ".2f"})

    n_bytes = sum(len(text.encode()) for text in texts)
    bits = [-document.log_probability / math.log(2) for document in documents]
    floor, error = sum(bits) / n_bytes, statistics.stdev(bits) * math.sqrt(len(bits)) / n_bytes
    print(f"bits per byte\nfloor   {floor:.4f} +- {error:.4f}")
    for name, size in compressed_bits(texts).items():
        checks.append(size / n_bytes > floor - LIMIT * error)
        print(f"{name:7} {size / n_bytes:.4f}  {'above the floor' if checks[-1] else 'BELOW THE FLOOR'}")
    return int(not all(checks))


if __name__ == "__main__":
    sys.exit(main())
