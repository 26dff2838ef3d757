"""A folder of a GPT-2 in Hugging Face's format: config.json and model.safetensors. No pickle is ever read."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from nanosq.hardware import PRECISIONS
from nanosq.huggingface.extra import needs_extra
from nanosq.huggingface.json_file import read_object
from nanosq.huggingface.weights import export_weights, import_weights, without_biases

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
MODEL_TYPE = "gpt2"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model")  # the second is the first without its head, which is tied
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}  # ours, by Hugging Face's
EPSILON = 1e-5
BIAS = "nanosq_bias"  # key of config.json: whether our model has biases; those of the file are zero if not
PRECISION = "nanosq_precision"  # key of config.json: the precision in which the scores of our run were computed
# Defaults of transformers' GPT2Config.
SIZES = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
DROPOUT = 0.1
# Settings of GPT2Config that change the result, and their only supported value, which is the default.
FIXED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the arguments of `GPT` but for the size of the vocabulary, and its state in float32.

    A `GPT` without biases that was exported has none again, unless somebody has trained them since.

    Raises:
        ValueError: A file is missing or damaged, or the model is not a GPT-2 that `GPT` can be.
    """
    config = read_object(folder / CONFIG)
    try:
        architecture = _architecture(config)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    vocab_size = _size(config, "vocab_size")
    sizes = {key: architecture[key] for key in ("block_size", "n_layer", "n_embd")}
    files = weight_files(folder)
    with needs_extra():
        from safetensors import SafetensorError, safe_open
    with ExitStack() as stack:
        try:
            opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
            file_of = {name: file for file in opened for name in file.keys()}  # noqa: SIM118  not a dictionary
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in file_of.items()}
            state = import_weights(shapes, lambda name: file_of[name].get_tensor(name), vocab_size, **sizes)
        except SafetensorError as error:
            raise ValueError(f"{folder}: the weights are damaged, or not in the format safetensors: {error}") from error
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    if config.get(BIAS) is False and not any(t.any() for name, t in state.items() if name.endswith(".bias")):
        return architecture | {"bias": False}, without_biases(state)
    return architecture, state


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: one, or those that an index names.

    Raises:
        ValueError: There are none, one is missing, or the index names a file outside of the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        advice = f": {pickles[0]} may be a pickle, which is not read; convert it to safetensors" if pickles else ""
        raise ValueError(f"{folder} has no {WEIGHTS}{advice}")
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{folder / INDEX} has no weight_map")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX} names {name!r}, which is no safetensors file of this folder")
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, which {INDEX} names")
    return [folder / name for name in names]


def facts(folder: Path) -> dict[str, Any]:
    """Return what a folder tells of a run of ours as a checkpoint does: the precision of its scores, if it is known.

    Raises:
        ValueError: It is not the name of a precision.
    """
    precision = read_object(folder / CONFIG).get(PRECISION)
    if precision is None:
        return {}
    if precision not in (known := [*PRECISIONS]):
        raise ValueError(f"{folder / CONFIG}: {PRECISION} must be one of {', '.join(known)}, not {precision!r}")
    return {"precision": precision}


def write(
    folder: Path,
    architecture: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    end_of_text: int,
    precision: str | None = None,
) -> None:
    """Write config.json, generation_config.json and model.safetensors into a folder.

    Args:
        folder: The folder, which exists.
        architecture: The arguments of `GPT` but for the size of the vocabulary.
        state: The state of the `GPT`.
        end_of_text: The id that begins and ends every text.
        precision: The precision in which the scores of the model were computed, if it is known.
    """
    with needs_extra():
        from safetensors.torch import save_file

    ids = {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    dropout = architecture.get("dropout", 0.0)
    config = {
        "architectures": [ARCHITECTURES[0]],
        "model_type": MODEL_TYPE,
        "vocab_size": len(state["token_embedding.weight"]),
        "n_positions": architecture["block_size"],
        **{key: architecture[key] for key in ("n_embd", "n_layer", "n_head")},
        "n_inner": None,
        "activation_function": "gelu_new" if architecture.get("activation") == "gelu_tanh" else "gelu",
        "layer_norm_epsilon": EPSILON,
        **{f"{place}_pdrop": dropout for place in ("resid", "embd", "attn")},
        **FIXED,
        **ids,
        "dtype": "float32",
        BIAS: "final_norm.bias" in state,
        **({PRECISION: precision} if precision else {}),
    }
    for name, content in ((CONFIG, config), ("generation_config.json", ids | {"pad_token_id": end_of_text})):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_file(export_weights(state), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors gives only the owner access


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    kind, names = config.get("model_type"), config.get("architectures") or ARCHITECTURES
    if kind != MODEL_TYPE:
        raise ValueError(f"the model_type is {kind!r}, and only {MODEL_TYPE!r} is supported")
    if not isinstance(names, list | tuple) or not any(name in ARCHITECTURES for name in names):
        raise ValueError(f"the architecture is {names}, and only {ARCHITECTURES[0]} is supported")
    for key, supported in FIXED.items():
        if config.get(key, supported) is not supported:
            raise ValueError(f"{key}={config[key]} is not supported, only {supported}")
    activation = config.get("activation_function", "gelu_new")
    if str(activation) not in ACTIVATIONS:
        raise ValueError(f"activation_function={activation} is not supported, only {', '.join(ACTIVATIONS)}")
    sizes = {key: _size(config, key) for key in SIZES}
    inner, epsilon = config.get("n_inner"), config.get("layer_norm_epsilon", EPSILON)
    if inner not in (None, 4 * sizes["n_embd"]):
        raise ValueError(f"n_inner={inner} is not supported, only 4 x n_embd, which is {4 * sizes['n_embd']}")
    if epsilon != EPSILON:
        raise ValueError(f"layer_norm_epsilon={epsilon} is not supported, only {EPSILON}")
    dropout = config.get("resid_pdrop", DROPOUT)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ValueError(f"resid_pdrop must be a number from 0 to less than 1, not {dropout!r}")
    if sizes["n_embd"] % sizes["n_head"]:
        raise ValueError(f"n_embd={sizes['n_embd']} is not divisible by n_head={sizes['n_head']}")
    return {
        "block_size": sizes["n_positions"],
        **{key: sizes[key] for key in ("n_layer", "n_head", "n_embd")},
        "dropout": float(dropout),
        "bias": True,
        "activation": ACTIVATIONS[activation],
    }


def _size(config: Mapping[str, Any], key: str) -> int:
    size = config.get(key, SIZES[key])
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{key} must be a positive integer, not {size!r}")
    return size
