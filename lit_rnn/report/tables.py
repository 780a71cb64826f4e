"""A table, described once: for the terminal, an HTML page, Markdown and LaTeX, looking the same."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, TypeAlias

import rich.table
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len

from datamodules.errors import as_in_yaml

Cell: TypeAlias = "str | int | float | Sequence[Cell] | Mapping[str, Cell] | None"
_WORD = 12  # characters of a text column that stay together when a terminal is narrow


@dataclass(frozen=True)
class Table:
    """Columns of text on the left, left-aligned, then columns of numbers, right-aligned.

    Args:
        header: The names of the columns; all empty if there is no header.
        rows: A `Cell` for each column: numbers as they are, rounded when shown; text as it is shown; None is empty.
        texts: How many columns hold text.
        title: Stands above.
        bold: The first cells of the rows that stand out.

    Raises:
        ValueError: if a row is longer or shorter than the header.

    Example:
        >>> Table(["matrix", "radius"], [["W", 0.13102395832538605]]).cells
        [['W', '0.131']]
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    texts: int = 1
    title: str = ""
    bold: Sequence[str] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row has {len(row)} cells, the header {len(self.header)}: {row}")

    @cached_property
    def cells(self) -> list[list[str]]:
        """What is shown, row by row."""
        return [[words(cell) for cell in row] for row in self.rows]

    def terminal(self) -> rich.table.Table:
        """For a rich console: where it is narrow, text is folded, and numbers stay whole."""
        made = rich.table.Table(
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 2, 0, 0),
            show_header=any(self.header),
            title=self.title or None,
            title_justify="left",
        )
        for column, name in enumerate(self.header):
            longest = max((cell_len(row[column]) for row in self.cells), default=0)
            if column < self.texts:
                made.add_column(name, overflow="fold", min_width=min(longest, _WORD))
            else:
                made.add_column(name, justify="right", min_width=longest)
        for row in self.cells:
            made.add_row(*row, style="bold" if row[0] in self.bold else None)
        return made

    def html(self) -> str:
        """The ``<table>`` of a page."""
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        head = f"<thead>{self._html_row('th', self.header)}</thead>" if any(self.header) else ""
        body = "".join(self._html_row("td", row, row[0] in self.bold) for row in self.cells)
        return f"<table>{title}{head}<tbody>{body}</tbody></table>"

    def _html_row(self, tag: str, cells: Sequence[str], bold: bool = False) -> str:
        marks = ("" if column < self.texts else ' class="number"' for column in range(len(cells)))
        line = (f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
        mark = ' class="bold"' if bold else ""
        return f"<tr{mark}>{''.join(line)}</tr>"

    def markdown(self) -> str:
        """A table of GitHub's Markdown, under its title."""
        kinds = ["---" if column < self.texts else "---:" for column in range(len(self.header))]
        lines = [[plain_markdown(name) for name in self.header], kinds]
        for row in self.cells:
            mark = "**" if row[0] in self.bold else ""
            lines.append([f"{mark}{plain_markdown(cell)}{mark}" if cell else "" for cell in row])
        title = [plain_markdown(self.title), ""] if self.title else []
        return "\n".join([*title, *(f"| {' | '.join(line)} |" for line in lines)])

    def latex(self) -> str:
        """A floating table with the rules of booktabs, its title as the caption."""
        kinds = "l" * self.texts + "r" * (len(self.header) - self.texts)
        lines = [r"\begin{table}", r"\centering"]
        lines += [rf"\caption{{{_latex(self.title)}}}"] if self.title else []
        lines += [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
        lines += [" & ".join(map(_latex, self.header)) + r" \\", r"\midrule"] if any(self.header) else []
        for row in self.cells:
            bold = row[0] in self.bold
            lines.append(" & ".join(rf"\textbf{{{_latex(cell)}}}" if bold else _latex(cell) for cell in row) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # behind the end of a row it would be an option
    "*": "{*}",  # there, too
    "|": r"\textbar{}",  # in TeX's own fonts a dash stands in its place
}
_LIGATURE = re.compile(r"([-`',])(?=\1)|[?!](?=`)")  # -- is a dash to TeX, `` '' ,, quotation marks, ?` and !` Spanish


def _latex(text: str) -> str:
    """Text that LaTeX prints as it is, in one line."""
    printed = "".join(_LATEX.get(sign, sign if sign.isprintable() else " ") for sign in text)
    return _LIGATURE.sub(r"\g<0>{}", printed)


def plain_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|$])", r"\\\1", text)


def words(cell: Cell) -> str:
    """A cell as it is shown: numbers rounded, lists and mappings with commas."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return as_in_yaml(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return number(cell)
    if isinstance(cell, Mapping):
        return ", ".join(f"{key} {words(item) or 'none'}" for key, item in cell.items())
    return ", ".join(words(item) or "none" for item in cell)


def number(value: float, digits: int = 4) -> str:
    """A number in so many significant digits: 0.9871, 1,024, 3.2e4, ∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    shown = f"{value:.{digits}g}"
    size = abs(float(shown))  # 999.96 is 1,000 then
    if value == 0 or math.isnan(value) or 1e-3 <= size < 1e3:
        return shown
    if 1e3 <= size < 1e4:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def lacking(count: int, runs: int) -> str:
    """Behind a mean, of how many of the runs it is, where some have no such number: one diverged, or was not tested."""
    return f" ({count} of {runs})" if 0 < count < runs else ""


def spread(mean: float | None, std: float | None) -> str:
    """Mean ± standard deviation, both to the second digit of the deviation: 0.0123 ± 0.0045.

    Each by itself where the deviation is below a millionth of the mean, as where it is rounding: 1 ± 1e-17. Only the
    mean where there is no deviation, as of one seed; nothing where there is no mean.
    """
    if mean is None:
        return ""
    if std is None:
        return number(mean)
    if std <= 1e-6 * abs(mean) or not math.isfinite(mean) or not math.isfinite(std):
        return f"{number(mean)} ± {number(std, 2)}"
    size = max(abs(mean), std)
    power = 0 if 1e-3 <= size < 1e4 else math.floor(math.log10(size))
    decimals = max(0, 1 - math.floor(math.log10(std)) + power)
    both = f"{mean / 10**power:.{decimals}f} ± {std / 10**power:.{decimals}f}"
    return f"({both})e{power}" if power else both
