import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nanosq import hardware
from nanosq.hardware import Hardware
from tests.commandline import SMALL, command


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_compile_failure", lambda *_: "")
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
    monkeypatch.setattr(hardware, "_compile_failure", lambda *_: "")
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


def test_auto_compiles_the_loss_of_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_compile_failure", lambda *_: "")
    for n_logits, is_compiled in ((1e12, True), (1e9, False)):
        picked = Hardware.pick(device="cpu", precision="fp32", compile="auto", n_flops=1e18, n_logits=n_logits)
        assert not picked.compile
        assert picked.compile_loss == ("loss compiled" in str(picked)) == is_compiled


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ImportError("No module named 'triton'"), "No module named 'triton'"),
        (
            RuntimeError("CppCompileError: C++ compile error\n\nCommand:\ng++ a.cpp\n\nOutput:\na.cpp:1:10: fatal "
                         "error: Python.h: No such file or directory\n    1 | #include <Python.h>"),
            "a.cpp:1:10: fatal error: Python.h: No such file or directory",
        ),
    ],
)  # fmt: skip
def test_the_reason_why_nothing_is_compiled(
    error: Exception, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU needs Triton, and a CPU the headers of Python. The loss is tried on the device of the run."""

    def head_loss(*_: object, compile: bool) -> None:
        raise error

    monkeypatch.setattr(hardware, "head_loss", head_loss)
    picked = Hardware.pick(device="cpu", precision="fp32", compile="auto", n_logits=1e12)
    assert not picked.compile_loss
    assert caplog.messages == [f"compile=auto: nothing is compiled, because {why}"]
    with pytest.raises(ValueError, match=f"use compile=false: {re.escape(why)}"):
        Hardware.pick(device="cpu", precision="fp32", compile=True)


# A run that is long enough to be compiled, and ends after a step because it diverges.
LONG = [
    *[setting for setting in SMALL if "max_steps" not in setting],
    *["loss=squentropy", "train.max_steps=10000000", "optimizer.lr=1e38", "train.clip_norm=null", "precision=fp32"],
    *["tracking=none"],
]
UNTRACEABLE = """
import torch
@torch.library.custom_op("test::exp", mutates_args=())
def exp(values: torch.Tensor) -> torch.Tensor:
    return values.exp()
def keep(ctx, inputs, output):
    ctx.save_for_backward(output)
exp.register_autograd(lambda ctx, grad: grad * ctx.saved_tensors[0], setup_context=keep)
def nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return exp(shifted).sum(-1).log() - shifted[torch.arange(len(targets)), targets]
"""


@pytest.mark.slow  # PyTorch is imported again, and looks for a compiler for a long time
def test_a_run_with_a_broken_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/false")
    result = command(*LONG, "compile=auto", cwd=tmp_path, warm=False)  # PyTorch reads the variable when it is imported
    check_not_compiled(result, "auto", "No working C++ compiler", tmp_path)


def test_a_run_that_cannot_write_what_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/dev/null/cache")
    result = command(*LONG, "compile=true", cwd=tmp_path, warm=False)
    check_not_compiled(result, "true", "Not a directory", tmp_path)


def test_a_run_whose_loss_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "untraceable.py").write_text(UNTRACEABLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    loss = ["loss=cross_entropy", "loss._target_=untraceable.nll", "compile=true"]
    check_not_compiled(command(*LONG, *loss, cwd=tmp_path, warm=False), "true", "no fake impl", tmp_path)


def check_not_compiled(result: subprocess.CompletedProcess[str], compile: str, why: str, folder: Path) -> None:
    """Check the one line, and that `auto` trains while `true` writes nothing."""
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith(("compile=", "error: compile=")))
    assert why in line
    assert len(line) < 450
    assert result.returncode == (0 if compile == "auto" else 2), result.stderr
    assert ("diverged after 1 steps" in result.stderr) == (compile == "auto")
    assert (folder / "checkpoints").exists() == (folder / "cache").exists() == (compile == "auto")


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
