"""The page of the study and the README's results follow from the files in results/."""

import re

import pytest

from analysis.study import page, results
from analysis.study.__main__ import BEGIN, END, README, with_results
from tests.commandline import ROOT


def test_the_readme_has_the_results_of_the_csv_file() -> None:
    text = (ROOT / README).read_text()
    assert with_results(text) == text


def test_a_changed_number_in_the_readme_is_noticed() -> None:
    text = (ROOT / README).read_text()
    section = text.split(BEGIN)[1].split(END)[0]
    number = re.findall(r"\d\.\d{3}", section)[0]
    assert with_results(text.replace(number, "9.999", 1)) == text


def test_the_page_is_that_of_the_csv_file() -> None:
    assert (page.HERE / "README.md").read_text() == page.render("page.md.j2")


def test_a_readme_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        with_results("# nanosq\n")


def test_pictures_of_the_page_exist() -> None:
    text = page.render("page.md.j2")
    names = re.findall(r"\]\((figures/\S+\.png)\)", text)
    assert {page.HERE / name for name in names} == {page.PICTURES / f"{figure.name}.png" for figure in page.pictures()}
    assert all((page.HERE / name).stat().st_size > 5000 for name in names)


def test_links_of_the_page_exist() -> None:
    links = re.findall(r"\]\(([^:)#]+)\)", page.render("page.md.j2"))
    assert links
    assert all((page.HERE / link).exists() for link in links)


def test_files_are_small() -> None:
    assert (results.FOLDER / "stories.npz").stat().st_size < 2_000_000
