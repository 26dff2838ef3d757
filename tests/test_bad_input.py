"""Bad input through the real command line: one line that says what to change, exit status 2, nothing written."""

from pathlib import Path

import pytest

from tests import bad_input
from tests.bad_input import Case
from tests.commandline import command

# A third of the cases of each kind. `python -m tests.bad_input` tries all of them, in minutes.
CASES = [
    pytest.param(case, id=f"{kind}: {case.command}")
    for kind, cases in bad_input.by_kind().items()
    for case in cases[::3]
]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    bad_input.fill(tmp_path)
    case.prepare(tmp_path)
    before = bad_input.content(tmp_path)
    result = command(*case.arguments, cwd=tmp_path, program=case.program, **(case.variables or {}))
    after = bad_input.content(tmp_path)
    written = {path: data for path, data in after.items() if path not in before or before[path] != data}
    faults = bad_input.faults(case, result.returncode, result.stdout, result.stderr, written)
    assert not faults, (faults, result.returncode, result.stdout, result.stderr, sorted(written))
    assert before.keys() <= after.keys()


@pytest.mark.parametrize(
    "options", [["--cfg", "all", "--package", "hydra.job"], ["--cfg", "hydra", "--resolve"], ["--info", "defaults"]]
)
def test_options_that_show_the_configuration(options: list[str], tmp_path: Path) -> None:
    assert command(*options, cwd=tmp_path, check=True).stdout
