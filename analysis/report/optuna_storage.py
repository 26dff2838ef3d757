"""Optuna's storage, which is read and never created, and the comparisons whose studies it holds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nanosq.privacy import mask

if TYPE_CHECKING:
    import optuna
    from optuna.study import StudySummary

COMPARISON = "comparison"  # attribute of the study of a contender; nanosq/sweeps/attributes.py has the same name
TIMEOUT = 20  # seconds to wait for a database that does not answer or is locked


class NoStudy(Exception):  # noqa: N818  (nothing is wrong: there was no search yet)
    """There is no study to show. The message says why."""


def comparisons(summaries: "Sequence[StudySummary]") -> "dict[str, list[StudySummary]]":
    """Return the studies of the contenders of each comparison, by the name of the comparison and in their order."""
    result: dict[str, list[StudySummary]] = {}
    contenders = [summary for summary in summaries if COMPARISON in summary.user_attrs]
    for summary in sorted(contenders, key=lambda summary: summary.user_attrs[COMPARISON]["position"]):
        result.setdefault(summary.user_attrs[COMPARISON]["name"], []).append(summary)
    return result


@contextmanager
def opened(url: str) -> "Iterator[tuple[optuna.storages.RDBStorage, list[StudySummary]]]":
    """Open a storage to read it, and list its studies.

    Raises:
        NoStudy: The storage cannot be read, also within the context.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _open(url)
        yield storage, optuna.get_all_study_summaries(storage, include_best_trial=False)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError, ImportError) as error:
        # There is no server or driver, the file is no database, or another version of Optuna wrote the tables.
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        raise NoStudy(f"The studies in {mask(url)} cannot be read ({reason}).") from error


def _open(url: str) -> "optuna.storages.RDBStorage":
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, inspect, make_url

    kind, database = make_url(url).get_backend_name(), make_url(url).database
    if kind == "sqlite" and not (database and Path(database).is_file()):
        raise NoStudy(f"There is no database {database or 'in memory'} of a search with Optuna.")
    arguments = {"connect_args": {"timeout" if kind == "sqlite" else "connect_timeout": TIMEOUT}}
    engine = create_engine(url, **arguments)
    try:
        if not inspect(engine).has_table("studies"):
            raise NoStudy(f"{mask(url)} has no study of Optuna.")
    finally:
        engine.dispose()
    return RDBStorage(url, engine_kwargs=arguments, skip_table_creation=True)
