"""Deliver what a tracking store has not received, because it could not be reached when a run recorded it.

python -m nanosq.sync          what the runs in checkpoints/ have left
python -m nanosq.sync FOLDER   the runs in another folder, or in one of it
python -m nanosq.sync RUN_ID   one run
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq import command, terminal
from nanosq.errors import InputError
from nanosq.tracking.journal import PREFIX, Journal, left

if TYPE_CHECKING:
    from nanosq.tracking import Store

FOLDER = Path("checkpoints")  # as in conf/config.yaml
RUN_ID = re.compile("[0-9a-f]{32}")


def deliver(folder: Path, store: "Store") -> str:
    """Deliver a journal. Return the link to its run, or an empty text if another process has delivered it.

    Args:
        folder: Folder of the journal.
        store: Where to deliver it to.

    Raises:
        HeldError: The run is still training.
        ValueError: The store cannot be used.
    """
    from nanosq import checkpoint

    with checkpoint.exclusive(folder.parent):
        return store.deliver(Journal(folder)) if folder.exists() else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Deliver journals, and print the links to their runs."""

    def work() -> None:
        parser = terminal.parser("nanosq.sync", __doc__, "[FOLDER|RUN_ID]")
        help = "default: %(default)s"
        parser.add_argument("origin", nargs="?", default=str(FOLDER), metavar="FOLDER|RUN_ID", help=help)
        parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's store or server; default: that of the run")
        options = parser.parse_args(arguments)
        journals = _find(options.origin)
        for journal in journals:
            if link := deliver(journal.folder, _store(journal, options.tracking_uri)):
                print(f"{journal.start['name']}: {link}")
        if not journals:
            print(f"the runs in {options.origin} have left nothing to deliver")

    return command.run(work)


def _find(origin: str) -> list[Journal]:
    """Return the journals in a folder, or of a run, the oldest first."""
    is_run = bool(RUN_ID.fullmatch(origin))
    folder = FOLDER if is_run else Path(origin)
    if not folder.is_dir() and folder != FOLDER:
        raise InputError(f"there is no folder {folder}: give a folder of checkpoints, or the id of a run")
    journals = [Journal(folder)] if folder.name.startswith(PREFIX) else left(folder)
    return [journal for journal in journals if not is_run or journal.delivered.run_id == origin]


def _store(journal: Journal, uri: str | None) -> "Store":
    """Return the store of a run. A journal has its address without passwords: these must be known here.

    Raises:
        ValueError: They are not.
    """
    from nanosq.privacy import mask
    from nanosq.tracking.location import default_uri
    from nanosq.tracking.mlflow_store import MLflowStore

    start = journal.start
    known = (uri, default_uri(), start["uri"] if "***" not in start["uri"] else None)
    chosen = uri or next((each for each in known if each and mask(each) == start["uri"]), None)
    if chosen is None:
        raise InputError(f"the password of {start['uri']} is not known: set MLFLOW_TRACKING_URI, or --tracking-uri")
    return MLflowStore(uri=chosen, experiment=start["experiment"])


if __name__ == "__main__":
    sys.exit(main())
