"""The pages of the study and the README's results follow from the files in results/. Their pictures exist."""

import functools
import re

import pytest

from analysis.study import page, results
from analysis.study.__main__ import BEGIN, END, README, with_results
from tests.commandline import ROOT

rendered = functools.cache(page.render)


def test_the_readme_has_the_results_of_the_csv_file() -> None:
    text = (ROOT / README).read_text()
    assert with_results(text) == text


def test_a_changed_number_in_the_readme_is_noticed() -> None:
    text = (ROOT / README).read_text()
    before, section = text.split(BEGIN)
    number = re.findall(r"\d\.\d{3}", section.split(END)[0])[0]
    changed = before + BEGIN + section.replace(number, "9.999", 1)
    assert changed != text
    assert with_results(changed) == text


@pytest.mark.parametrize(("name", "template"), page.PAGES.items())
def test_the_pages_are_those_of_the_csv_files(name: str, template: str) -> None:
    assert (page.HERE / name).read_text() == rendered(template)


def test_a_readme_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the lines"):
        with_results("# nanosq\n")


def test_pictures_of_the_page_exist() -> None:
    text = rendered("page.md.j2")
    names = re.findall(r"\]\((figures/\S+\.png)\)", text)
    assert {page.HERE / name for name in names} == {page.PICTURES / f"{figure.name}.png" for figure in page.pictures()}
    assert all((page.HERE / name).stat().st_size > 5000 for name in names)


@pytest.mark.parametrize("template", page.PAGES.values())
def test_links_of_the_pages_exist(template: str) -> None:
    text = rendered(template)
    links = re.findall(r"\]\(([^:)#]*)(?:#([^)]+))?\)", text)
    assert links
    for link, heading in links:
        assert (page.HERE / link).exists()
        if heading:
            linked = (page.HERE / link).read_text() if link else text
            assert heading in {
                re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
                for line in linked.splitlines()
                if line.startswith("#")
            }


def test_files_are_small() -> None:
    assert (results.FOLDER / "stories.npz").stat().st_size < 2_000_000
