"""Scores that are read from the output of a run."""

import pytest

from analysis.benchmarks.quality import printed_scores

OUTPUT = """
step 760/760  val perplexity 15.55  nll 2.7441

      perplexity     nll  above floor  bits/byte  accuracy    ece
val      15.5501  2.7441                  1.0308     41.6%  0.74%
test      1.8108  0.5938       0.3099     0.2196     79.9%  4.07%
test, calibrated with temperature 0.9649: nll 2.6801, ece 1.11%
"""


def test_scores_are_read_with_and_without_a_floor() -> None:
    assert printed_scores(OUTPUT, "val") == {"perplexity": 15.5501, "nll": 2.7441, "bits_per_byte": 1.0308}
    assert printed_scores(OUTPUT, "test") == {"perplexity": 1.8108, "nll": 0.5938, "bits_per_byte": 0.2196}


def test_run_without_scores_is_an_error() -> None:
    with pytest.raises(ValueError, match="no score of the val split"):
        printed_scores("step 760/760  val perplexity 15.55", "val")
