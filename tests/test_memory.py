"""Estimates of memory, and the memory that a sweep keeps."""

import gc
import multiprocessing
import re
import traceback
import weakref

import pytest
import torch
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from torch import nn

from nanosq import errors, memory
from nanosq.errors import InputError
from nanosq.memory import GIB
from nanosq.sweeps.returns import DropConfigurations

GPT2 = {"n_layer": 12, "n_embd": 768, "block_size": 1024}


def needed(n_windows: int, available: float = 64 * GIB) -> list[memory.Need]:
    return memory.needs(**GPT2, n_windows=n_windows, vocab_size=50_257, available=available)


def test_the_estimate_is_below_what_gpt2_needs() -> None:
    """The README has 4.5 GiB with four windows, and 3.4 GiB with one, measured with AdamW in bf16."""
    for n_windows, measured in ((1, 3.4), (4, 4.5)):
        assert measured / 4 < sum(need.n_bytes for need in needed(n_windows)) / GIB < measured
    memory.check(needed(4), 4.5 * GIB)


def test_the_message_has_a_batch_that_fits() -> None:
    with pytest.raises(InputError, match=r"at least [\d.,]+ GiB of memory are needed, and there are 4\.5 GiB") as error:
        memory.check(needed(10_000, 4.5 * GIB), 4.5 * GIB)
    (text,) = re.findall(r"train.batch_size to ([\d,]+) or less", str(error.value))
    fitting = int(text.replace(",", ""))
    memory.check(needed(fitting), 4.5 * GIB)
    with pytest.raises(InputError):
        memory.check(needed(fitting + 1), 4.5 * GIB)


def test_the_advice_is_about_what_does_not_fit() -> None:
    small = {"n_layer": 2, "n_embd": 64, "block_size": 64, "n_windows": 4}
    for larger, vocab_size, advice in (
        ({"n_embd": 10**6}, None, "lower model.n_embd or model.n_layer"),
        ({}, 10**12, "lower data.tokenizer.pad_to"),
        ({"block_size": 10**12}, None, "model.block_size"),
    ):
        with pytest.raises(InputError, match=advice):
            memory.check(memory.needs(**{**small, **larger}, vocab_size=vocab_size, available=GIB), GIB)


def test_the_memory_of_this_machine() -> None:
    assert 0.5 * GIB < memory.free() <= memory.total()


def test_an_allocation_beyond_the_free_memory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the limit, Linux would lend the memory and later kill the process that uses it."""
    monkeypatch.setattr(memory, "free", lambda: 64 * 2**20)
    monkeypatch.setattr(memory, "_meminfo", dict)
    process = multiprocessing.get_context("fork").Process(target=_allocate)
    process.start()
    process.join()
    assert process.exitcode == 0


def _allocate() -> None:
    memory.limit_to_free()
    torch.empty(16 * 2**20, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as error:
        torch.empty(4 * 2**30, dtype=torch.uint8)  # more than an earlier test has left for reuse
    assert errors.is_out_of_memory(error.value)
    with pytest.raises(MemoryError):
        bytearray(4 * 2**30)


def test_an_error_that_is_kept_holds_no_model() -> None:
    kept = []

    def trial() -> None:
        model = nn.Linear(1, 1)
        models.append(weakref.ref(model))
        try:
            model(torch.zeros(3))
        except RuntimeError as error:
            raise ValueError("it failed") from error

    models: list[weakref.ref[nn.Linear]] = []
    try:
        trial()
    except ValueError as error:
        errors.forget_variables(error)
        kept.append(error)
    gc.collect()
    assert models[0]() is None
    assert "model(torch.zeros(3))" in "".join(traceback.format_exception(kept[0]))


def test_a_sweep_keeps_no_configuration_of_a_job() -> None:
    returned = JobReturn(cfg=OmegaConf.create(), hydra_cfg=OmegaConf.create())
    DropConfigurations().on_job_end(config=None, job_return=returned)
    assert returned.cfg is None
    assert returned.hydra_cfg is None
