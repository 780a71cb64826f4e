"""A report as one HTML file that opens offline: sentences, tables and pictures, nothing fetched, no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: right }
th:first-child, td:first-child { text-align: left } caption { text-align: left; color: #555; padding-bottom: .3rem }
img { max-width: 100% } figure { margin: 1rem 0 } figcaption { color: #555 }
.warning { background: #fff4d6; border-left: 4px solid #e0a800; padding: .4rem .8rem }
"""


class Page:
    """A page that grows from top to bottom.

    Example:
        >>> page = Page("Report")
        >>> page.section("Numbers")
        >>> page.table(["name", "value"], [["rho", "0.99"]])
        >>> page.save(Path("report.html"))  # doctest: +SKIP
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]

    def section(self, title: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(title)}</h2>")

    def text(self, text: str, warning: bool = False) -> None:
        """A paragraph; a ``warning`` stands out."""
        mark = ' class="warning"' if warning else ""
        self._parts.append(f"<p{mark}>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
        """A table of texts; a row has one for each column of the header.

        Raises:
            ValueError: if a row has another length.
        """
        head = "".join(f"<th>{escape(name)}</th>" for name in header)
        lines = []
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"a row has {len(row)} cells, the header {len(header)}: {row}")
            lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        self._parts.append(f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")

    def picture(self, path: Path, caption: str = "") -> None:
        """A PNG, inside the page."""
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        words = escape(caption)
        note = f"<figcaption>{words}</figcaption>" if caption else ""
        self._parts.append(f'<figure><img alt="{words}" src="data:image/png;base64,{data}">{note}</figure>')

    def save(self, path: Path) -> None:
        """Write the page."""
        head = f'<meta charset="utf-8"><title>{escape(self.title)}</title><style>{_STYLE}</style>'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
            + "\n".join(self._parts)
            + "\n</body></html>\n",
            encoding="utf-8",
        )
