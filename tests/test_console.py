"""Output of a run: plain lines in a file or a pipe. tests/test_screens.py has a terminal."""

import logging
import math

import pytest

from nanosq import console
from nanosq.console import Console
from nanosq.evaluation import Score
from nanosq.result import Result
from nanosq.temperature import CalibratedScore
from nanosq.tracking import Run

TRAIN = {"train/loss": 2.5, "train/nll": 2.0, "train/tokens_per_second": 12_345.0}
VAL = Score(2.5, 2.0, 7.389, 0.75, 0.5, 0.0123, floor_nll=1.8, excess_nll=0.2)


def test_lines_without_a_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    with Console(200) as console_:
        console_.stepped(TRAIN, 10)  # printed only at an interval, unlike an evaluation
        console_.evaluated(VAL, 20)
        monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
        console_.stepped(TRAIN, 30)
    first, second = caplog.messages
    assert first == "step  20/200  val perplexity 7.389  nll 2.0000"
    assert second.startswith("step  30/200  loss 2.500  nll 2.000  12.3k tokens/s")
    assert second.endswith("left")


def test_links_only_to_a_store_that_has_all(capsys: pytest.CaptureFixture[str]) -> None:
    run, result = Run(), Result("finished", {"val/perplexity": 2.0})
    run.run_id = run.link = "0123"
    Console(1).end(result, run, further="")
    assert "`mlflow ui` shows this run" in capsys.readouterr().out
    run.unrecorded = "checkpoints/journal-1"
    Console(1).end(result, run, further="")
    assert capsys.readouterr().out.strip() == "validation perplexity 2.0000"


def test_result_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    known = Score(2.5, 2.0, 7.38906, 0.75, 0.5, 0.0123, floor_nll=1.8, excess_nll=0.2)
    unknown = Score(2.5, 2.0, 7.38906, 0.75, 0.5, 0.0123, floor_nll=math.nan, excess_nll=math.nan)
    with Console(1) as console_:
        calibrated = CalibratedScore(temperature=0.92641, nll=1.5, ece=0.008)
        console_.report(val=known, test=unknown, calibrated=calibrated, samples=["Once upon a time."])
    _, sample, *_, header, val, test, calibrated = capsys.readouterr().out.splitlines()
    assert sample == "Once upon a time."
    assert header == "      perplexity     nll  above floor  bits/byte  accuracy    ece"
    assert val == "val       7.3891  2.0000       0.2000     0.7500     50.0%  1.23%"
    assert test == "test      7.3891  2.0000                  0.7500     50.0%  1.23%"
    assert calibrated == "test, calibrated with temperature 0.9264: nll 1.5000, ece 0.80%"
