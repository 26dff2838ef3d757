"""Write a model in Hugging Face's format, for transformers and other programs.

python -m nanosq.export RUN_ID OUT
"""

import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nanosq import command, option
from nanosq.filesystem import check_creatable, file_digest
from nanosq.installation import program

if TYPE_CHECKING:
    from nanosq.pretrained import Pretrained
    from nanosq.tracking import Store


def main(arguments: list[str] | None = None) -> int:
    """Export a model."""
    parser = command.parser("nanosq.export", __doc__, "MODEL OUT")
    parser.add_argument("out", metavar="OUT", type=option.name, help="folder to create")

    def work() -> None:
        options = parser.parse_args(arguments)
        out = Path(options.out)
        check_new(out)
        from nanosq import pretrained
        from nanosq.tracking.mlflow_store import MLflowStore

        store = MLflowStore(uri=options.tracking_uri)
        trained = pretrained.load(options.model, store)
        export(trained, out, card_of(options.model, trained, store))
        files = sorted(out.iterdir())
        width = max(len(path.name) for path in files)
        print(f"{out}:")
        for path in files:
            print(f"  {path.name:{width}}  {path.stat().st_size:>13,} bytes")
        print(f"next: {program('nanosq.generate')} {out}")

    return command.run(work)


def check_new(out: Path) -> None:
    """Raise a ValueError if a path exists and is not an empty folder, or if no folder can be created there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"{out} exists already: name a new folder")
    check_creatable(out)


def card_of(name: str, trained: "Pretrained", store: "Store") -> str:
    """Return the model card of the model with this name. The metrics and the command are those that its run has."""
    from nanosq.checkpoint import RUN_ID
    from nanosq.huggingface.card import card

    is_run = RUN_ID.fullmatch(name) and not Path(name).exists()
    run_id = name if is_run else _run_of(trained, store)
    tags, metrics = store.facts(run_id) if run_id else ({}, {})
    return card(trained, tags, metrics)


def _run_of(trained: "Pretrained", store: "Store") -> str:
    """Return the id of the run that has kept a file as its best.pt, or an empty text.

    Other files of a run, as the state of its last step, have other weights than those that its metrics are of.
    """
    run_id = str(trained.facts.get("run_id") or "")
    with suppress(ValueError):  # the run is in another store, or has kept nothing
        if run_id and file_digest(store.checkpoint(run_id, "best.pt")) == file_digest(trained.path):
            return run_id
    return ""


def export(trained: "Pretrained", out: Path, card: str) -> None:
    """Write a folder in Hugging Face's format: completely, or not at all.

    An empty folder stays the same one, because it may be the working directory or the place of a volume.

    Args:
        trained: The model.
        out: The folder, which does not exist or is empty.
        card: Text of the model card.

    Raises:
        ValueError: `out` has files or cannot be written, the weights do not fit the architecture, or the tokenizer has
            no counterpart.
    """
    from nanosq.huggingface import folder, tokenizer

    check_new(out)
    state = trained.build().state_dict()
    place = out.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{place.name}.", dir=place if place.is_dir() else place.parent) as temporary:
            partial = Path(temporary, place.name)
            partial.mkdir()
            end, precision = trained.tokenizer.end_of_text, trained.facts.get("precision")
            folder.write(partial, trained.architecture, state, end_of_text=end, precision=precision)
            size = trained.architecture["block_size"]
            tokenizer.write(partial, trained.tokenizer, block_size=size, origin=trained.path)
            (partial / "README.md").write_text(card, encoding="utf-8")
            if not place.is_dir():
                partial.replace(place)
                return
            for file in sorted(partial.iterdir(), key=lambda file: file.name == folder.CONFIG):
                file.replace(place / file.name)  # config.json is the last one: without it there is no model
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
