"""One table for the terminal and the page: aligned by kind, rounded, whole, refused where ragged."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest
from rich.console import Console

from lit_rnn.report.console import new_console
from lit_rnn.report.tables import Table, number, spread, words

LONG = 0.13102395832538605


def printed(table: Table, width: int = 80) -> list[str]:
    """The lines of the terminal."""
    file = io.StringIO()
    Console(file=file, width=width).print(table.terminal())
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_text_is_left_aligned_and_numbers_are_right_aligned() -> None:
    table = Table(["run", "model", "loss"], [["a", "LSTM", LONG], ["long", "x", 12]], texts=2)
    header, _, first, second = printed(table)
    assert first.index("LSTM") == second.index("x") == header.index("model")
    assert len(first) == len(second) == len(header), "numbers end in one column"
    assert first.split() == ["a", "LSTM", "0.131"]
    kinds = re.findall(r"<(td|th)( class=\"number\")?>", table.html())
    assert [bool(mark) for _, mark in kinds] == 3 * [False, False, True]


def test_terminal_and_page_show_the_same_texts() -> None:
    table = Table(["name", "n", "x"], [["a", 1024, LONG], ["b", None, math.inf]], title="T", bold=["b"])
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table.html())
    assert cells == ["a", "1,024", "0.131", "b", "", "∞"]
    assert [word for line in printed(table)[3:] for word in line.split()] == [cell for cell in cells if cell]
    assert "<caption>T</caption>" in table.html() and printed(table)[0] == "T"
    assert table.html().count('<tr class="bold">') == 1


def test_a_narrow_terminal_folds_text_and_keeps_numbers() -> None:
    table = Table(["setting", "validation loss", "best"], [["lr=0.001, hidden_size=190, " * 3, LONG, 0.25]])
    lines = "\n".join(printed(table, width=40))
    assert "…" not in lines and "0.131" in lines and "0.25" in lines
    assert all(len(line) <= 40 for line in lines.splitlines())


def test_without_a_header_there_is_none() -> None:
    table = Table(["", ""], [["steps", 3]], texts=2)
    assert "<thead>" not in table.html() and [line.split() for line in printed(table)] == [["steps", "3"]]


def test_text_of_a_page_is_escaped() -> None:
    html = Table(["<b>"], [["<script>"]], title="a & b").html()
    assert "<script>" not in html and "<b>" not in html and "a &amp; b" in html


def test_a_ragged_row_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        Table(["a"], [["1", "2"]])


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (True, "true"),
        ({"early_stop": False}, "early_stop false"),
        (12_345, "12,345"),
        (LONG, "0.131"),
        ("0.13102395832538605", "0.13102395832538605"),
        ({"steps": 40, "step_size": LONG, "norms": None}, "steps 40, step_size 0.131, norms none"),
        ([0.1, LONG], "0.1, 0.131"),
    ],
)
def test_cells(cell: Any, text: str) -> None:
    assert words(cell) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98712, "0.987"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (-999.6, "-1,000"),
        (9999.0, "1.0e4"),
        (0.00099996, "0.001"),
        (32_100.0, "3.2e4"),
        (3e-8, "3.0e-8"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "nan"),
        (-0.5, "-0.5"),
    ],
)
def test_numbers_in_three_digits(value: float, text: str) -> None:
    assert number(value, 3) == text


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (None, None, ""),
        (LONG, None, "0.131"),
        (0.012345, 0.00451, "0.0123 ± 0.0045"),
        (0.5, 0.123, "0.50 ± 0.12"),
        (123.4, 11.0, "123 ± 11"),
        (0.25, 0.0, "0.25 ± 0"),
        (5.04e-7, 2.1e-8, "(5.04 ± 0.21)e-7"),
        (2.5e5, 1.2e4, "(2.50 ± 0.12)e5"),
        (1.0, math.inf, "1 ± ∞"),
        (1.0, 1e-17, "1 ± 1e-17"),
        (3e-17, 1e-17, "(3.0 ± 1.0)e-17"),
        (0.0, 0.0, "0 ± 0"),
    ],
)
def test_mean_and_deviation(mean: float | None, std: float | None, text: str) -> None:
    assert spread(mean, std) == text


def test_names_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """They may be of somebody else's folders."""
    console = new_console()
    console.print(Table(["run"], [["\x1b[31m[red]\r"]], title="two\nlines").terminal())
    console.print("left out: \u202ename")
    out = capsys.readouterr().out
    assert r"\x1b[31m[red]\r" in out and r"\u202ename" in out and "two" in out.splitlines()[0]
    assert all(line.isprintable() for line in out.splitlines())


def test_markdown() -> None:
    table = Table(["run", "x|y"], [["a_b*", LONG], ["<i>\nc", None]], title="T_1", bold=["a_b*"])
    assert table.markdown().splitlines() == [
        r"T\_1",
        "",
        r"| run | x\|y |",
        "| --- | ---: |",
        r"| **a\_b\*** | **0.131** |",
        "| &lt;i&gt; c |  |",
    ]


def test_latex() -> None:
    table = Table(
        ["run_1", "x"], [["[a] & 5%", "0.1 ± 0.2"], ["b\\c", math.inf], ["*\r|", 1]], title="50 % #1", bold=["b\\c"]
    )
    assert table.latex().splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% \#1}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"run\_1 & x \\",
        r"\midrule",
        r"{[}a] \& 5\% & 0.1 $\pm$ 0.2 \\",
        r"\textbf{b\textbackslash{}c} & \textbf{$\infty$} \\",
        r"{*} \textbar{} & 1 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_latex_joins_no_signs() -> None:
    """Two hyphens are no dash, and two apostrophes no quotation mark."""
    lines = Table(["a--b", "a-b"], [["---", -0.5], ["``x''", "?` !` ,,"]]).latex().splitlines()
    assert lines[4] == r"a-{}-b & a-b \\" and lines[6:8] == [r"-{}-{}- & -0.5 \\", r"`{}`x'{}' & ?{}` !{}` ,{}, \\"]
