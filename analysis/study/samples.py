"""Let the final models of the primary text write, for fixed prompts. The first text of each is shown, unpicked.

python -m analysis.study.samples      read the runs in results/ and their weights in text/, write results/samples.csv
"""

import sys
from collections.abc import Sequence

from analysis.study import results
from nanosq import command, terminal

PROMPTS = (
    "Once upon a time, there was a little girl named Lily.",
    "One day, a dog and a cat",
    "Tom was very sad because",
)
SEED = 1  # of the training run and of the drawing
LENGTH = 100  # tokens


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the texts and return the exit status."""
    parser = terminal.parser("analysis.study.samples", __doc__)
    parser.parse_args(arguments)
    return command.run(write)


def write() -> None:
    """Write results/samples.csv: a row for each arm and prompt."""
    import pandas as pd

    from nanosq.generation import generate, prepare
    from nanosq.hardware import Hardware

    hardware = Hardware.pick(device="cpu", precision="fp32", compile=False)
    rows = []
    for arm, frame in results.finals(results.PRIMARY).items():
        (run_id,) = frame[frame["seed"] == SEED]["run_id"]
        trained = command.load(run_id, results.store(results.PRIMARY))
        model = prepare(trained.build(), hardware)
        for prompt in PROMPTS:
            (text,) = generate(model, trained.tokenizer, prompt=prompt, length=LENGTH, seed=SEED)
            rows.append({"arm": arm, "run_id": run_id, "prompt": prompt, "text": text})
    pd.DataFrame(rows).to_csv(results.FOLDER / "samples.csv", index=False)


if __name__ == "__main__":
    sys.exit(main())
