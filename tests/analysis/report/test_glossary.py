import pytest

from analysis.page import render
from analysis.report import glossary


def test_command_prints_every_term_and_metric_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert glossary.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in (*glossary.TERMS, *glossary.METRICS):
        assert [line for line in lines if line.startswith(f"{name}  ")], name


def test_page_shows_the_terms() -> None:
    page = render("Title", "lead", [glossary.section()])
    assert all(name in page for name in glossary.TERMS)
