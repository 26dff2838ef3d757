"""Texts that the models of different losses wrote, side by side."""

from collections.abc import Mapping

from analysis.page import Block, Samples, Section, Text
from analysis.recorded_run import RecordedRun
from analysis.runs import RecordedSetting

FILE = "samples.txt"
SEPARATOR = "\n\n---\n\n"
SAMPLING = ("prompt", "temperature", "length")


def section(best: Mapping[str, RecordedSetting]) -> Section:
    """Return the first text of each loss, with the same seed if all losses share one."""
    written = {loss: {run.seed: run for run in setting.runs if _texts(run)} for loss, setting in best.items()}
    by_loss = {loss: by_seed for loss, by_seed in written.items() if by_seed}
    blocks: list[Block] = []
    if by_loss:
        common = set.intersection(*(set(by_seed) for by_seed in by_loss.values()))
        shown = {loss: by_seed[min(common or by_seed)] for loss, by_seed in by_loss.items()}
        settings = []
        for key in SAMPLING:
            values = dict.fromkeys(run.params.get(f"samples.{key}", "") or "empty" for run in shown.values())
            settings.append(f"{key} {' and '.join(values)}")
        text = f"A text of each model, with {', '.join(settings)}." + ("" if common else " The seeds differ.")
        columns = [(f"{loss}, seed {run.seed}", _texts(run)[0]) for loss, run in shown.items()]
        blocks += [Text(text), Samples(columns)]
    if missing := ", ".join(loss for loss in best if loss not in by_loss):
        why = f"There is no text of {missing}. Train with samples.count=3; a grid writes no texts by default."
        blocks.append(Text(why, "note"))
    return Section("Texts", blocks)


def _texts(run: RecordedRun) -> list[str]:
    """Return the texts that a run wrote at its end."""
    return [text for text in (run.artifact(FILE) or "").split(SEPARATOR) if text.strip()]
