from typing import Any

import numpy as np
import pytest

from analysis.figures import Figure
from analysis.page import Section, Table, Text, render
from analysis.recorded_run import RecordedRun
from analysis.report import calibration
from analysis.runs import RecordedSetting, settings

# Tokens, correct ones, summed confidence of three bins; the middle one is empty.
FIRST = [[10.0, 4.0, 2.0], [0.0, 0.0, 0.0], [30.0, 24.0, 27.0]]  # ece (2 + 3) / 40
SECOND = [[20.0, 2.0, 5.0], [0.0, 0.0, 0.0], [40.0, 40.0, 36.0]]  # ece (3 + 4) / 60


def run(loss: str, seed: int, bins: list[list[float]], *, ece: float | None = None, file: Any = "") -> RecordedRun:
    lines = "\n".join(",".join(map(str, row)) for row in bins)
    return RecordedRun(
        id=f"{loss}-{seed}",
        name=f"{loss} tiny",
        status="FINISHED",
        started=seed,
        link="",
        artifact_uri="",
        params={"loss._target_": f"nanosq.losses.{loss}", "seed": str(seed)},
        metrics={} if ece is None else {"test/ece": ece},
        tags={},
        _texts={"calibration.csv": f"tokens,correct,confidence\n{lines}\n" if file == "" else file},
    )


def setting(*runs: RecordedRun) -> RecordedSetting:
    return settings(runs)[0]


def both(loss: str = "squentropy") -> RecordedSetting:
    return setting(run(loss, 1, FIRST, ece=0.125), run(loss, 2, SECOND, ece=7 / 60))


def notes(section: Section) -> list[str]:
    return [block.text for block in section.blocks if isinstance(block, Text) and block.kind == "note"]


def test_ece() -> None:
    assert calibration.ece(np.array(FIRST)) == 0.125
    assert calibration.ece(calibration.read(run("focal", 1, SECOND, ece=7 / 60))) == pytest.approx(7 / 60)


@pytest.mark.parametrize(
    ("ece", "file", "message"),
    [
        (0.125, None, r"squentropy tiny \(squentro\) has no calibration.csv"),
        (0.125, "tokens,correct\n10,4\n", "is damaged"),
        (0.125, "tokens,correct,confidence\n10,4\n", "is damaged"),
        (0.125, "tokens,correct,confidence\n10,4,x\n", "is damaged"),
        (0.0, "tokens,correct,confidence\n0,0,0\n", "do not give its test/ece"),
        (0.125 + 2e-6, "", "do not give its test/ece"),
        (None, "", "do not give its test/ece"),
    ],
)
def test_bins_that_are_not_used(ece: float | None, file: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration.read(run("squentropy", 1, FIRST, ece=ece, file=file))


def test_table_and_page() -> None:
    chosen = {"cross_entropy": setting(run("cross_entropy", 1, FIRST, ece=0.125 + 5e-7)), "squentropy": both()}
    made = calibration.section(chosen)
    (table,) = (block for block in made.blocks if isinstance(block, Table))
    assert [[cell.text for cell in row] for row in table.cells()] == [
        ["cross_entropy", "12.50", "12.50 to 12.50", "1", "40", "72.50", "70.00"],
        ["squentropy", "12.08", "11.67 to 12.50", "2", "100", "70.00", "70.00"],
    ]
    assert table.cells()[1][1].value == pytest.approx(100 * (0.125 + 7 / 60) / 2)
    assert notes(made) == []
    assert "12.08" in render("", "", [made])


def test_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    finish = calibration.finish
    monkeypatch.setattr(
        calibration, "finish", lambda drawing, *rest: (drawn.append(drawing), finish(drawing, *rest))[1]
    )
    made = calibration.section({loss: both(loss) for loss in ("cross_entropy", "focal", "squentropy")})
    assert isinstance(made.blocks[0], Figure)
    panels = drawn[0].axes
    assert [panel.get_visible() for panel in panels] == [True, True, True, False]
    assert panels[2].get_title(loc="left") == "squentropy: ece 12.08 %"
    bars, diagonal, curve = panels[2].patches[0], *panels[2].lines
    np.testing.assert_allclose(bars.get_data().values, [0.3, 0, 0.7])
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(curve.get_xydata(), [[7 / 30, 6 / 30], [63 / 70, 64 / 70]])  # no empty bin
    assert len({panel.lines[1].get_marker() for panel in panels[:3]}) == 3


def test_runs_are_left_out_with_a_sentence() -> None:
    lacking = setting(run("squentropy", 1, FIRST, ece=0.125), run("squentropy", 2, SECOND, ece=0.5))
    made = calibration.section({"squentropy": lacking, "focal": setting(run("focal", 1, FIRST, file=None))})
    (table,) = (block for block in made.blocks if isinstance(block, Table))
    assert [(row[0].text, row[3].value) for row in table.cells()] == [("squentropy", 1)]
    assert [note[:36] for note in notes(made)] == [
        "Left out: the bins of squentropy tin",
        "Left out: focal tiny (focal-1) has n",
    ]


def test_nothing_to_show() -> None:
    assert "No finished run has calibration.csv" in notes(calibration.section({}))[0]
    made = calibration.section({"focal": setting(run("focal", 1, FIRST, file=None))})
    assert not any(isinstance(block, Figure | Table) for block in made.blocks)
    assert "python run.py" in notes(made)[-1]
