"""The box of facts on the runs of a comparison, and whether the contenders had the same chances."""

from collections.abc import Callable, Sequence

from analysis.page import DASH, Facts, number
from analysis.report.components import enumeration, name, own
from analysis.report.grid_trials import label, short
from analysis.report.matched import DRAWS, Matched
from analysis.runs import RecordedSetting, differing
from nanosq.tracking.parameters import belongs

COMMIT = "mlflow.source.git.commit"
Describe = Callable[[RecordedSetting], str]


def facts(matched: Matched) -> Facts:
    """Return the box of facts. What differs between the contenders is given for each of them."""
    rows = []
    for title, describe in FACTS.items():
        values = [describe(setting) for setting in matched.settings.values()]
        is_compared = title.lower() == matched.what  # the values name the contenders
        text = "; ".join(values) if is_compared else values[0] if len({*values}) == 1 else _each(matched, values)
        rows.append((title, text))
    if matched.command:
        return Facts("What was run", [*rows, ("Train again", matched.command)])
    commands = {label: setting.runs[0].tags.get("command", DASH) for label, setting in matched.settings.items()}
    return Facts("What was run", [*rows, *((f"Train {label} again", text) for label, text in commands.items())])


def conditions(matched: Matched) -> str:
    """Return sentences on how the contenders were trained, and in what they differ; empty for a single setting."""
    if len(matched.settings) < 2:
        return ""
    parts = []
    for text, describe in CONDITIONS.items():
        values = {describe(setting) for setting in matched.settings.values()}
        if len(values) == 1 and DASH not in values:
            parts.append(text.format(*values))
    who = "Both" if len(matched.settings) == 2 else "All"
    trained = f"{who} were trained {' '.join(parts)}." if parts else ""
    if any(result.besides for result in matched.against(matched.order[0], DRAWS)):
        return trained
    tuned = " and in the settings that were tuned for each of them" if matched.command else ""
    return f"{trained} They differ only in the {matched.what}{tuned}.".strip()


def fairness(matched: Matched) -> str:
    """Return what is the same for all contenders and what is not, and how many settings of each were tried."""
    if len(matched.settings) < 2:
        return ""
    same: list[str] = []
    different: list[str] = []
    for title, describe in CHANCES.items():
        values = [describe(setting) for setting in matched.settings.values()]
        if len({*values}) == 1:
            same.append(f"{title} ({values[0]})")
        else:
            different.append(f"{title} ({_each(matched, values)})")
    params = [setting.params for setting in matched.settings.values()]
    for key in differing(params):
        if not belongs(key, [matched.what, "optimizer.lr", "data"]):
            different.append(f"{label(key).lower()} ({_each(matched, [short(each.get(key)) for each in params])})")
    texts = [f"The same {enumeration(same)}." if same else ""]
    texts.append(f"Not the same: {enumeration(different)}." if different else "")
    return f"Fairness: {' '.join(filter(None, [*texts, _tried(matched)]))}"


def _tried(matched: Matched) -> str:
    """Return a sentence on the number of settings that were tried."""
    counts = {*matched.tried.values()}
    each = enumeration([f"{n} of {label}" for label, n in matched.tried.items()])
    if matched.command:
        if len(counts) > 1:
            return f"Tuning trials: {each}."
        (n_trials,) = counts
        trials = f"{n_trials} {'trial' if n_trials == 1 else 'trials'} each"
        return f"Tuned with {trials}; another tuning may give another result."
    text = f"Settings tried in this store: {f'{counts.pop()} of each' if len(counts) == 1 else each}."
    return text if not counts else f"{text} The settings that they share may suit the one that was tried more."


def _each(matched: Matched, values: Sequence[str]) -> str:
    """Return the value of each contender after its label."""
    return "; ".join(f"{label}: {value}" for label, value in zip(matched.settings, values, strict=True))


def _component(component: str) -> Describe:
    return lambda setting: name(setting.params, component) + _own(setting, component)


def _own(setting: RecordedSetting, component: str) -> str:
    """Return the own parameters of a component in brackets."""
    values = ", ".join(f"{key} {short(value)}" for key, value in own(setting.params, component).items())
    return f" ({values})" if values else ""


def _param(key: str) -> Describe:
    def describe(setting: RecordedSetting) -> str:
        value = setting.params.get(key, DASH)
        return f"{int(value):,}" if value.isdecimal() else short(value)

    return describe


def _steps(setting: RecordedSetting) -> str:
    """Return the number of steps, which early stopping makes smaller; a dash if it is not known."""
    steps = _param("train.max_steps")(setting)
    early = "up to " if setting.params.get("train.patience", "None") != "None" else ""
    return DASH if steps == DASH else f"{early}{steps} steps"


def _data(setting: RecordedSetting) -> str:
    return setting.runs[0].tags.get("data") or name(setting.params, "data.source")


def _source(setting: RecordedSetting) -> str:
    return f"{_data(setting)}{_own(setting, 'data.source')}, text {setting.runs[0].text_hash or DASH}"


def _vocabulary(setting: RecordedSetting) -> str:
    classes = setting.runs[0].tags.get("vocabulary", "")
    count = f"{number(int(classes)).text} tokens" if classes.isdecimal() else DASH
    return f"{count}, tokenizer {_component('data.tokenizer')(setting)}"


def _parameters(setting: RecordedSetting) -> str:
    return number(float(setting.runs[0].tags.get("parameters", "nan")), 3).text


def _tokens(setting: RecordedSetting) -> str:
    return number(setting.mean("train/tokens")).text


def _training(setting: RecordedSetting) -> str:
    keys = ("train.batch_size", "train.accumulate", "model.block_size")
    batch, accumulate, block = (_param(key)(setting) for key in keys)
    batches = batch if accumulate == "1" else f"{accumulate} x {batch}"
    return f"{_steps(setting)}; batch of {batches} windows of {block} tokens; {_tokens(setting)} tokens in all"


def _schedule(setting: RecordedSetting) -> str:
    others = [f"{key} {_param(f'train.{key}')(setting)}" for key in ("warmup", "min_lr_factor")]
    return f"{_component('schedule')(setting)}, {', '.join(others)}"


def _hardware(setting: RecordedSetting) -> str:
    return enumeration(sorted({run.tags.get("hardware", DASH) for run in setting.runs}))


def _program(setting: RecordedSetting) -> str:
    run = setting.runs[-1]
    return f"commit {run.tags.get(COMMIT, DASH)[:10]}, code {run.tags.get('code', DASH)}"


def _seeds(setting: RecordedSetting) -> str:
    return ", ".join(str(run.seed) for run in setting.runs)


FACTS: dict[str, Describe] = {
    "Data": _source,
    "Vocabulary": _vocabulary,
    "Loss": _component("loss"),
    "Model": _component("model"),
    "Parameters": _parameters,
    "Training": _training,
    "Optimizer": _component("optimizer"),
    "Schedule": _schedule,
    "Hardware, precision": _hardware,
    "Program": _program,
    "Seeds": _seeds,
}
CONDITIONS: dict[str, Describe] = {
    "for {}": _steps,
    "on the data set {}": _data,
    "with a model of {} parameters": _parameters,
    "using the optimizer {}": lambda setting: name(setting.params, "optimizer"),
}
CHANCES: dict[str, Describe] = {
    "data": _data,
    "model": lambda setting: name(setting.params, "model"),
    "number of parameters": _parameters,
    "training tokens": _tokens,
    "learning rate": _param("optimizer.lr"),
    "hardware": _hardware,
    "seeds": _seeds,
}
