"""An Optuna study that outlives the process: opened only as what it was begun as, its trials taken one owner at a time.

The database holds the study, and a lock for each trial whose owner lives (nanosq/filesystem.py). A trial that is RUNNING
while its lock is free was cut short; it is taken up again before a new one is begun, under the same number.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from functools import cache
from itertools import chain, count
from typing import Any, Literal, cast

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from nanosq.errors import InputError
from nanosq.filesystem import SQLITE, database_lock, has_locks

SETTINGS = "settings"  # the attribute of a study: what all its trials have in common, by name
SQLITE_TIMEOUT = 60.0  # seconds that a process waits for others to write


def shown(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string()
    except ArgumentError:
        return url


@cache
def connect(url: str | None) -> RDBStorage:
    """The storage behind a URL; the database and its tables are made by whoever comes first.

    InputError where it cannot be used.
    """
    if url is None or not has_locks(url):
        raise InputError(
            f"hydra.sweeper.storage={url and shown(url)}: choose sqlite:///FILE or postgresql://HOST/DATABASE"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", ExperimentalWarning)  # of pruners and samplers that the user has chosen
    arguments = {"connect_args": {"timeout": SQLITE_TIMEOUT}} if url.startswith(SQLITE) else {}
    try:
        with database_lock(url):
            return RDBStorage(url, engine_kwargs=arguments)
    except Exception as error:  # SQLAlchemy, Alembic, Optuna, the file system
        raise InputError(f"hydra.sweeper.storage={shown(url)}: {str(error).strip().splitlines()[0]}") from error


def unused(name: str, url: str) -> str:
    """The name, or with a number where a study has it."""
    taken = {*optuna.get_all_study_names(connect(url))}
    return next(each for each in chain([name], (f"{name}-{n}" for n in count(2))) if each not in taken)


class Study:
    """`study`: Optuna's own."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        directions: Sequence[str],
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        pruner: optuna.pruners.BasePruner,
        space: Mapping[str, BaseDistribution],
        settings: Mapping[str, Any],
    ) -> None:
        """Begin the study, or go on with it; InputError where it was begun as another.

        sampler: made anew from the number of trials before, so that it draws the same whoever asks.
        settings: what all trials have in common, plain values by name.
        """
        self.name = name
        self._url = url
        self._storage = connect(url)
        self._space = dict(space)
        self._sampler = sampler
        self._held: dict[int, ExitStack] = {}  # the locks of this process, by the number of their trial
        with database_lock(url):
            self.study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                directions=cast("list[Literal['minimize', 'maximize']]", list(directions)),
                pruner=pruner,
                load_if_exists=True,
            )
            if SETTINGS in self.study.user_attrs:
                self._check(directions, settings)
            else:
                self.study.set_user_attr(SETTINGS, dict(settings))

    def _check(self, directions: Sequence[str], settings: Mapping[str, Any]) -> None:
        def refuse(what: str, before: object, now: object) -> None:
            raise InputError(
                f"study {self.name} was begun with {what}={before}, not {now}: leave it, "
                "or give this search another name, hydra.sweeper.study_name=..."
            )

        before = [direction.name.lower() for direction in self.study.directions]
        if before != list(directions):
            refuse("hydra.sweeper.direction", ",".join(before), ",".join(directions))
        for trial in self.trials:
            for name in trial.distributions.keys() & self._space.keys():
                old, new = trial.distributions[name], self._space[name]
                try:
                    check_distribution_compatibility(old, new)
                except ValueError:
                    refuse(name, old, new)
        old_settings = self.study.user_attrs.get(SETTINGS, {})
        for name in sorted({*old_settings, *settings}):
            if old_settings.get(name) != settings.get(name):
                refuse(name, old_settings.get(name, "one of several"), settings.get(name, "one of several"))

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def n_failed(self) -> int:
        return sum(trial.state is TrialState.FAIL for trial in self.trials)

    def take(self, most: int, *, total: int) -> list[Trial]:
        """Up to `most` trials that are nobody's: first those that were cut short, then new ones up to `total`."""
        taken: list[Trial] = []
        with database_lock(self._url):
            self._put_back()
            while len(taken) < most:
                waiting = any(trial.state is TrialState.WAITING for trial in self.trials)
                if not waiting and len(self.trials) >= total:
                    break
                self.study.sampler = self._sampler(len(self.trials))
                trial = self.study.ask(self._space)
                self._held[trial.number] = held = ExitStack()
                held.enter_context(database_lock(self._url, self._lock(trial.number)))
                taken.append(trial)
        return taken

    def _put_back(self) -> None:
        """Queue the trials whose owner is gone; the study hands them out as they were."""
        for trial in self.trials:
            if trial.state is TrialState.RUNNING and trial.number not in self._held:
                with suppress(TimeoutError), database_lock(self._url, self._lock(trial.number), wait=False):
                    self._wait(trial._trial_id)

    def _wait(self, trial_id: int) -> None:
        if self._storage.get_trial(trial_id).state is TrialState.RUNNING:  # nobody has told of it meanwhile
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def _lock(self, number: int) -> str:
        return f"{self.name}/{number}"

    def tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        # A GridSampler at its end would stop Study.optimize, which is not running.
        grid = isinstance(self.study.sampler, optuna.samplers.GridSampler)
        try:
            with suppress(RuntimeError) if grid else nullcontext():
                # Who has lost the connection to the database may find that another process has told of the trial.
                self.study.tell(trial, values, state, skip_if_finished=True)
        finally:
            self._held.pop(trial.number).close()

    def release(self) -> None:
        """Give back what was taken and not told, so that any process may take it up."""
        with database_lock(self._url):
            try:
                for trial in self.trials:
                    if trial.number in self._held:
                        self._wait(trial._trial_id)
            finally:
                for held in self._held.values():
                    held.close()
                self._held.clear()
