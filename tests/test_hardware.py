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


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"device": "tpu9"}, "device=tpu9"), ({"precision": "fp8"}, "precision=fp8"), ({"compile": "maybe"}, "compile")],
)
def test_refuses_what_is_none_of_the_choices(choice: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hardware.pick(**{"device": "cpu", "precision": "auto", "compile": "auto", **choice})
