from pathlib import Path

from tests import kill_and_resume


def test_a_run_that_is_killed_ends_where_an_undisturbed_one_ends(tmp_path: Path) -> None:
    kill_and_resume.check(kill=2, terminate=1, seed=1, scratch=tmp_path)
