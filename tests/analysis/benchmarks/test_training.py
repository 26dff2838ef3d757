"""The comparison of training steps."""

import math
from dataclasses import replace

import pytest
import torch

from analysis.benchmarks.lib.memory import MIB
from analysis.benchmarks.lib.shapes import SHAPES, batches
from analysis.benchmarks.lib.training_steps import MeasuredTrainer, build_step
from analysis.benchmarks.lib.workers import Measured
from analysis.benchmarks.training import comparison, contenders, summary
from nanosq.hardware import Hardware

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALL = replace(SHAPES["tiny"], n_embd=32, vocab_size=97, batch_size=2, block_size=16)


def names(loss: str, hardware: Hardware) -> set[str]:
    return {contender.name for contender in contenders(loss, hardware)} - {"transformers bf16"}


def test_peers_on_a_cpu_are_nanogpt_as_it_runs_there_in_bf16_and_compiled() -> None:
    peers = {"nanoGPT fp32", "nanoGPT bf16", "nanoGPT bf16 compiled"}
    ours = Hardware(CPU, "bf16", compile_loss=True)
    assert contenders("squentropy", ours)[0].name == "nanosq bf16 loss compiled"
    assert names("squentropy", ours) == {"nanosq bf16 loss compiled", *peers}


def test_peers_on_a_gpu_are_in_bf16() -> None:
    peers = {"nanoGPT bf16", "nanoGPT bf16 compiled"}
    assert names("cross_entropy", Hardware(GPU, "bf16", compile=True)) == {"nanosq bf16 compiled", *peers}


def test_best_peer_is_the_fastest() -> None:
    ours, *peers = contenders("squentropy", Hardware(CPU, "bf16"))
    costs = {ours: Measured(0.25, 100 * MIB)}
    costs |= {peer: Measured(seconds, 400 * MIB) for peer, seconds in zip(peers, (2.0, 1.0, 0.5), strict=True)}
    table = comparison(SMALL, costs)
    assert [*table.index] == [ours.name, *(peer.name for peer in reversed(peers))]
    assert [*table["speedup"]] == [1, 2, 4, 8]
    assert table["tokens/s"][ours.name] == SMALL.tokens / 0.25
    assert summary(table) == (
        "nanosq takes 250 ms a step, 2.00 x as fast as the best peer, nanoGPT bf16 compiled, with 0.25 x of its memory"
    )


def test_table_without_nanosq_has_no_best_peer() -> None:
    _, *peers = contenders("squentropy", Hardware(CPU, "bf16"))
    table = comparison(SMALL, {peers[0]: Measured(1.0, MIB)})
    assert math.isnan(table["speedup"].iloc[0])
    assert summary(table) == "nothing to compare"


@pytest.mark.slow
def test_model_of_transformers_learns_the_targets_that_it_is_given() -> None:
    pytest.importorskip("transformers")
    step = build_step(MeasuredTrainer("transformers", "cross_entropy", Hardware(CPU)), SMALL, None)
    ((tokens_BT, targets_BT),) = batches(SMALL, 1, device=CPU)
    losses = [float(step(tokens_BT, targets_BT)) for _ in range(3)]
    assert losses[0] == pytest.approx(math.log(SMALL.vocab_size), abs=0.2)
    assert losses[2] < losses[1] < losses[0]
