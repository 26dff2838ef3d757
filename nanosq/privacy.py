"""Privacy: credentials in URLs are masked, and libraries do not report how this program is used."""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast
from urllib.parse import urlsplit

from nanosq import terminal

# A password may contain any character. So this masks up to the last "@" of a word: sometimes too much (the path in
# http://host:80/a@b), never too little. A URL that was taken for a path has one slash.
PASSWORD = re.compile(r"(:/{1,2}(?!/)[^\s:/?#]{0,200}):(?:(?![,;'\"\s]\w[\w+.-]{0,20}://)\S){0,2000}@")
# Parameters of databases and servers: ?password=, &sslpassword=, ?access_token=, ?auth=user:token, ...
NAMES = "passw(?:or)?d|passphrase|pass|pwd|secret|token|key|signature|sig|auth|authorization|credentials?|odbc_connect"
PARAMETER = re.compile(rf"([?&;#](?!viewStateShareKey=)[\w.%-]*(?:{NAMES})=)[^&\s]+", re.IGNORECASE)  # a view is public
USER = re.compile(r"([?&;#](?:user|username|login|account)=[^&\s:%]+)(?::|%3A)(?!\*{3})[^&\s'\"]+", re.IGNORECASE)
# Where a setting is a whole URL, a space belongs to its password.
WITH_SPACE = re.compile(r"((?:^|=)['\"]?[\w+.-]+://[^\s:/?#]*):(?!\*{3}|\d+[/?#\s:;,'\"])[^\n@]*\s[^\n]*@")
# What only messages contain: a password with a space; a URL without a host, or cut at a comma, in which no port follows
# the colon; a URL without a scheme; and the end of a password as a host, because drivers split a URL at the first "@".
CUT = re.compile(
    r"(:/{1,2}(?!/)[^\s:/?#@\['\"]{0,200}):(?!(?:\d*|PORT)(?:[^a-z\d+%!$&~^-]|$)|\*{3})(?:[^\n'\"@]{0,100}@|[^\s'\"]*)",
    re.IGNORECASE,
)
WITHOUT_SCHEME = re.compile(r"((?<![^\s'\"=(,])[\w.+-]+):(?!/)[^\s:/@'\"]+@(?=[\w\[])")
HOST = re.compile(r"((?:host(?: ?name)?|server (?:on|at)) ['\"])[^\s'\"/]+@", re.IGNORECASE)
READER_GONE = 141  # exit status of a program that SIGPIPE has ended
URL = re.compile(r"\w:/\S+")
# A user who sets one of these variables keeps that value.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # MLflow prints the tracking URI with its password
}


def set_defaults() -> None:
    """Set the variables of DEFAULTS, some of which are read when MLflow or a Hugging Face library is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def mask(text: str) -> str:
    """Replace passwords and tokens in a message by asterisks, and what may be one. Names of users stay."""
    text = CUT.sub(lambda cut: f"{cut[1]}:***{'@' * cut[0].endswith('@')}", mask_setting(text))
    return HOST.sub(r"\1***@", WITHOUT_SCHEME.sub(r"\1:***@", text))


def mask_setting(text: str) -> str:
    """Replace the passwords and tokens of URLs in a setting, or in an override, by asterisks.

    Other settings stay as they are, because they decide whether two trials are the same, and return in presets.
    """
    text = URL.sub(lambda url: USER.sub(r"\1:***", PARAMETER.sub(r"\1***", url[0])), text)
    return WITH_SPACE.sub(r"\1:***@", PASSWORD.sub(r"\1:***@", text))


def mask_values(value: Any) -> Any:
    """Mask the settings in a plain value, which may be a dictionary or a list."""
    if isinstance(value, Mapping):
        return {key: mask_values(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_values(item) for item in value]
    return mask_setting(value) if isinstance(value, str) else value


def link(url: str) -> str:
    """Return a URL for a link, which people share: without user, password and tokens."""
    parts = urlsplit(mask(url))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


class MaskedStream:
    """A text stream that masks what is written to it, and wraps it if it is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its passwords and tokens."""
        with self._reader():
            return self._stream.write(terminal.fit(mask(text), self._stream))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._reader():
            self._stream.flush()

    @contextmanager
    def _reader(self) -> Iterator[None]:
        """End the program if the reader of the stream, such as `head`, has gone. Training would be for nobody."""
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # Python flushes it again at its end
            sys.exit(READER_GONE)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts without their passwords and tokens."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def masked_output() -> Iterator[None]:
    """Mask what a command prints: its own lines, and those of libraries, which show URLs in errors and warnings.

    An exception ends the command with its traceback and exit status 1, as in Python, which would not mask it.
    """
    stdout, stderr = (cast(TextIO, MaskedStream(stream)) for stream in (sys.stdout, sys.stderr))
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            yield
        except Exception:
            traceback.print_exc()
            sys.exit(1)
