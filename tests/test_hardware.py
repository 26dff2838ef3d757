import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch

from nanosq import hardware
from nanosq.hardware import Hardware


def test_what_is_asked_for() -> None:
    asked = Hardware.pick(device="cpu", precision="bf16", compile=True)
    assert (asked.device, asked.precision, asked.compile) == (torch.device("cpu"), "bf16", True)
    assert str(asked) == "cpu bf16 compiled"
    with asked.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with Hardware.pick(device="cpu", precision="fp32", compile=False).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize(
    ("capabilities", "precision"), [({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_auto_is_bf16_where_the_cpu_multiplies_it(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert Hardware.pick(device="cpu", precision="auto", compile="auto").precision == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu(native: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older GPUs, which only emulate bfloat16, multiply in fp16; only a long run is compiled."""
    monkeypatch.setattr(hardware, "_device", torch.device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    short = Hardware.pick(device="cuda", precision="auto", compile="auto", n_flops=1e12)
    long = Hardware.pick(device="cuda", precision="auto", compile="auto", n_flops=1e18)
    assert short.precision == long.precision == precision
    assert (short.compile, long.compile) == (False, True)


def test_jobs_get_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [hardware.round_robin_device(number) for number in range(5)] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
        "cuda:0",
        "cuda:1",
    ]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert hardware.round_robin_device(1) == "auto"


def test_auto_compiles_the_loss_of_a_long_run_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compiles_loss(n_logits: float) -> bool:
        picked = Hardware.pick(device="cpu", precision="fp32", compile="auto", n_flops=1e18, n_logits=n_logits)
        assert not picked.compile
        assert ("loss compiled" in str(picked)) == picked.compile_loss
        return picked.compile_loss

    monkeypatch.setenv("CXX", sys.executable)  # anything that is there
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert not compiles_loss(1e12)
    (tmp_path / "Python.h").touch()
    assert compiles_loss(1e12)
    assert not compiles_loss(1e9)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compiles_loss(1e12)


def test_only_fp16_is_scaled() -> None:
    enabled = {name: Hardware(torch.device("cpu"), name).scaler().is_enabled() for name in hardware.PRECISIONS}
    assert enabled == {"fp32": False, "bf16": False, "fp16": True}


def test_the_peak_is_that_of_a_large_product() -> None:
    place = Hardware(torch.device("cpu"))
    small = torch.ones(8, 8)
    begin = time.perf_counter()
    for _ in range(100):
        small @ small
    of_small_products = 100 * 2 * 8**3 / (time.perf_counter() - begin)
    assert place.peak_flops > of_small_products


def test_freed_memory_is_kept() -> None:
    """Page faults of allocating the same large tensor again and again, in a process of its own."""
    script = """
import resource, torch
from nanosq.hardware import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
keep_freed_memory()
for _ in range(5):
    faults()
print(before, faults())
"""
    before, after = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(after) < int(before) / 10


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"device": "tpu9"}, "device=tpu9"), ({"precision": "fp8"}, "precision=fp8"), ({"compile": "maybe"}, "compile")],
)
def test_refuses_what_is_none_of_the_choices(choice: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hardware.pick(**{"device": "cpu", "precision": "auto", "compile": "auto", **choice})
