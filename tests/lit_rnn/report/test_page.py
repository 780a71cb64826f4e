"""The HTML report: opens offline, says what it was given."""

import base64
from html.parser import HTMLParser
from pathlib import Path

from lit_rnn.report.page import Page
from lit_rnn.report.tables import Table

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_page_holds_what_it_was_given_and_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(PNG)
    page = Page("W & its <spectrum>")
    page.section("Spectra")
    page.text("gradient masking", warning=True)
    page.table(Table(["matrix", "rho"], [["W", "0.99"], ["<script>", "1.00"]], title="radii"))
    page.picture(tmp_path / "dot.png", "a dot")
    page.save(tmp_path / "new" / "report.html")
    text = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    read = Reader()
    read.feed(text)
    for words in ("W & its <spectrum>", "Spectra", "gradient masking", "0.99", "<script>", "radii", "a dot"):
        assert words in read.words
    assert "script" not in read.tags and read.tags.count("tr") == 3
    assert [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in read.links] == [PNG]
