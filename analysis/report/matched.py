"""Settings that are compared like with like, and the verdict on each pair of them."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.recorded_run import RecordedRun
from analysis.report import calibrated, common_seeds, components
from analysis.report.common_seeds import ENOUGH_SEEDS
from analysis.report.components import COMPONENTS, enumeration
from analysis.report.verdict import MORE_SEEDS, Verdict, verdict
from analysis.runs import RESULTS, TRAIN, RecordedSetting, by_setting, differing, settings
from nanosq.tracking.parameters import belongs

MAX_CONTENDERS = 8  # of one comparison; a search of the parameters of a loss draws more values
DRAWS, FEWER_DRAWS = 10_000, 2_000  # for the pairs of the comparison that is shown, and for all others
AGAINST_BEST = {  # sentences on other contenders than the one with the lowest nll
    "better": "It is better than {}: the 95 % confidence interval of each difference does not include 0 "
    "({n_seeds} seeds).",
    "worse": "On their common seeds, {} did better than {best}.",
    "unclear": "No difference from {} was found.",
    "few": "There are not enough runs to compare {best} with {}.",
    "other": "More differs from {}, so this does not show which is better.",
}
LOST = {"diverged", "failed", "killed"}  # states of runs that have no result and are not training
OTHER_SETTINGS = "Train again with other settings, as a lower optimizer.lr."
BEST = "best"  # name of the comparison of the best setting of each loss


@dataclass(frozen=True, eq=False)
class Matched:
    """Settings, the contenders, that differ only in what is compared and in what was tuned for each of them alike."""

    name: str
    what: str  # is compared: a component, as loss
    settings: Mapping[str, RecordedSetting]  # by label, with the runs of their common seeds
    tried: Mapping[str, int]  # number of settings that were tried of each component, or for each label
    compared: Sequence[str]  # keys and groups of keys in which the settings may differ
    more_seeds: str = MORE_SEEDS  # how to train with more seeds
    command: str = ""  # that trains all of them; empty for settings that were trained one by one
    lost: Sequence[str] = ()  # sentences on components of which no run has a result
    _verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The question that the comparison answers."""
        labels = [*self.settings]
        if len(labels) not in (2, 3):
            return f"Which {self.what} is better?"
        return f"{', '.join(labels[:-1])} or {labels[-1]}: which is better?"

    @property
    def order(self) -> list[str]:
        """The labels, that of the reference first."""
        base = common_seeds.reference(self.settings)
        return [base, *(label for label in self.settings if label != base)]

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs of all settings."""
        return [run for setting in self.settings.values() for run in setting.runs]

    @property
    def n_seeds(self) -> int:
        """The number of seeds that two or more of the settings have in common."""
        return sum(count > 1 for count in Counter(run.seed for run in self.runs).values())

    def verdict(self, a: str, b: str, n_draws: int = FEWER_DRAWS) -> Verdict:
        """Return the verdict on two labels in the order of `order`; that of a first call counts."""
        if (a, b) not in self._verdicts:
            both = self.settings[a], self.settings[b]
            compared, more = self.compared, self.more_seeds
            try:
                result = verdict(*both, labels=(a, b), compared=compared, more_seeds=more, n_draws=n_draws)
            except ValueError as error:  # a file of the text changed between two runs
                result = Verdict(a, b, f"{error}.")
            self._verdicts[a, b] = result
        return self._verdicts[a, b]

    def against(self, label: str, n_draws: int = FEWER_DRAWS) -> list[Verdict]:
        """Return the verdicts on a label and each of the others."""
        order = self.order
        pairs = [sorted((label, other), key=order.index) for other in order if other != label]
        return [self.verdict(a, b, n_draws) for a, b in pairs]

    def headline(self, n_draws: int = FEWER_DRAWS) -> str:
        """Return the result in a sentence or two."""
        if len(self.settings) < 2:
            only = f"only {', '.join(self.settings)}" if self.settings else "none"
            text = f"A verdict needs two contenders, and {only} has runs with test scores on this text."
            advice = OTHER_SETTINGS if self.lost else f"Train others: {TRAIN}"
            return text if self.command else " ".join([text, *self.lost, advice])
        best = min(self.settings, key=lambda label: self.settings[label].mean("test/nll"))
        verdicts = self.against(best, n_draws)
        if len(verdicts) == 1:
            return verdicts[0].sentence
        groups: dict[str, list[str]] = {}
        for result in verdicts:
            if result.besides or not result.better:
                kind = "other" if result.besides else "unclear" if result.has_enough_seeds else "few"
            else:  # the lowest mean may be that of other seeds than the common ones
                kind = "better" if result.better == best else "worse"
            groups.setdefault(kind, []).append(result.b if result.a == best else result.a)
        n_seeds = " or ".join(map(str, sorted({len(result.seeds) for result in verdicts if result.better == best})))
        nll = self.settings[best].mean("test/nll")
        texts = [f"{best} has the lowest test nll of the {len(self.settings)}, {nll:.4g} nats per token."]
        for kind, text in AGAINST_BEST.items():
            if kind in groups:
                texts.append(text.format(enumeration(groups[kind]), best=best, n_seeds=n_seeds))
        return " ".join(texts)

    def notes(self) -> list[str]:
        """Return sentences on what is left out, and on scores that lead to another verdict, each once."""
        notes = [*self.lost] if len(self.settings) > 1 else []  # the headline on a single one has them
        for result in self.against(self.order[0], DRAWS):
            a, b = self.settings[result.a], self.settings[result.b]
            notes += [*result.notes, calibrated.disagreement(result, a, b)]
            if not differing([a.params, b.params]):
                notes.append(f"{result.a} and {result.b} are the same setting.")
        notes += common_seeds.unequal_seeds(self.settings).values()
        return list(dict.fromkeys(note for note in notes if note))


def find(all_runs: Sequence[RecordedRun]) -> list[Matched]:
    """Return every comparison of settings that differ in one component only: see analysis/report/listing.py.

    Settings without test scores, as those of the tuning trials of a comparison, are left out.
    """
    programs: dict[tuple[str, str], list[RecordedRun]] = {}
    for run in all_runs:
        programs.setdefault((run.text_hash, run.program), []).append(run)
    return [found for key in programs for part in COMPONENTS for found in _find(key, programs[key], part, all_runs)]


def best_of_each_loss(all_runs: Sequence[RecordedRun], text_hash: str) -> Matched | None:
    """Return the best setting of each loss on a text by its validation nll; None if there is no setting.

    Only the settings of a loss with the most seeds are candidates, where three seeds are as good as more, because the
    best of many single runs is partly lucky. A setting in which a seed diverged is chosen only if there is no other.
    """
    same = [run for run in all_runs if run.text_hash == text_hash]
    by_loss: dict[str, list[RecordedSetting]] = {}
    for setting in _scored(same):
        by_loss.setdefault(setting.loss, []).append(setting)
    best = [_best(candidates) for candidates in by_loss.values()]
    return _matched(BEST, "loss", best, same, all_runs) if best else None


def _find(
    key: tuple[str, str], same: Sequence[RecordedRun], component: str, all_runs: Sequence[RecordedRun]
) -> Iterator[Matched]:
    """Yield the comparisons of a component among the runs of one text and program."""
    by_rest: dict[str, list[RecordedRun]] = {}
    for run in same:
        rest = {k: v for k, v in run.compared.items() if not belongs(k, [component])}
        by_rest.setdefault(repr((key, sorted(rest.items()))), []).append(run)
    for rest_key, runs in by_rest.items():
        group = _scored(runs)
        by_name: dict[str, list[RecordedSetting]] = {}
        for setting in group:
            by_name.setdefault(components.name(setting.params, component), []).append(setting)
        if len(group) > MAX_CONTENDERS:
            group = [_best(values) for values in by_name.values()]
        if len(group) > 1 and (component == "loss" or len(by_name) > 1):
            digest = hashlib.sha256(rest_key.encode()).hexdigest()[:6]
            yield _matched(f"{component}-{digest}", component, group, runs, all_runs)


def _matched(
    name: str,
    component: str,
    chosen: Sequence[RecordedSetting],
    runs: Sequence[RecordedRun],
    all_runs: Sequence[RecordedRun],
) -> Matched:
    """Return the comparison of settings that were chosen among runs."""
    rows = dict(zip(components.labels(chosen, component), chosen, strict=True))
    ended = [run for run in all_runs if run.text_hash == chosen[0].runs[0].text_hash and run.state in RESULTS]
    tried = Counter(components.name(group[0].params, component) for group in by_setting(ended))
    counts = {name: tried[name] for name in (components.name(setting.params, component) for setting in chosen)}
    common, lost = common_seeds.on_common_seeds(rows), _lost(runs, component)
    return Matched(name, component, common, counts, [component], lost=lost)


def _lost(runs: Sequence[RecordedRun], component: str) -> list[str]:
    """Return a sentence on each component whose runs all ended without a result."""
    states: dict[str, Counter[str]] = {}
    for run in runs:
        states.setdefault(components.name(run.params, component), Counter())[run.state] += 1
    texts = {
        name: enumeration([f"{n} {'run' if n == 1 else 'runs'} {state}" for state, n in sorted(counts.items())])
        for name, counts in states.items()
        if counts.keys() <= LOST
    }
    return [f"{name} has no result: {text}." for name, text in sorted(texts.items())]


def _scored(same: Sequence[RecordedRun]) -> list[RecordedSetting]:
    """Return the settings that have validation and test scores."""
    return [setting for setting in settings(same) if not math.isnan(setting.mean("val/nll") + setting.mean("test/nll"))]


def _best(candidates: Sequence[RecordedSetting]) -> RecordedSetting:
    """Return the setting with the lowest mean nll on the validation split among those with enough seeds."""
    n_seeds = min(ENOUGH_SEEDS, max(len(setting.runs) for setting in candidates))
    repeated = [setting for setting in candidates if len(setting.runs) >= n_seeds]
    return min(repeated, key=lambda setting: ("diverged" in setting.left_out.values(), setting.mean("val/nll")))
