"""Optuna's database, and the two uses of Optuna for which it has no public function."""

import warnings
from functools import cache
from itertools import chain, count
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from nanosq.errors import InputError, first_line
from nanosq.filesystem import SQLITE, check_folder, database_lock, has_locks, limit_connecting
from nanosq.privacy import mask
from nanosq.sweeps.attributes import COMPARISON
from nanosq.tracking.location import database

MEMORY = ":memory:"  # in the place of a file: a database that ends with the process
PORT = 5432  # of PostgreSQL, if a URL has none
SQLITE_TIMEOUT = 60.0  # seconds to wait while another process writes

# The sweeper prints its own progress. A user who selects an experimental sampler or pruner needs no warning.
optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", ExperimentalWarning)
# Trials are compared at the fractions of training at which both were evaluated, and may have others.
warnings.filterwarnings("ignore", message="WilcoxonPruner finds steps")
# A trial that has diverged, or whose model is too big, has no finite value.
warnings.filterwarnings("ignore", message="Clip non-finite values")


def check(url: str) -> None:
    """Refuse a database that Optuna cannot use, or must not, before anything is written.

    Args:
        url: The value of hydra.sweeper.storage.

    Raises:
        InputError: It is of another kind than SQLite and PostgreSQL, cannot be opened, or belongs to another program.
    """
    key = f"hydra.sweeper.storage={mask(url)}"
    if not has_locks(url):
        raise InputError(f"{key}: choose sqlite:///FILE or postgresql://HOST/DATABASE")
    file = database(url)
    if file is not None:
        if file.name in ("", MEMORY):
            raise InputError(f"{key} names no file: choose sqlite:///FILE")
        if file.is_dir():
            raise InputError(f"{key}: {file} is a folder: name a file")
        check_folder("hydra.sweeper.storage", file.parent)
    if file is None or (file.exists() and file.stat().st_size):
        tables = _tables(url, key)
        if tables and "studies" not in tables:
            raise InputError(f"{key} belongs to another program, with the table {tables[0]}: choose another database")


def check_apart(url: str, tracking_uri: str) -> None:
    """Raise an InputError if a storage of Optuna is the store in which the runs are recorded."""
    if _place(url) == _place(tracking_uri):
        raise InputError(
            f"hydra.sweeper.storage={mask(url)} is the database of MLflow too, tracking.uri={mask(tracking_uri)}: "
            "change one of them"
        )


def _place(url: str) -> tuple[object, ...]:
    """Return where a database is, however its URL is spelled."""
    if (file := database(url)) is not None:
        return (file.resolve(),)
    parts = urlsplit(url)
    server = parts.netloc.rpartition("@")[2].lower().removesuffix(f":{PORT}")
    return parts.scheme.split("+")[0], server, parts.path


def _tables(url: str, key: str) -> list[str]:
    """Return the names of the tables of a database, sorted. Nothing is written."""
    from sqlalchemy import NullPool, create_engine, inspect

    limit_connecting()
    try:
        return sorted(inspect(create_engine(url, poolclass=NullPool)).get_table_names())
    except Exception as error:  # of SQLAlchemy, of a driver, or a driver that is not installed
        raise InputError(f"{key}: {first_line(error)}") from error


@cache
def connect(url: str | None) -> RDBStorage:
    """Return the storage at a URL. If the database or its tables do not exist, create them.

    Raises:
        InputError: The database is of another kind than SQLite and PostgreSQL, or it cannot be opened.
    """
    if url is None or not has_locks(url):
        shown = url and mask(url)
        raise InputError(f"hydra.sweeper.storage={shown}: choose sqlite:///FILE or postgresql://HOST/DATABASE")
    arguments = {"connect_args": {"timeout": SQLITE_TIMEOUT}} if url.startswith(SQLITE) else {}
    try:
        with database_lock(url):
            return RDBStorage(url, engine_kwargs=arguments)
    except Exception as error:  # of SQLAlchemy, Alembic, Optuna or the file system
        reason = first_line(error)
        raise InputError(f"hydra.sweeper.storage={mask(url)}: {reason}") from error


@cache
def open_study(name: str, url: str) -> optuna.Study:
    """Return a study for runs that report to one of its trials.

    All runs of a process share it. It keeps the trials that have ended, and every new one would read all of them again.
    """
    sampler = RandomSampler()  # unused: the sweeper has drawn the parameters
    return optuna.load_study(study_name=name, storage=connect(url), sampler=sampler)


def unused_name(name: str, url: str) -> str:
    """Return `name`, followed by a number if a study of that name exists, or a comparison with studies NAME/..."""
    names_of_studies = optuna.get_all_study_names(connect(url))
    existing = {*names_of_studies, *(study.split("/")[0] for study in names_of_studies)}
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(candidate for candidate in names if candidate not in existing)


def comparisons_of(command: str, url: str) -> set[str]:
    """Return the names of the comparisons that a command has started, as this or another version of the program."""
    summaries = optuna.get_all_study_summaries(connect(url), include_best_trial=False)
    facts = (summary.user_attrs.get(COMPARISON, {}) for summary in summaries)
    return {comparison["name"] for comparison in facts if comparison.get("command") == command}


# Optuna calls BaseStorage and the constructor of Trial internal. tests/sweeps/test_storage.py fails if they change.


def requeue(study_name: str, url: str, number: int) -> None:
    """Move a trial from state RUNNING to WAITING. A trial in another state keeps it.

    The study then hands the trial out again, with the same number and parameters. Study.enqueue_trial, which is public,
    would give the trial another number, and its interrupted run could not be found again.
    """
    storage, trial_id = connect(url), _find_id(study_name, url, number)
    if storage.get_trial(trial_id).state is TrialState.RUNNING:
        storage.set_trial_state_values(trial_id, TrialState.WAITING)


def open_trial(study: optuna.Study, url: str, number: int) -> Trial:
    """Return a running trial of `study` that another process has asked for.

    A job reports to such a trial. Publicly, Study.ask is the only source of trials, and it creates a new one.
    """
    return Trial(study, _find_id(study.study_name, url, number))


def _find_id(study_name: str, url: str, number: int) -> int:
    storage = connect(url)
    return storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study_name), number)
