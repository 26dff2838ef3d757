"""Compare a loss with itself many times, and count how often the verdict is that no difference was found.

python -m tests.stress.same_contenders                  20 comparisons (10 to 25 minutes)
python -m tests.stress.same_contenders --comparisons 2

Each comparison has other seeds, and four contenders that are the same loss:

- cross_entropy: the loss of nanosq.
- again: the same function under another name. The settings are the same, so the difference must be exactly 0.
- float64: the same loss in double precision. Other rounding errors grow during training, so the models differ.
- lucky: the same loss, tuned together with a setting that has no effect. The sampler draws other values for it, so
  another setting may be chosen. This difference is one of the models, and is no error of the verdict.
"""

import argparse
import csv
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.commandline import command

FILES = {
    "conf/loss/again.yaml": "_target_: nanosq.losses.cross_entropy\n_partial_: true\n",
    "conf/loss/float64.yaml": "_target_: precise.cross_entropy\n_partial_: true\n",
    "conf/loss/lucky.yaml": "_target_: nanosq.losses.cross_entropy\n_partial_: true\n",
    "conf/hydra/sweeper/spaces/lucky.yaml": 'loss/lucky: {samples.temperature: "interval(0.5, 1)"}\n',
    "precise.py": """
import torch.nn.functional as F

def cross_entropy(logits_NV, targets_N):
    return F.cross_entropy(logits_NV.double(), targets_N, reduction="none").float()
""",
}
COMPARISON = [
    *["--config-dir", "conf", "-m", "hydra/sweeper=compare", "loss=cross_entropy,again,float64,lucky"],
    *["hydra/sweeper/spaces=lucky", "hydra.sweeper.sampler.n_startup_trials=1", "hydra.sweeper.n_trials=2"],
    *["hydra.sweeper.seeds=3", "hydra.sweeper.tune_steps=32", "train.max_steps=60", "train.eval_every=30"],
    *["data.source.n_train=400", "data.source.n_val=20", "data.source.n_test=40", "device=cpu", "samples.count=0"],
    *["model.n_layer=1", "model.n_embd=32", "model.n_head=1", "model.block_size=64"],
]
NONE = "no difference found"


def compare(folder: Path, number: int) -> dict[str, dict[str, str]]:
    """Run a comparison. Return the rows of its table of pairs with cross_entropy, by the other contender."""
    seeds = [f"seed={100 * number}", f"hydra.sweeper.sampler.seed={number}"]
    command(*COMPARISON, *seeds, f"hydra.sweeper.study_name=same-{number}", cwd=folder, check=True)
    with (folder / f"sweeps/same-{number}/comparison-pairs.csv").open(encoding="utf-8") as file:
        return {row["second"]: row for row in csv.DictReader(file) if row["first"] == "cross_entropy"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=20, help="number of comparisons (default: 20)")
    n_comparisons = parser.parse_args().comparisons
    folder = Path(tempfile.mkdtemp(prefix="nanosq-"))
    print(folder)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    same: Counter[str] = Counter()
    for number in range(1, n_comparisons + 1):
        begin = time.monotonic()
        pairs = compare(folder, number)
        print(f"comparison {number}, {time.monotonic() - begin:.0f} s", flush=True)
        for contender, row in pairs.items():
            low, high = map(float, row["95 % interval"].split(" to "))
            same[contender] += row["better"] == NONE
            print(
                f"  {contender}: {float(row['difference, nats/token']):.2g} ({low:.2g} to {high:.2g}), {row['better']}"
            )
        assert float(pairs["again"]["difference, nats/token"]) == 0, pairs["again"]
    for contender, count in same.items():
        print(f"{contender}: {NONE} in {count} of {n_comparisons} comparisons")
    assert same["again"] == n_comparisons
    assert same["float64"] >= 0.9 * n_comparisons


if __name__ == "__main__":
    main()
