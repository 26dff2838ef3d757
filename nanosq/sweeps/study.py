"""An Optuna study that several processes share, and that can be interrupted and resumed.

The database holds the study, and a lock for every trial in work (nanosq/filesystem.py). A trial that is RUNNING while
its lock is free was interrupted. It is handed out again, under the same number, before a new trial is created.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any, Literal, cast

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, Trial, TrialState

from nanosq.errors import InputError
from nanosq.filesystem import database_lock
from nanosq.sweeps import constraints, storage
from nanosq.sweeps.attributes import CODE, ENQUEUED, INFEASIBLE, MIXED, PER_MILLE, SETTINGS, STEP
from nanosq.sweeps.budget import Cost
from nanosq.sweeps.seed_results import SeedResults
from nanosq.sweeps.starting_points import CURRENT, StartingPoint

logger = logging.getLogger(__name__)

MAX_INFEASIBLE = 20  # trials in a row


class SharedStudy:
    """An Optuna study (`study`) and the locks on the trials that this process has taken."""

    def __init__(
        self,
        name: str,
        url: str,
        *,
        directions: Sequence[str],
        sampler: optuna.samplers.BaseSampler,
        pruner: optuna.pruners.BasePruner,
        space: Mapping[str, BaseDistribution],
        settings: Mapping[str, Any],
    ) -> None:
        """Create the study, or open it.

        `directions` are "minimize" or "maximize" for each metric, `space` has the axes that every trial draws from, and
        `settings` what all trials share, by name.

        Raises:
            InputError: The study exists and has other directions, another space or other settings.
        """
        self.name = name
        self._url = url
        self._space = dict(space)
        self._is_grid = isinstance(sampler, optuna.samplers.GridSampler)
        self._taken: dict[int, tuple[Trial, ExitStack]] = {}  # trials of this process and their locks, by number
        database = storage.connect(url)
        with database_lock(url):
            self.study = optuna.create_study(
                study_name=name,
                storage=database,
                directions=cast("list[Literal['minimize', 'maximize']]", list(directions)),
                sampler=sampler,
                pruner=pruner,
                load_if_exists=True,
            )
            self._check(directions, settings)
            self.study.set_user_attr(SETTINGS, dict(settings))
            self.study.set_user_attr(STEP, PER_MILLE)
            self._failed_before = {trial.number for trial in self.trials if trial.state is TrialState.FAIL}
            self._requeue_interrupted()

    def _check(self, directions: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Refuse a study that exists with other settings, or that an older version or another program has begun."""
        attributes, another = self.study.user_attrs, "name another study, hydra.sweeper.study_name=NAME"

        def refuse(what: str, before: object, now: object) -> None:
            raise InputError(
                f"study {self.name} was started with {what}={before}, not {now}: use the old value, or {another}"
            )

        if attributes.get(STEP) != PER_MILLE and any(trial.intermediate_values for trial in self.trials):
            raise InputError(
                f"study {self.name} was started by another version, which compared trials at the same step and not at "
                f"the same fraction of training: {another}"
            )
        for trial in self.trials:
            for name in trial.distributions.keys() & self._space.keys():
                old, new = trial.distributions[name], self._space[name]
                try:
                    check_distribution_compatibility(old, new)
                except ValueError:
                    refuse(name, old, new)
        old_settings = attributes.get(SETTINGS, settings)
        for name in sorted({*old_settings, *settings}):
            if old_settings.get(name) != settings.get(name):
                # A setting that is absent is usually an axis.
                absent = {constraints.KEY: "none", CODE: "unknown"}.get(name, "several values")
                refuse(name, old_settings.get(name, absent), settings.get(name, absent))
        before = [direction.name.lower() for direction in self.study.directions]
        if before != list(directions):
            raise InputError(
                f"study {self.name} was started with the direction {','.join(before)}, but its metrics have the "
                f"direction {','.join(directions)}: {another}"
            )

    def note_code(self, code: str) -> bool:
        """Record the hash of the code of this start. Return whether trials have ended with other code, at any start."""
        before = self.study.user_attrs
        # A trial that another process trains now will end with its code.
        counted = [trial.state for trial in self.trials if INFEASIBLE not in trial.user_attrs]
        has_results = any(state in counted for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
        self.study.set_user_attr(MIXED, before.get(MIXED) or (has_results and before.get(CODE, code) != code))
        self.study.set_user_attr(CODE, code)
        return bool(self.study.user_attrs[MIXED])

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by their number."""
        return self.study.get_trials(deepcopy=False)

    @property
    def n_uncounted(self) -> int:
        """The number of failed trials that others replace: those of earlier starts, and those with infeasible settings.

        A grid has no other points.
        """
        if self._is_grid:
            return 0
        infeasible = {trial.number for trial in self.trials if INFEASIBLE in trial.user_attrs}
        return len(infeasible | self._failed_before)

    @property
    def is_infeasible(self) -> bool:
        """True if many trials in a row had infeasible settings, so that the space may have no feasible one."""
        last = self.trials[-MAX_INFEASIBLE:]
        return len(last) == MAX_INFEASIBLE and all(INFEASIBLE in trial.user_attrs for trial in last)

    @property
    def is_running(self) -> bool:
        """True if a process works on a trial of the study."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock of the database, under which trials are created and taken."""
        return database_lock(self._url)

    def enqueue(self, points: Sequence[StartingPoint], *, total: int) -> None:
        """Let the trials that are created next try these settings, in this order, until `total` trials count.

        A setting that a trial has is not tried again, whatever process or start has created the trial.
        """
        with self.lock():
            for point in points:
                n_trials = len(self.trials)
                if n_trials < total + self.n_uncounted:
                    note = {ENQUEUED: point.name}
                    self.study.enqueue_trial(dict(point.params), user_attrs=note, skip_if_exists=True)
                    if len(self.trials) > n_trials:
                        logger.info("trial %d of %s tries %s", n_trials, self.name, point)
                elif point.name != CURRENT and not any(_tries(trial, point) for trial in self.trials):
                    logger.warning("no trial is left for %s: raise hydra.sweeper.n_trials", point.name)

    def take(self, n_trials: int, *, total: int) -> list[Trial]:
        """Take up to `n_trials` trials to work on: interrupted ones first, then new ones until `total` trials count."""
        taken: list[Trial] = []
        with database_lock(self._url):
            self._requeue_interrupted()
            while len(taken) < n_trials:
                waiting = any(trial.state is TrialState.WAITING for trial in self.trials)
                if not waiting and len(self.trials) >= total + self.n_uncounted:
                    break
                trial = self.study.ask(self._space)
                self._taken[trial.number] = trial, (lock := ExitStack())
                lock.enter_context(database_lock(self._url, self._lock_name(trial.number)))
                taken.append(trial)
        return taken

    def _requeue_interrupted(self) -> None:
        for trial in self.trials:
            if trial.state is TrialState.RUNNING and trial.number not in self._taken:
                name = self._lock_name(trial.number)
                with suppress(TimeoutError), database_lock(self._url, name, wait=False):
                    storage.requeue(self.name, self._url, trial.number)

    def _lock_name(self, number: int) -> str:
        return f"{self.name}/{number}"

    def record(self, number: int, results: SeedResults, cost: Cost | None) -> Trial | None:
        """Store how a taken trial has ended. Return it, to be told its values; None if it has failed.

        None also if it was interrupted: it stays in the study, to be resumed.

        A trial with infeasible settings is pruned for Optuna. TPE does not learn from failed trials: it would draw the
        same value again, because no trial has it. So infeasible trials count towards its random ones at the start.
        """
        trial, _ = self._taken[number]
        if results.state == "interrupted":
            return None
        for name, value in results.attributes(cost).items():
            trial.set_user_attr(name, value)
        if results.state == "failed":
            self.tell(trial, TrialState.PRUNED if results.is_infeasible else TrialState.FAIL)
            return None
        return trial

    def tell(self, trial: Trial, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Record the outcome of a taken trial and release it."""
        # A GridSampler that has no point left calls Study.stop, which raises outside of Study.optimize.
        try:
            with suppress(RuntimeError) if self._is_grid else nullcontext():
                # After a lost connection to the database another process may have finished the trial.
                self.study.tell(trial, values, state, skip_if_finished=True)
        finally:
            _, lock = self._taken.pop(trial.number)
            lock.close()

    def release(self) -> None:
        """Release the trials that were taken and not finished, so that any process may take them."""
        with database_lock(self._url):
            try:
                for number in self._taken:
                    storage.requeue(self.name, self._url, number)
            finally:
                for _, lock in self._taken.values():
                    lock.close()
                self._taken.clear()


def _tries(trial: FrozenTrial, point: StartingPoint) -> bool:
    return point.params.items() <= trial.params.items() or trial.user_attrs.get(ENQUEUED) == point.name
