"""The failures of trials at the end of a sweep."""

import pytest

from nanosq.errors import InputError
from nanosq.sweeps.seed_results import raise_first


def test_failures_are_grouped_by_their_reason(caplog: pytest.LogCaptureFixture) -> None:
    first = InputError("no heads")
    failures: dict[str, list[Exception]] = {
        "trial 0": [first, InputError("no heads")],  # of two seeds
        "trial 9": [InputError("no text")],
        **{f"trial {number}": [InputError("no heads")] for number in range(1, 7)},
    }
    with pytest.raises(InputError) as error:
        raise_first(failures)
    assert error.value is first
    assert caplog.messages == [
        "7 trials (trial 0, trial 1, trial 2, trial 3, trial 4, ...) failed: no heads",
        "trial 9 failed: no text",
    ]


def test_a_sweep_without_a_failure_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    raise_first({})
    assert not caplog.messages
