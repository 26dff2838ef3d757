"""Errors of MLflow stores: which advice fits the cause."""

import re
import sqlite3
import traceback

from nanosq.errors import FileError, InputError

# Patterns of error messages of MLflow, SQLAlchemy and its drivers, requests and the operating system. The first one
# that occurs counts: for example, a server may answer "Permission denied" with the status 403. Fields: `uri` is that
# of the store, `elsewhere` says how to use another one.
ADVICE = (
    ("out-of-date database schema", "back it up and run `mlflow db upgrade {uri}`, or use the MLflow that wrote it"),
    ("filesystem tracking backend", "run `mlflow migrate-filestore`, or {elsewhere}"),
    (
        "unsupported URI|[Ii]nvalid url|Could not parse",
        "a store begins with sqlite:///, postgresql:// or http://: {elsewhere}",
    ),
    (
        "error code 401|UNAUTHENTICATED",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    ("error code 403|PERMISSION_DENIED", "ask the owner of the server for permission, or {elsewhere}"),
    ("error code 404|not in a valid JSON format", "it is not the address of an MLflow server: {elsewhere}"),
    ("authentication failed|Access denied|no password supplied", "correct the user and password: {elsewhere}"),
    ("CERTIFICATE_VERIFY|SSLError", "set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of its authority"),
    (r'database "[^"]*" does not exist|Unknown database', "create the database, or {elsewhere}"),
    ("No module named", "install this driver of the database, or {elsewhere}"),
    ("database is locked", "another process is writing to it: wait for it, or {elsewhere}"),
    ("file is not a database|malformed", "restore it from a backup, or {elsewhere}"),
    ("is a folder and not a database", "move it away, or {elsewhere}"),
    ("disk is full|No space left", "free some space, or {elsewhere}"),
    (
        "[Rr]ead-?only|Permission denied|Operation not permitted",
        "make the file and its folder writable, or {elsewhere}",
    ),
    (
        "unable to open database file|No such file|Not a directory|File exists",
        "create its folder and make it writable, or {elsewhere}",
    ),
    (
        r"Max retries|[Cc]onnection|[Tt]ime(d )?out|resolve|host name|not known",
        "start the server or correct its address, or {elsewhere}",
    ),
)

CAUSED_BY = re.compile(r"\(Caused by \w+\(.*?\): (.*?)[\"']?\)\)$")  # at the end of what requests says


def explain(error: BaseException, uri: str, *, elsewhere: str) -> str:
    """Return the cause of an error of the store `uri`, in parentheses, and what to do about it.

    Args:
        error: The error.
        uri: The tracking URI.
        elsewhere: How to use another store, for example "set tracking.uri".
    """
    cause = _cause(error)
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, reason)), "{elsewhere}")
    if found := CAUSED_BY.search(reason):
        reason = found[1]
    sentence = re.split(r"\. (?=[A-Z])", reason)[0].rstrip(".")
    return f"({sentence}); {advice.format(uri=uri, elsewhere=elsewhere)}"


def is_of_store(error: BaseException) -> bool:
    """Return whether an error comes from a store, a driver or the system, and not from a mistake in this package.

    A FileError is that of a journal.
    """
    if isinstance(error, FileError):
        return False
    if isinstance(error, OSError | sqlite3.Error | InputError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return not str(frame.f_globals.get("__name__")).startswith("nanosq.")


def _cause(error: BaseException) -> BaseException:
    """Return the error of the database driver that SQLAlchemy and MLflow have wrapped, or else the error itself."""
    wrapped: BaseException | None = error
    while wrapped is not None:
        if isinstance(driver_error := getattr(wrapped, "orig", None), BaseException):
            return driver_error
        wrapped = wrapped.__cause__
    return error
