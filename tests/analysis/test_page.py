import csv
import itertools
import math
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from analysis import figures, labels, page
from analysis.page import Cell, Facts, Samples, Section, Table, Text, number, value_cell


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


@pytest.mark.parametrize(
    ("value", "text", "exact"),
    [
        ("0.0010308029378718058", "0.001031", 0.0010308029378718058),
        ("1600", "1600", 1600),
        (0.008, "0.008", 0.008),
        ("cosine", "cosine", "cosine"),
        (True, "True", "True"),
        (None, "\N{EN DASH}", None),
    ],
)
def test_values_of_settings_are_short_and_the_file_has_all_digits(value: object, text: str, exact: object) -> None:
    cell = value_cell(value)
    assert (cell.text, cell.value) == (text, exact)


def test_a_column_of_numbers_may_hold_a_few_texts() -> None:
    rows = [["x", number(i), "x" if i % 2 else number(i)] for i in range(8)]
    assert Table("t", ["name", "n", "mixed"], [*rows, ["seeds", "3, 4", "y"]]).numeric() == [False, True, False]
    assert Table("t", ["name"], []).numeric() == [False]


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
    blocks = [
        Text("<script>", "verdict"),
        table,
        figure("one"),
        figure("two"),
        Samples([("t", "a\n\nb <i>")]),
        Facts("box", [("data", "<p>")]),
    ]
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


def test_nothing_is_wider_than_a_narrow_screen(html: str) -> None:
    """Panels shrink below their width, and shown of more than three columns become cards with named cells."""
    panels = re.findall(r'<div style="width: (\d+)px">\s*<svg (?![^>]*width=)', html)
    assert len(panels) == 2
    assert all(int(width) <= figures.PANEL[0] * figures.INCH + 1 for width in panels)
    assert ".panels > div { max-width: 100%; }" in html
    wide = Table("wide", ["a.b", "b", "c", "d"], [["x", 1, 2, 3]])
    shown = page.render("", "", [Section("s", [wide, Table("small", ["a", "b"], [["x", 1]])])])
    assert re.findall(r'<table id="table-(\w+)"( class="cards")?', shown) == [("wide", ' class="cards"'), ("small", "")]
    assert re.findall(r'<td data-label="([^"]*)"', shown) == [*wide.header, "a", "b"]


def test_panels_of_a_figure_are_separate_on_the_page_and_together_in_the_file() -> None:
    with figures.style():
        drawing, panels = figures.panels(4)
        for axes in panels:
            axes.set(xlabel="x", ylabel="y")
        several = figures.finish(drawing, "several", "")
    assert [width for _, width in several.inline()] == [round(figures.PANEL[0] * figures.INCH)] * 4
    (box,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', several.svg)
    width, height = (72 * size for size in figures.PANEL)
    assert [float(size) for size in box] == pytest.approx([3 * width, 2 * height])


def test_names_beside_lines_do_not_overlap() -> None:
    heights = [0.1] * 5
    for places in ([0.5] * 5, [0.0] * 5, [1.2] * 5, [0.1, 0.12, 0.5, 0.51, 0.99]):
        moved = labels.spread(places, heights)
        assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(moved))
        assert moved[0] >= 0.05 - 1e-9
        assert moved[-1] <= 0.95 + 1e-9


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
