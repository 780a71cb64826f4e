"""A report as one HTML file that opens offline: sentences, tables and pictures, nothing fetched, no script."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from lit_rnn.files import write_file
from lit_rnn.report.tables import Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top }
td { white-space: pre-wrap } .number { text-align: right; white-space: nowrap } .bold { font-weight: bold }
caption { text-align: left; color: #555; padding-bottom: .3rem }
img { max-width: 100% } figure { margin: 1rem 0 } figcaption { color: #555 }
.warning { background: #fff4d6; border-left: 4px solid #e0a800; padding: .4rem .8rem }
"""


class Page:
    """A page that grows from top to bottom.

    Example:
        >>> page = Page("Report")
        >>> page.section("Numbers")
        >>> page.table(Table(["name", "value"], [["rho", 0.99]]))
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

    def table(self, table: Table) -> None:
        """A table."""
        self._parts.append(table.html())

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
        write_file(
            path,
            f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n'
            + "\n".join(self._parts)
            + "\n</body></html>\n",
        )
