"""The comparison of losses in words."""

import pandas as pd

from analysis.benchmarks.loss import summary


def test_head_is_compared_with_the_fastest_peer_of_the_same_loss_and_of_cross_entropy() -> None:
    seconds = {
        ("cross_entropy", "head"): 0.5,
        ("cross_entropy", "head, compiled"): 0.4,
        ("cross_entropy", "all logits"): 1.0,
        ("cross_entropy", "liger_kernel"): 0.8,
        ("squentropy", "head"): 0.6,
        ("squentropy", "all logits"): 1.2,
    }
    index = pd.MultiIndex.from_tuples(seconds, names=["loss", "method"])
    assert summary(pd.DataFrame({"seconds": [*seconds.values()]}, index=index)) == [
        "cross_entropy: nanosq's head takes 400 ms, 0.50 x the time of cross_entropy by liger_kernel",
        "squentropy: nanosq's head takes 600 ms, 0.50 x the time of squentropy by all logits, "
        "0.75 x the time of cross_entropy by liger_kernel, 1.50 x that of cross_entropy through the head",
    ]


def test_loss_without_peers_is_compared_with_nothing() -> None:
    index = pd.MultiIndex.from_tuples([("focal", "head")], names=["loss", "method"])
    assert summary(pd.DataFrame({"seconds": [0.5]}, index=index)) == ["focal: nanosq's head takes 500 ms"]
