"""The overrides of a comparison."""

import pytest

from nanosq.errors import InputError
from nanosq.sweeps import contenders


def test_lists_are_contenders_and_everything_else_is_common() -> None:
    typed = ["loss=cross_entropy,squentropy", "optimizer=adamw", "optimizer.lr=interval(1e-3,1e-2)", "seed=4,5"]
    entry = contenders.parse([*typed, "model.n_layer=range(1,3)", "+x=1"])
    assert entry.contenders == {"cross_entropy": {"loss": "cross_entropy"}, "squentropy": {"loss": "squentropy"}}
    assert entry.fixed == ["optimizer=adamw", "+x=1"]
    assert entry.axes == ["optimizer.lr=interval(1e-3,1e-2)", "model.n_layer=range(1,3)"]
    assert entry.seeds == (4, 5)


def test_several_lists_name_all_combinations() -> None:
    entry = contenders.parse(["model.n_layer=1,2", "optimizer=choice(adamw,muon)"])
    assert [*entry.contenders] == [f"model.n_layer={n} {optimizer}" for n in (1, 2) for optimizer in ("adamw", "muon")]


def test_a_later_override_replaces_an_earlier_one() -> None:
    entry = contenders.parse(["loss=brier", "optimizer=adamw,sgd", "optimizer=muon", "loss=focal,poly1"])
    assert [*entry.contenders] == ["focal", "poly1"]
    assert entry.fixed == ["optimizer=muon"]


@pytest.mark.parametrize("typed", [[], ["loss=brier"], ["seed=1,2"], ["optimizer.lr=interval(0,1)"], ["a=range(1,5)"]])
def test_fewer_than_two_contenders_are_refused(typed: list[str]) -> None:
    with pytest.raises(InputError, match=r"needs two contenders: list them, as in loss=cross_entropy,squentropy"):
        contenders.parse(typed)


def test_the_command_is_the_one_that_was_typed() -> None:
    typed = ["loss=cross_entropy,squentropy", "seed=4,5", "data.source.train='a b.txt'", "optimizer.lr=interval(0,1)"]
    hydra = ["hydra.mode=MULTIRUN", "hydra/sweeper=compare", "hydra.sweeper.storage=postgresql://me:secret@host/db"]
    assert contenders.parse(typed).command(hydra) == (
        "python run.py -m hydra/sweeper=compare 'hydra.sweeper.storage=postgresql://me:***@host/db' "
        "loss=cross_entropy,squentropy seed=4,5 'data.source.train='\"'\"'a b.txt'\"'\"'' 'optimizer.lr=interval(0,1)'"
    )
