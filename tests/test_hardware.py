import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from nanosq.hardware import Hardware


def test_what_is_asked_for() -> None:
    hardware = Hardware.pick(device="cpu", precision="bf16", compile=True)
    assert (hardware.device, hardware.precision, hardware.compile) == (torch.device("cpu"), "bf16", True)
    assert str(hardware) == "cpu bf16 compiled"
    with hardware.autocast():
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


def test_auto_compiles_the_loss_of_a_long_run_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compiles_loss(n_logits: int) -> bool:
        hardware = Hardware.pick(device="cpu", precision="fp32", compile="auto", n_logits=n_logits)
        assert not hardware.compile
        assert ("loss compiled" in str(hardware)) == hardware.compile_loss
        return hardware.compile_loss

    monkeypatch.setenv("CXX", sys.executable)  # anything that is there
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert not compiles_loss(10**12)
    (tmp_path / "Python.h").touch()
    assert compiles_loss(10**12)
    assert not compiles_loss(10**9)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not compiles_loss(10**12)


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"device": "tpu9"}, "device=tpu9"), ({"precision": "fp8"}, "precision=fp8"), ({"compile": "maybe"}, "compile")],
)
def test_refuses_what_is_none_of_the_choices(choice: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hardware.pick(**{"device": "cpu", "precision": "auto", "compile": "auto", **choice})
