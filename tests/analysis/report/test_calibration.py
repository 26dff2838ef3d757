from typing import Any

import numpy as np
import pytest

from analysis.figures import Figure
from analysis.page import Table, render
from analysis.recorded_run import RecordedRun
from analysis.report import calibration
from analysis.runs import RecordedSetting, settings
from tests.analysis.blocks import tables, texts
from tests.analysis.recorded import run, to_csv

# Tokens, correct tokens, summed confidence of three bins; the middle one is empty.
FIRST = [[10.0, 4.0, 2.0], [0.0, 0.0, 0.0], [30.0, 24.0, 27.0]]  # ece (2 + 3) / 40
SECOND = [[20.0, 2.0, 5.0], [0.0, 0.0, 0.0], [40.0, 40.0, 36.0]]  # ece (3 + 4) / 60


def calibrated(
    loss: str, seed: int, bins: list[list[float]], ece: float | None = None, file: str | None = ""
) -> RecordedRun:
    text = to_csv(("tokens", "correct", "confidence"), bins) if file == "" else file
    return run(loss, seed, metrics={} if ece is None else {"test/ece": ece}, artifacts={"calibration.csv": text})


def setting(*runs: RecordedRun) -> RecordedSetting:
    return settings(runs)[0]


def two_seeds(loss: str = "squentropy") -> RecordedSetting:
    return setting(calibrated(loss, 1, FIRST, 0.125), calibrated(loss, 2, SECOND, 7 / 60))


def test_ece() -> None:
    assert calibration.ece(np.array(FIRST)) == 0.125
    assert calibration.ece(calibration.read(calibrated("focal", 1, SECOND, 7 / 60))) == pytest.approx(7 / 60)


@pytest.mark.parametrize(
    ("ece", "file", "message"),
    [
        (0.125, None, r"squentropy \d+ \(\w{8}\) has no calibration.csv"),
        (0.125, "tokens,correct\n10,4\n", "is damaged"),
        (0.125, "tokens,correct,confidence\n10,4\n", "is damaged"),
        (0.125, "tokens,correct,confidence\n10,4,x\n", "is damaged"),
        (0.0, "tokens,correct,confidence\n0,0,0\n", "do not give its test/ece"),
        (0.125 + 2e-6, "", "do not give its test/ece"),
        (None, "", "do not give its test/ece"),
    ],
)
def test_unusable_bins_are_an_error(ece: float | None, file: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration.read(calibrated("squentropy", 1, FIRST, ece, file))


def test_table_and_page() -> None:
    best = {"cross_entropy": setting(calibrated("cross_entropy", 1, FIRST, 0.125 + 5e-7)), "squentropy": two_seeds()}
    section = calibration.section(best)
    cells = tables(section)["calibration"].cells()
    assert [[cell.text for cell in row] for row in cells] == [
        ["cross_entropy", "12.50", "12.50 to 12.50", "1", "40", "72.50", "70.00"],
        ["squentropy", "12.08", "11.67 to 12.50", "2", "100", "70.00", "70.00"],
    ]
    assert cells[1][1].value == pytest.approx(100 * (0.125 + 7 / 60) / 2)
    assert texts(section) == ""
    assert "12.08" in render("", "", [section])


def test_diagram(drawings: dict[str, Any]) -> None:
    calibration.section({loss: two_seeds(loss) for loss in ("cross_entropy", "focal", "squentropy")})
    panels = drawings["calibration"].axes
    assert len(panels) == 3
    assert panels[2].get_title(loc="left") == "squentropy: ece 12.08 %"
    bars, diagonal, curve = panels[2].patches[0], *panels[2].lines
    np.testing.assert_allclose(bars.get_data().values, [0.3, 0, 0.7])
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(curve.get_xydata(), [[7 / 30, 6 / 30], [63 / 70, 64 / 70]])  # without the empty bin
    assert len({panel.lines[1].get_marker() for panel in panels[:3]}) == 3


def test_runs_without_usable_bins_are_left_out_with_a_note() -> None:
    partial = setting(calibrated("squentropy", 1, FIRST, 0.125), calibrated("squentropy", 2, SECOND, 0.5))
    missing = setting(calibrated("focal", 1, FIRST, file=None))
    section = calibration.section({"squentropy": partial, "focal": missing})
    cells = tables(section)["calibration"].cells()
    assert [(row[0].text, row[3].value) for row in cells] == [("squentropy", 1)]
    first, second = texts(section, "note").splitlines()
    assert first.startswith("Left out: the bins of squentropy ")
    assert second.startswith("Left out: focal ")


def test_without_bins_there_is_a_note_only() -> None:
    assert "No finished run has calibration.csv" in texts(calibration.section({}), "note")
    section = calibration.section({"focal": setting(calibrated("focal", 1, FIRST, file=None))})
    assert not any(isinstance(block, Figure | Table) for block in section.blocks)
    assert "python run.py" in texts(section, "note")
