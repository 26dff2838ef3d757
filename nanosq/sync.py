"""Deliver what a tracking store has not received, because it could not be reached when a run recorded it.

python -m nanosq.sync          what the runs in checkpoints/ have left
python -m nanosq.sync FOLDER   the runs in another folder, or in one of it
python -m nanosq.sync RUN_ID   one run

A run that is still training delivers its own. The exit status is 3 if anything else could not be delivered.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq import command, option, terminal
from nanosq.error_reports import report
from nanosq.errors import FileError, InputError
from nanosq.tracking.journal import Journal, undelivered

if TYPE_CHECKING:
    from nanosq.tracking import Store

FOLDER = Path("checkpoints")  # as in conf/config.yaml
RUN_ID = re.compile("[0-9a-f]{32}")
NOT_DELIVERED = 3  # exit status, as of a run that is not recorded completely


@dataclass(frozen=True)
class Outcome:
    """The result of delivering one journal."""

    journal: Journal
    link: str = ""  # to its run; empty if another process has delivered it, or there is an error
    error: Exception | None = None
    is_held: bool = False  # another process uses it, and delivers it


def deliver(journals: Sequence[Journal], store: "Store") -> Iterator[Outcome]:
    """Deliver journals to a store. A store that cannot be used costs its time limit once."""
    from nanosq import checkpoint

    try:
        store.check()
    except ValueError as error:
        yield from (Outcome(journal, error=error) for journal in journals)
        return
    for journal in journals:
        try:
            with checkpoint.exclusive(journal.folder.resolve().parent):
                # Read again: another process may have held it until now.
                link = store.deliver(Journal(journal.folder)) if journal.folder.exists() else ""
            yield Outcome(journal, link)
        except checkpoint.HeldError:
            yield Outcome(journal, is_held=True)
        except (ValueError, FileError) as error:
            yield Outcome(journal, error=error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Deliver journals, and print the links to their runs."""

    def work() -> int:
        parser = terminal.parser("nanosq.sync", __doc__, "[FOLDER|RUN_ID]")
        help = "default: %(default)s"
        parser.add_argument(
            "origin", nargs="?", type=option.name, default=str(FOLDER), metavar="FOLDER|RUN_ID", help=help
        )
        command.add_tracking_uri(parser, default="that of the run")
        options = parser.parse_args(arguments)
        journals = _find(options.origin)
        if not journals:
            print(f"the runs in {options.origin} have left nothing to deliver")
        failures: dict[str, list[str]] = {}  # names of runs by the message
        for outcome in _deliver_all(journals, options.tracking_uri):
            name = outcome.journal.start["name"]
            if outcome.error is not None:
                failures.setdefault(str(outcome.error), []).append(name)
            elif outcome.is_held:
                print(f"{name} is still training")
            elif outcome.link:
                print(f"{name}: {outcome.link}")
        for message, (name, *others) in failures.items():
            runs = f"{name} and {len(others)} more" if others else name
            report(InputError(f"{runs} not delivered: {message}"))
        return NOT_DELIVERED if failures else 0

    return command.run(work)


def _find(origin: str) -> list[Journal]:
    """Return the journals in a folder, or of a run, the oldest first."""
    is_run = bool(RUN_ID.fullmatch(origin))
    folder = FOLDER if is_run else Path(origin)
    if not folder.is_dir() and folder != FOLDER:
        raise InputError(f"there is no folder {folder}: give a folder of checkpoints, or the id of a run")
    return [journal for journal in undelivered(folder) if not is_run or journal.delivered.run_id == origin]


def _deliver_all(journals: Sequence[Journal], uri: str | None) -> Iterator[Outcome]:
    """Deliver journals to their stores, or to that at a tracking URI."""

    def place(journal: Journal) -> tuple[str, str]:
        return journal.address, journal.start["experiment"]

    for (address, experiment), group in groupby(sorted(journals, key=place), place):
        same_store = list(group)
        try:
            store = _store(address, experiment, uri)
        except ValueError as error:
            yield from (Outcome(journal, error=error) for journal in same_store)
        else:
            yield from deliver(same_store, store)


def _store(address: str, experiment: str, uri: str | None) -> "Store":
    """Return the store at an address of journals. It has no passwords: these must be known here.

    Raises:
        ValueError: They are not.
    """
    from nanosq.tracking.location import address as address_of
    from nanosq.tracking.location import default_uri
    from nanosq.tracking.mlflow_store import MLflowStore

    if uri is None and "***" in address:
        uri = default_uri()
        if address_of(uri) != address:
            raise InputError(f"the password of {address} is not known: set MLFLOW_TRACKING_URI, or --tracking-uri")
    return MLflowStore(uri=uri or address, experiment=experiment)


if __name__ == "__main__":
    sys.exit(main())
