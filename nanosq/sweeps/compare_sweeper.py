"""The compare sweeper: tune each contender with the same budget, confirm the best settings with seeds, give a verdict.

1. Tuning: a study for each contender. Trials are short, and contenders alternate. Choices are made on val.
2. Confirmation: the best setting of each, at full length, with the same seeds. Only these runs are scored on test.
3. Verdict: the report's section on a comparison, which reads both from the databases.
"""

import hashlib
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from nanosq import config, errors, terminal
from nanosq.sweeps import budget, contenders, preset
from nanosq.sweeps.budget import MIN_SEEDS, Plan
from nanosq.sweeps.contenders import Entry
from nanosq.sweeps.optuna_settings import CompareSweeperSettings
from nanosq.sweeps.progress import Standing
from nanosq.sweeps.search import LiveSearch
from nanosq.sweeps.seed_results import raise_first
from nanosq.sweeps.study_sweeper import StudySweeper
from nanosq.sweeps.trial import PlannedTrial
from nanosq.sweeps.tuned_contender import TunedContender

if TYPE_CHECKING:
    from nanosq.sweeps.confirmation import Confirmation
    from nanosq.sweeps.study import SharedStudy

logger = logging.getLogger(__name__)

CONTINUE = "run the same command again to continue it"
POLL_SECONDS = 1.0  # between two looks at trials that other processes run
Taken = TypeVar("Taken")  # a trial that was taken from a study, with its search or alone


