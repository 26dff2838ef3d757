import csv
import math
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from analysis import figures, page
from analysis.page import Cell, Facts, Samples, Section, Table, Text, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.82104, "1.821"),
        (-0.5, "\N{MINUS SIGN}0.5000"),
        (3.25, "3.250"),
        (5.0, "5"),
        (2_211_413.0, "2,211,413"),
        (1e-9, "1.000e-09"),
        (math.nan, "\N{EN DASH}"),
        (math.inf, "∞"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value).text == text


def figure(name: str) -> figures.Figure:
    with figures.style():
        drawing, (axes,) = figures.panels()
        for i in range(6):
            axes.plot([0, 1], [i, i + 1], **figures.series(i))
        return figures.finish(drawing, name, "A <caption> & more")


def test_series_look_different() -> None:
    looks = [figures.series(number) for number in range(36)]
    assert all(looks.count(look) == 1 for look in looks)


@pytest.fixture(scope="module")
def html() -> str:
    table = Table("t", ["a<b", "n"], [["x & y", number(1 / 3)], [Cell("run", "id", "http://host/#/runs/id"), "z"]])
    others = [figure("one"), figure("two"), Samples([("t", "a\n\nb <i>")]), Facts("box", [("data", "<p>")])]
    blocks = [Text("<script>", "verdict"), table, *others]
    return page.render("Title & more", "lead", [Section("Part one", blocks), Section("Empty")])


def test_the_page_asks_the_network_for_nothing(html: str) -> None:
    fetched = re.findall(r'<(?:link|script|img|iframe|image|use)\b[^>]*(?:href|src)="([^"]*)"', html)
    assert all(target.startswith(("data:", "#")) for target in fetched), fetched
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_what_is_written_is_text(html: str) -> None:
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a\n\nb &lt;i&gt;" in html
    assert f'data-value="{1 / 3}"' in html


def test_ids_are_unique_where_something_refers_to_them(html: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', html)
    referred = set(re.findall(r'(?:url\(#|href="#)([^")]*)', html))
    assert referred <= set(ids)
    assert all(ids.count(name) == 1 for name in referred)


def test_colors_of_a_figure_follow_the_page(html: str) -> None:
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    left = {color for color in re.findall(r"#[0-9a-f]{6}\b", svg) if color not in ("#000000", "#ffffff")}
    assert not left & {light for light, _ in figures.THEME.values()}
    for name, _ in figures.THEME.items():
        assert f"--{name}:" in html
    assert "var(--series-6)" in svg


def test_files_beside_the_page(tmp_path: Path) -> None:
    table = Table("t", ["a", "n"], [["x", number(1 / 3)], ["y", number(math.nan)]])
    path = page.write(tmp_path / "out", "t", "l", [Section("s", [table, figure("one")])])
    assert path == tmp_path / "out" / "report.html"
    assert {file.name for file in path.parent.iterdir()} == {"report.html", "t.csv", "one.svg", "one.png"}
    with (path.parent / "t.csv").open() as file:
        assert list(csv.reader(file)) == [["a", "n"], ["x", str(1 / 3)], ["y", "\N{EN DASH}"]]
    assert (path.parent / "one.svg").read_text().startswith("<?xml")
    assert not plt.get_fignums()


def test_the_same_figure_is_the_same_file() -> None:
    assert figure("one").svg == figure("one").svg
