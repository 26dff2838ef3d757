"""Is the floor of data=stories the entropy of its text? Checked from outside, on text alone.

python -m analysis.benchmarks.floor                        60,000 stories, 10 million tokens of GPT-2
python -m analysis.benchmarks.floor --checkpoint best.pt   also with a model, trained on data=stories

Counting: parts of a story that are written in the same way in each; the entropy of their counts, with Miller's
correction for what a sample misses (1955), beside the exact one, and the chi-square of the counts against the exact
probabilities. Compressing: no compressor and no model can need less than the floor, but for the luck of the sample,
whose standard error stands beside it.
"""

import argparse
import bz2
import lzma
import math
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch.nn import functional as F
from tqdm import tqdm

from nanosq import generate
from nanosq.data import stories, tokenizers
from nanosq.data.sources import Document

RULES = yaml.safe_load(Path(stories.__file__).with_name("stories.yaml").read_text(encoding="utf-8"))
LIMIT = 4.0  # standard errors that are taken for luck


def _any(rule: str) -> str:
    """A pattern of all texts of a rule."""
    return "|".join(re.escape(each["text"] if isinstance(each, dict) else each) for each in RULES[rule])


NAME = f"{_any('girls')}|{_any('boys')}"
HERO = re.compile(rf"\b({NAME})\b")
TRAIT = re.compile(rf"\b({_any('traits')})\b")
HOME = re.compile(_any("homes"))
FRIEND = re.compile(rf"\b(?:her|his) friend ({NAME})\b")
DAY = re.compile(
    r"\bOne (?:sunny|warm|bright|windy|fine|quiet|lovely|cool) (?:morning|day|afternoon|Sunday|Monday|Friday)\b"
)


def _hero(text: str) -> list[str]:
    opening = text.split("\n\n")[0]
    return [found[0] for pattern in (HERO, TRAIT, HOME) if (found := pattern.search(opening))]


def _friend(text: str) -> list[str]:
    friend = FRIEND.search(text)
    return [_hero(text)[0], friend[1]] if friend else []


def _day(text: str) -> list[str]:
    day = DAY.search(text)
    return [day[0]] if day else []


# What is counted: a template of the grammar, and a function that finds in a story what the template writes, if it is
# there, as the words that the template's blanks stand between.
PARTS: dict[str, tuple[str, Callable[[str], list[str]]]] = {
    "hero, trait and home": ("{a_child}, {traits}, {homes}", _hero),
    "hero and friend": ("{a_child}, {a_friend}", _friend),
    "the day": ("{one_day}", _day),
}


class Counted(NamedTuple):
    n: int
    n_different: int
    exact: float  # nats
    estimate: float
    error: float  # standard error of the estimate
    chi_square: float  # in standard deviations from its mean: 0 +- 1 where the counts follow the probabilities


def count(template: str, find: Callable[[str], list[str]], texts: list[str]) -> Counted:
    """ValueError where the stories have something that the template cannot write, or lack much of what it can."""
    grammar = stories.Grammar({**RULES, stories.START: [template]})
    counts = Counter(", ".join(found) for text in texts if (found := find(text)))
    n = counts.total()
    logs = {text: grammar.log_probability(text) for text in counts}
    seen = math.fsum(map(math.exp, logs.values()))
    if abs(seen - 1) > 1e-9:
        raise ValueError(f"{template}: what was seen has probability {seen}, not 1")
    exact = -math.fsum(math.exp(log) * log for log in logs.values())
    spread = math.fsum(math.exp(log) * (log + exact) ** 2 for log in logs.values())
    chi_square = math.fsum(
        (c - n * math.exp(logs[text])) ** 2 / (n * math.exp(logs[text])) for text, c in counts.items()
    )
    k = len(counts)
    variance = 2 * (k - 1) + (math.fsum(math.exp(-log) for log in logs.values()) - k * k - 2 * k + 2) / n
    return Counted(
        n=n,
        n_different=k,
        exact=exact,
        estimate=-math.fsum(c / n * math.log(c / n) for c in counts.values()) + (k - 1) / (2 * n),
        error=math.sqrt(spread / n + (k - 1) / (2 * n * n)),  # the second term is all there is where p is even
        chi_square=(chi_square - (k - 1)) / math.sqrt(variance),
    )


def compressed_bits(texts: list[str]) -> dict[str, float]:
    """Of all texts together, an end of text after each."""
    data = "\0".join([*texts, ""]).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 27}]
    return {
        "bz2 -9": 8.0 * len(bz2.compress(data, 9)),
        "xz -9e": 8.0 * len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters)),
    }


@torch.inference_mode()
def excess_of_model(checkpoint: str, documents: list[Document]) -> list[float]:
    """Nats of each story, its end of text included, beyond its floor."""
    model, tokenizer = generate.load(checkpoint)
    excess = []
    for document in tqdm(documents, desc="model", unit="story"):
        ids = [tokenizer.end_of_text, *tokenizer.encode([document.text])[0].tolist(), tokenizer.end_of_text]
        if len(ids) > model.block_size + 1:
            continue
        tokens = torch.tensor(ids)
        logits = model(tokens[None, :-1])[0] @ model.head_weight.T
        excess.append(float(F.cross_entropy(logits.double(), tokens[1:], reduction="sum")) + document.log_probability)
    return excess


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=60_000)
    parser.add_argument("--checkpoint", help="best.pt of a run")
    parser.add_argument("--scored", type=int, default=500, help="stories that the model is scored on")
    parser.add_argument("--seed", type=int, default=2, help="of the stories; training takes 0")
    arguments = parser.parse_args()
    failed = 0

    generated = stories.stories("train", n_train=arguments.stories, seed=arguments.seed)
    documents = list(tqdm(generated, total=arguments.stories, desc="stories", leave=False))
    texts = [document.text for document in documents]
    n_tokens = sum(len(ids) + 1 for ids in tokenizers.gpt2().encode(texts))
    print(f"{len(texts):,} stories, {n_tokens:,} tokens\n")
    print(f"{'':22}{'counted':>9}{'different':>11}{'exact nats':>12}{'estimate':>10}{'+-':>8}{'chi-square':>12}")
    for name, (template, find) in PARTS.items():
        counted = count(template, find, texts)
        ok = abs(counted.estimate - counted.exact) < LIMIT * counted.error and abs(counted.chi_square) < LIMIT
        failed += not ok
        print(
            f"{name:22}{counted.n:9,}{counted.n_different:11,}{counted.exact:12.4f}{counted.estimate:10.4f}"
            f"{counted.error:8.4f}{counted.chi_square:12.2f}  {'ok' if ok else 'DIFFERS'}"
        )

    n_bytes = sum(len(text.encode()) for text in texts)
    bits = [-document.log_probability / math.log(2) for document in documents]
    floor, error = sum(bits) / n_bytes, statistics.stdev(bits) * math.sqrt(len(bits)) / n_bytes
    print(f"\n{'bits per byte':22}{'':>9}\n{'floor':22}{floor:9.4f} +- {error:.4f}")
    for name, total in compressed_bits(texts).items():
        ok = total / n_bytes > floor - LIMIT * error
        failed += not ok
        print(f"{name:22}{total / n_bytes:9.4f}  {'ok' if ok else 'BELOW THE FLOOR'}")
    if arguments.checkpoint:
        excess = excess_of_model(arguments.checkpoint, documents[: arguments.scored])
        mean, error = statistics.mean(excess), statistics.stdev(excess) / math.sqrt(len(excess))
        failed += mean < -LIMIT * error
        print(f"\nmodel: {mean:.2f} +- {error:.2f} nats a story above the floor, {len(excess)} stories")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
