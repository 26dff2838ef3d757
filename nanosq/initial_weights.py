"""Weights that exist, for the model of a run: its sizes, its window and its vocabulary."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from nanosq.data.tokenizers import GPT2, CutGPT2, Tokenizer
from nanosq.huggingface.other_tokenizer import HuggingFaceTokenizer
from nanosq.model import GPT
from nanosq.pretrained import Pretrained

SIZES = ("n_layer", "n_head", "n_embd", "block_size", "bias", "activation")
DEFAULTS = {p.name: p.default for p in inspect.signature(GPT).parameters.values() if p.default is not p.empty}
POSITIONS = "position_embedding.weight"  # the one tensor whose size depends on the window
OF_GPT2 = (GPT2, CutGPT2)  # tokenizers whose tokens are those of GPT-2, or a part of them


def missing_sizes(configured: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of weights that a configuration leaves to them: those that are null or absent in it.

    Args:
        configured: Arguments of `GPT` in the configuration.
        trained: Arguments of the `GPT` whose weights they are.
    """
    left = [key for key in SIZES if configured.get(key) is None and (key in configured or key in trained)]
    return {key: trained.get(key, DEFAULTS.get(key)) for key in left}


def check_sizes(configured: Mapping[str, Any], trained: Mapping[str, Any], origin: str) -> None:
    """Check that no size in a configuration contradicts the weights. The window may be shorter than theirs.

    Args:
        configured: Arguments of `GPT` in the configuration.
        trained: Arguments of the `GPT` whose weights they are.
        origin: The setting that names the weights.

    Raises:
        ValueError: A size contradicts.
    """
    for key in SIZES:
        value, of_weights = configured.get(key), trained.get(key, DEFAULTS.get(key))
        is_shorter = key == "block_size" and isinstance(value, int) and value < of_weights
        if value is not None and value != of_weights and not is_shorter:
            found, needed = (str(size).lower() for size in (value, of_weights))
            raise ValueError(
                f"model.{key} is {found}, and the weights of {origin} have {needed}: "
                f"set model.{key}={needed}, or leave it to model=pretrained"
            )


def check_complete(configured: Mapping[str, Any]) -> None:
    """Check that all sizes of a model with new weights are set.

    Raises:
        ValueError: One is null.
    """
    for key in SIZES:
        if key in configured and configured[key] is None:
            raise ValueError(
                f"model.{key}=null is that of the weights of init_from=..., which is not set: "
                f"set init_from or model.{key}, or choose another model, such as model=tiny"
            )


def check_weights(pretrained: Pretrained, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Check what can be known about the weights of a run before its text is prepared.

    Args:
        pretrained: The weights.
        model: The model of the run with the vocabulary of the weights.
        tokenizer: The tokenizer of the run, not fitted to its text yet.

    Raises:
        ValueError: They are of another model, or of other tokens.
    """
    pretrained.check(model, any_length=POSITIONS if isinstance(model, GPT) else "")
    if type(tokenizer) is not type(pretrained.tokenizer):
        _check_gpt2(tokenizer, pretrained.tokenizer, str(pretrained.path))


def fit(pretrained: Pretrained, tokenizer: Tokenizer, block_size: int) -> dict[str, Tensor]:
    """Return the weights for a window of `block_size` tokens, and for a tokenizer with a part of their tokens.

    Raises:
        ValueError: As for `rows`.
    """
    weights, tokens = dict(pretrained.weights), "token_embedding.weight"
    weights[POSITIONS] = weights[POSITIONS][:block_size]
    if tokenizer.state() != pretrained.tokenizer.state():
        weights[tokens] = weights[tokens][rows(tokenizer, pretrained.tokenizer, str(pretrained.path))]
    return weights


def rows(tokenizer: Tokenizer, trained: Tokenizer, path: str) -> list[int]:
    """Return the row of an embedding for each id of a tokenizer: that of the same token, and of padding for padding.

    Args:
        tokenizer: The tokenizer of this run.
        trained: The tokenizer with which the embedding was trained.
        path: The file or folder of the embedding, for messages.

    Raises:
        ValueError: The embedding has no such row, or one of the tokenizers does not have GPT-2's tokens.
    """
    _check_gpt2(tokenizer, trained, path)
    spellings, n_trained = tokenizer.spellings, len(trained.spellings)
    row = {spelling: i for i, spelling in enumerate(trained.spellings)}
    if unknown := [spelling for spelling in spellings if spelling not in row]:
        raise ValueError(
            f"{path} was trained on another text and lacks {len(unknown):,} of the tokens of this one, such as "
            f"{unknown[0].decode(errors='replace')!r}: use its data settings, or weights with all of GPT-2's tokens"
        )
    n_padding, most = tokenizer.vocab_size - len(spellings), trained.vocab_size - n_trained
    if n_padding > most:  # new rows of zeros would have logits far above those of the tokens
        largest = len(spellings) + most if most else "null"
        raise ValueError(
            f"data.tokenizer.pad_to={tokenizer.vocab_size} adds {n_padding} ids that never occur, "
            f"and {path} has {most} of them: set data.tokenizer.pad_to={largest}"
        )
    return [*(row[spelling] for spelling in spellings), *range(n_trained, n_trained + n_padding)]


def _check_gpt2(tokenizer: Tokenizer, trained: Tokenizer, path: str) -> None:
    if isinstance(tokenizer, OF_GPT2) and isinstance(trained, OF_GPT2):
        return
    advice = "set data.tokenizer as it was"
    if isinstance(trained, HuggingFaceTokenizer):  # which no data.tokenizer is
        advice = "only weights with GPT-2's tokens, or a part of them, can be trained further"
    raise ValueError(
        f"{path} was trained with another tokenizer ({type(trained).__name__}) than this run has "
        f"({type(tokenizer).__name__}): {advice}"
    )
