"""Descriptions of runs for people: a name, the command that trains the run again, and a text."""

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosq import config, identity
from nanosq.installation import CONF, program
from nanosq.privacy import mask_setting
from nanosq.sweeps import single_run, summary
from nanosq.tracking import RecordedData
from nanosq.tracking.parameters import readable

if TYPE_CHECKING:
    from nanosq.data.corpus import Corpus
    from nanosq.sweeps.trial import TrialRun

MAX_NAME = 80  # characters of the loss and the settings in a name
# First what is most often compared, beside settings of no group, as `compile`.
ORDER = {group: i for i, group in enumerate(("loss", "optimizer", "schedule", "train", "model", "data"))}
QUOTES = str.maketrans("", "", "\"'")


@dataclass(frozen=True)
class Description:
    """A description of a run for people."""

    name: str  # the settings that distinguish the run, and its place in a sweep
    command: str  # trains this run again, alone
    subject: str  # what is trained: the loss, the model or the preset, and the data
    data: str  # name of the data
    text: str

    def further(self, state: str) -> str:
        """Return the command that trains the run further from a state: its id, or the path of a checkpoint."""
        changed = ("resume", "train.max_steps")
        words = [word for word in shlex.split(self.command) if word.lstrip("+").partition("=")[0] not in changed]
        return shlex.join([*words, f"resume={state}", "train.max_steps=..."])

    def tags(self, *, n_parameters: int, n_classes: int) -> dict[str, str]:
        """Return tags of the run. MLflow shows the last one, which is Markdown, as the description of the run."""
        size = f"The model has {n_parameters:,} parameters and a vocabulary of {n_classes:,} tokens."
        # Not a block of code: MLflow would make the page as wide as the command.
        again = f"This command trains it again: `{self.command}`"
        return {
            "command": self.command,
            "data": self.data,
            "vocabulary": str(n_classes),
            "parameters": str(n_parameters),
            "mlflow.note.content": f"{self.text} {size}\n\n{again}",
        }


def describe(hydra: Any, cfg: Any, trial: "TrialRun | None") -> Description:
    """Describe a run.

    Args:
        hydra: The `hydra` node of the job's configuration.
        cfg: The configuration of the run.
        trial: The trial of a sweep that the run belongs to.
    """
    choices = hydra.runtime.choices
    names = readable(config.flatten(cfg))
    loss = names["loss"]
    is_own = "data.source._target_" in summary.settings(hydra.overrides.task)  # not that of the chosen file
    data = names["data.source"] if is_own else str(choices["data"])
    model, optimizer = (names[group].rpartition(".")[2] for group in ("model", "optimizer"))
    text = f"Trains {model} with **{loss}** and {optimizer} on {data}: {cfg.train.max_steps:,} steps, seed {cfg.seed}."
    if cfg.init_from is not None:
        text += f" It starts from the weights of {cfg.init_from}."
    if trial is not None:
        text += f" Trial {trial.trial} of the sweep {trial.sweep}: {trial.setting or 'no setting varies'}."
    subject = f"{loss} {choices.get('experiment') or choices['model']} {data}"
    return Description(_name(loss, hydra, cfg, trial), command(hydra, cfg), subject, data, mask_setting(text))


def recorded_data(name: str, cfg: Any, text: "Corpus") -> RecordedData:
    """Return what a tracking store records of a text."""
    splits = {"train": text.train, "val": text.val, "test": text.test}
    return RecordedData(
        name=name,
        digest=identity.text_hash(text),
        source=readable({f"data.{key}": value for key, value in config.flatten(cfg.data).items()}),
        profile={
            split: {"documents": len(part.starts) - 1, "tokens": len(part.tokens), "bytes": part.n_bytes}
            for split, part in splits.items()
        },
    )


def command(hydra: Any, cfg: Any) -> str:
    """Return the command of a single run with the settings of a job. Passwords in URLs are masked."""
    main = next(source.path for source in hydra.runtime.config_sources if source.provider == "main")
    options = ["--config-path", main] if Path(main) != CONF else []
    options += [option for folder in config.config_dirs(hydra) for option in ("--config-dir", str(folder))]
    if hydra.job.config_name != "config":
        options += ["--config-name", hydra.job.config_name]
    search_path = [line for line in hydra.overrides.hydra if line.lstrip("+").startswith("hydra.searchpath=")]
    last = {line.partition("=")[0]: line for line in hydra.overrides.task}  # a later override replaces an earlier one
    last.pop("seeds", None)  # a single run has one seed
    words = [*options, *search_path, *single_run.overrides(cfg, hydra), *last.values()]
    return f"{program()} {shlex.join(map(mask_setting, words))}".rstrip()


def _name(loss: str, hydra: Any, cfg: Any, trial: "TrialRun | None") -> str:
    """Return the loss and the settings of a run: those on the command line or, in a sweep, those that vary."""
    choices = hydra.runtime.choices
    names, values = [], {"lr": str(cfg.optimizer.get("lr", ""))}
    typed = {key.lstrip("+"): value for key, value in summary.settings(hydra.overrides.task).items()}
    varied = [word.partition("=")[0] for word in trial.setting.split()] if trial is not None else []
    for key in sorted(typed, key=lambda key: ORDER.get(key.partition(".")[0], 0)):
        is_fixed = varied and not any(f".{key}".endswith(f".{name}") for name in varied)
        if key in ("loss", "loss._target_", "seed") or is_fixed or not identity.affects_result(key):
            continue
        if key in choices or key.endswith("._target_"):
            names.append(typed[key])
        else:
            values[key.partition(".")[2] or key] = typed[key]
    settings = summary.one_line(values, {key: key for key, value in values.items() if value})
    start = textwrap.shorten(" ".join([loss, *names, settings]), MAX_NAME, placeholder=" ...")
    place = "" if trial is None else f" · {trial.sweep} #{trial.trial}"
    return f"{start} seed={cfg.seed}{place}".translate(QUOTES)
