"""The model card, README.md of a folder in Hugging Face's format: what the model is and how it was trained."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nanosq.privacy import mask_setting
from nanosq.tracking.parameters import belongs, readable

if TYPE_CHECKING:
    from nanosq.pretrained import Pretrained

TRAINING = ("loss", "optimizer", "schedule", "train", "data", "seed", "precision")  # settings that the card shows
SCORES = ("nll", "perplexity", "bits_per_byte", "accuracy", "ece")
USE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)  # the folder of this file
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer(tokenizer.bos_token + "Once upon a time", return_tensors="pt")
ids = model.generate(**prompt, do_sample=True, temperature=0.8, max_new_tokens={length})
print(tokenizer.decode(ids[0], skip_special_tokens=True))"""

LICENSE = (
    "The code that trained it, nanosq, has the MIT license. The license of the weights depends on that of the text, "
    "which is for you to settle."
)


def card(trained: "Pretrained", tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """Return the text of the card. Passwords are masked.

    Args:
        trained: The model.
        tags: Tags of its run, such as its data and its command. They are empty if the run is not known.
        metrics: Metrics of its run.
    """
    from huggingface_hub import ModelCard, ModelCardData

    known = bool(trained.facts)
    settings = readable(trained.facts.get("settings", {}))
    data = tags.get("data") or settings.get("data.source")
    title = f"GPT-2 trained with {settings.get('loss', 'an unknown loss')} on {data}" if data else "GPT-2"
    shown = [
        (key, f"{value:g}" if isinstance(value, float) else value)  # a checkpoint has 6 steps as 6.0
        for key, value in sorted(settings.items())
        if belongs(key, TRAINING) and value is not None
    ]
    about = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["gpt2", "nanosq"],
        **_evaluation(title, str(data), metrics),
    )
    size = trained.architecture
    n_parameters = sum(tensor.numel() for tensor in trained.weights.values())
    length = max(1, min(200, size["block_size"] - 10))
    scores = [
        (name, *(f"{metrics[key]:.4f}" if (key := f"{split}/{name}") in metrics else "" for split in ("val", "test")))
        for name in SCORES
        if {f"val/{name}", f"test/{name}"} & metrics.keys()
    ]
    precision = f"\n\nScores in {trained.facts['precision']}." if scores and "precision" in trained.facts else ""
    sections = [
        f"# {title}",
        f"n_layer={size['n_layer']}, n_head={size['n_head']}, n_embd={size['n_embd']}: {n_parameters:,} parameters, "
        f"{trained.tokenizer.vocab_size:,} tokens in the vocabulary, at most {size['block_size']:,} tokens in a text."
        + known * " Every text that it was trained on begins and ends with the end of text, its bos and eos token.",
        f"```python\n{USE.format(length=length)}\n```",
        "The tokenizer turns the text <|endoftext|> into the end of text. For other people's texts, give it "
        "`split_special_tokens=True`: then it is ordinary text, as in training.",
        *_section("Metrics", _table(("", "validation", "test"), scores) + precision),
        *_section("Data", _data(data, trained.facts)),
        *_section("Settings", _table(("setting", "value"), shown)),
        *_section("Training it again", f"```sh\n{tags['command']}\n```" if "command" in tags else ""),
        *_section("License", LICENSE if known else ""),
    ]  # fmt: skip
    text = "\n\n".join(sections)
    return str(ModelCard(mask_setting(f"---\n{about.to_yaml()}\n---\n\n{text}\n")))


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """Return a table in Markdown, or nothing if it has no rows."""
    lines = [" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    if not lines:
        return ""
    return "\n".join(f"| {line} |" for line in (" | ".join(header), " | ".join(["---"] * len(header)), *lines))


def _data(name: str | None, facts: Mapping[str, Any]) -> str:
    """Return the name, digest and splits of the text, as far as a checkpoint tells them."""
    splits = zip(("train", "val", "test"), facts.get("splits", ()), strict=False)
    rows = [(split, f"{n_tokens:,}", f"{n_bytes:,}", digest) for split, (n_tokens, n_bytes, digest) in splits]
    table = _table(("split", "tokens", "bytes", "digest"), rows)
    return f"{name}, digest `{facts['text']}`.\n\n{table}" if table else ""


def _evaluation(model: str, data: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return the scores of the test split as metadata, which the hub shows."""
    from huggingface_hub import EvalResult

    results = [
        EvalResult("text-generation", data, data, name, metrics[f"test/{name}"], dataset_split="test")
        for name in SCORES
        if f"test/{name}" in metrics
    ]
    return {"model_name": model, "eval_results": results} if results else {}