class CompareSweeper(StudySweeper):
    """Compares the settings that the lists on the command line name."""

    schema = CompareSweeperSettings
    settings: CompareSweeperSettings
    name: str
    contenders: list[TunedContender]
    confirmation: "Confirmation"
    seeds: list[int]

    def sweep(self, arguments: list[str]) -> None:
        """Run the comparison. Hydra calls this method with the overrides of the command line."""
        self._prepare(contenders.parse(arguments))
        try:
            self._tune()
            self._confirm()
        finally:
            for study in (self.confirmation.study, *(contender.search.study for contender in self.contenders)):
                study.release()
        with self.recording.delivered() as is_recorded:
            self._conclude(is_recorded=is_recorded)

    def _prepare(self, entry: Entry) -> None:
        """Check everything, then create the studies or open them."""
        from nanosq.sweeps import storage
        from nanosq.sweeps.confirmation import Confirmation
        from nanosq.sweeps.starting_points import check_axes

        self.check_effect()
        try:
            self._report = config.get_target(self.settings.report)
        except ImportError as error:
            raise errors.InputError(f"hydra.sweeper.report: {error}") from error
        if len(self.metrics) > 1:
            raise errors.InputError("hydra.sweeper.objectives: a comparison chooses by one metric")
        self.contenders = [
            TunedContender(self, self.settings, self.metrics[0], entry, label) for label in entry.contenders
        ]
        for contender in self.contenders:
            contender.check_same_text(self.contenders[0])
        axes = {axis for contender in self.contenders for axis in contender.search.space.all_axes}
        check_axes([*self.settings.enqueue], axes)
        first = self.contenders[0]
        # Not the seed of tuning.
        self.seeds = [*entry.seeds] or [first.seed + 1 + repeat for repeat in range(self.settings.seeds)]
        self.name = self.unused_name(first.search, self.settings.study_name or f"compare-{self._digest()}")
        self._command = entry.command(self.config.hydra.overrides.hydra, config.config_dirs(self.config.hydra))
        largest = [cfg for contender in self.contenders for cfg in contender.search.largest]
        n_runs = len(self.contenders) * max(first.search.total, len(self.seeds))
        self.check_store(first.search.base)
        self.share_machine(largest, n_runs, most=max(2, n_runs // 5))
        for contender in self.contenders:
            contender.search.open(f"{self.name}/{contender.label}")
        if first.search.compared:
            logger.info(first.search.compared)
        lengths = {contender.label: contender.length for contender in self.contenders}
        self.confirmation = Confirmation(f"{self.name}/confirmation", first.search.url, lengths, self.metrics[0])
        self._is_new = not any(contender.search.n_done for contender in self.contenders)
        if self._is_new and (older := storage.comparisons_of(self._command, first.search.url) - {self.name}):
            logger.info("%s had other code or settings: this comparison begins anew", ", ".join(sorted(older)))
        if first.seed in self.seeds:
            logger.info("seed %d confirms what it has tuned: better choose other seeds", first.seed)
        self._note()

    def _digest(self) -> str:
        """Return a hash of all that makes a comparison the same, whatever its budget is."""
        node, settings = self.config.hydra.sweeper, self.settings
        methods = [config.flatten(node[key]) for key in ("sampler", "pruner")]
        facts = [[*settings.objectives], methods, settings.constraints, [c.identity for c in self.contenders]]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]

    def _note(self, *, is_tuned: bool = False) -> None:
        """Record in the studies what the report needs to know, with the choice if the tuning has ended."""
        common = {"name": self.name, "command": self._command, "seeds": self.seeds}
        for position, contender in enumerate(self.contenders):
            choice = {"chosen": contender.chosen and contender.chosen.number} if is_tuned else {}
            contender.note({**common, **choice, "position": position})

    def _tune(self) -> None:
        """Run trials of all contenders until each has enough, or until the rest of the time is for the confirmation."""
        first = plan = None
        for taken in self._until_done(self._take, [contender.search.study for contender in self.contenders]):
            if not self.run_searches(taken, self._standing(plan)):
                raise_first(self.failures)
            plan = self._plan() or plan
            if first is None and plan is not None:
                first = plan
                self._announce(plan, is_first=True)
        if plan is not None and str(plan) != str(first):  # trials have taken more or less time than the first ones
            self._announce(plan)

    def _until_done(self, take: Callable[[], list[Taken]], studies: Sequence["SharedStudy"]) -> Iterator[list[Taken]]:
        """Yield what a function takes, until there is nothing left to take and no process works on the studies."""
        while self.seconds_left > 0:
            if taken := take():
                yield taken
            elif any(study.is_running for study in studies):
                time.sleep(POLL_SECONDS)
            else:
                return

    def _take(self) -> list[tuple[LiveSearch, PlannedTrial]]:
        """Take the next trials, of contenders that have started the fewest, so that all of them advance together."""
        taken: list[tuple[LiveSearch, PlannedTrial]] = []
        searches = [contender.search for contender in self.contenders]
        while len(taken) < self.n_jobs():
            for search in sorted(searches, key=lambda search: search.n_started):
                if trials := search.take(1):
                    taken.append((search, trials[0]))
                    break
            else:
                break
        return taken

    def _plan(self) -> Plan | None:
        """Return the plan that fits into the time, once every contender has done a trial, and apply it."""
        costs = [cost for contender in self.contenders for cost in contender.costs()]
        if not costs or not all(contender.search.n_done for contender in self.contenders):
            return None
        usual = budget.usual(costs)
        setup = statistics.median_low(seconds for contender in self.contenders for seconds in contender.setups())
        paces = [contender.pace(usual, setup) for contender in self.contenders]
        most = max(contender.most for contender in self.contenders)
        plan = budget.fit(most, len(self.seeds), paces, seconds_left=self.seconds_left)
        for contender in self.contenders:
            contender.search.total = min(plan.n_trials, contender.most)
        return plan

    def _announce(self, plan: Plan, *, is_first: bool = False) -> None:
        """Say what the plan is. Raise an InputError if the comparison has just begun and there is too little time."""
        each = f"each of {len(self.contenders)} contenders"
        if is_first and self._is_new and not plan.fits(self.seconds_left):
            steps = ",".join(str(n) for n in dict.fromkeys(contender.max_steps for contender in self.contenders))
            raise errors.InputError(
                f"hydra.sweeper.timeout={self.settings.timeout} is too short: {plan.n_seeds} runs of {each} with "
                f"train.max_steps={steps} need about {budget.duration(plan.seconds)} more"
            )
        logger.info("plan: %s for %s, about %s", plan, each, budget.duration(plan.seconds))

    def _standing(self, plan: Plan | None) -> Standing:
        """Return how far the tuning of all contenders is."""
        standings = [contender.search.standing() for contender in self.contenders]
        return Standing(
            sum(standing.n_runs for standing in standings),
            sum(standing.n_ended for standing in standings),
            {trial: values for standing in standings for trial, values in standing.values.items()},
            self.metrics[0].key,
            phase="tuning",
            seconds_after=None if plan is None else plan.confirmation,
        )

    def _confirm(self) -> None:
        """Train the chosen setting of each contender with all seeds, as far as the time allows."""
        if self.seconds_left <= 0:  # perhaps before the end of the tuning
            return
        tuned = [contender for contender in self.contenders if contender.chosen is not None]
        for contender in self.contenders:
            if contender not in tuned:
                logger.error("%s: no tuning trial has finished, it is not confirmed", contender.label)
                contender.search.note_violations()
        if not tuned:
            return
        chosen = {contender.label: contender.chosen.number for contender in tuned if contender.chosen is not None}
        self._note(is_tuned=True)
        settings = {contender.label: contender.full_setting() for contender in tuned}
        axes = {key for contender in tuned for key in contender.search.space.varied}
        self.confirmation.plan(chosen, self.seeds)

        def take() -> list[PlannedTrial]:
            has_time = not self._has_no_time_for(len(tuned))
            return self.confirmation.take(self.n_jobs(), settings) if has_time else []

        for taken in self._until_done(take, [self.confirmation.study]):
            for result in self.run_trials(taken, axes=axes, seeds=(), standing=self.confirmation.standing()):
                self.confirmation.tell(*result)

    def _has_no_time_for(self, n_runs: int) -> bool:
        """Return whether enough seeds are done, and the runs with the next seed would not be done in time."""
        done = self.confirmation.done()
        if len(done) < MIN_SEEDS * n_runs or len(done) % n_runs:
            return False
        return n_runs * self.confirmation.seconds_of_run > self.seconds_left

    def _conclude(self, *, is_recorded: bool) -> None:
        """Write the best settings and, if all runs are recorded, the page, and print the verdict."""
        folder = self.folder(self.name)
        done, total = len(self.confirmation.done()), self.confirmation.n_wanted
        if done and is_recorded:
            cfg = self.contenders[0].search.base.tracking
            print()
            self._report(
                self.name,
                storage=self.contenders[0].search.url,
                tracking_uri=cfg.get("uri"),
                experiment=cfg.get("experiment"),
                folder=folder,
            )
        for contender in self.contenders:
            if contender.chosen is not None:
                name = f"best_{folder.name}_{contender.label}"
                origin = f"trial {contender.chosen.number} of {contender.search.study.name}"
                command = preset.write(self, contender.full_setting(), folder, name, origin=origin)
                print(terminal.command(f"best of {contender.label}: {command}", sys.stdout))
        if done:
            print(terminal.next_step())
        raise_first(self.failures)
        if self.deadline is not None and (done < total or (not total and self.seconds_left <= 0)):
            timeout = f"hydra.sweeper.timeout={self.settings.timeout}"
            if done < MIN_SEEDS * len(self.contenders):
                raise errors.InputError(f"{timeout} ended the comparison before its verdict: {CONTINUE}")
            logger.info("%s ends the comparison after %d of %d runs: %s", timeout, done, total, CONTINUE)
