"""The built site, as a reader's browser sees it from a file: no error, no request to the network, nothing missing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is in the extra `docs`")
ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class _Links(HTMLParser):
    """What a page points to, what can be pointed at in it, and the text of its formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.to: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key in ("href", "src") and value:
                self.to.append(value)
            elif key == "id" and value:
                self.ids.add(value)


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.rglob("*.html") if path.name != "404.html")


def test_every_link_of_the_site_leads_somewhere(site: Path) -> None:
    links = {path: _Links(path.read_text()) for path in pages(site)}
    assert len(links) > 30
    for page, found in links.items():
        for link in found.to:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{page.relative_to(site)} links to {link}"
            if parts.fragment and target.suffix == ".html" and parts.fragment != "__skip":
                assert unquote(parts.fragment) in links[target].ids, f"{page.relative_to(site)} links to {link}"


def test_every_formula_is_rendered(site: Path) -> None:
    formulas = 0
    for page in pages(site):
        text = page.read_text()
        formulas += text.count("<math")
        assert "arithmatex" not in text, page
        # what latex2mathml does not know stays as it was written
        assert not re.search(r"<m[a-z]+>\\[a-zA-Z]", text), page
    assert formulas > 80


class Browser:
    """Chromium without a window, by the DevTools protocol over two pipes."""

    def __init__(self, profile: Path) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        assert CHROMIUM
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        options += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        # the protocol wants file descriptors 3 (commands) and 4 (answers); 10 and more are in nobody's way
        passed = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 10) for pipe in (commands, answers)]
        wire = f"import os, sys; os.dup2({passed[0]}, 3); os.dup2({passed[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", wire, CHROMIUM, *options],
            pass_fds=passed,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for pipe in (commands, answers, *passed):
            os.close(pipe)
        self._buffer, self._number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> list[dict[str, Any]]:
        """Load a page; what happened until it was there."""
        self.events = []
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        return self.events

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: on Debian, apt install chromium")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def faults(events: list[dict[str, Any]]) -> list[str]:
    """Errors of scripts and of loading, and requests that leave the machine."""
    found = []
    for event in events:
        told = event.get("params", {})
        if event["method"] == "Runtime.exceptionThrown":
            found.append(told["exceptionDetails"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            found.append(f"console: {told['args']}")
        elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
            found.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif event["method"] == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                found.append(f"asks for {url}")
        elif event["method"] == "Network.loadingFailed" and not told.get("canceled"):
            found.append(f"cannot load: {told['errorText']}")
    return found


BROKEN_IMAGES = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
# text that stands outside of the page, and formulas of no height
OUTSIDE = "document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"
FLAT_FORMULAS = "[...document.querySelectorAll('math')].filter(m => !m.getBoundingClientRect().height).length"


def test_a_browser_shows_every_page_without_a_fault(site: Path, browser: Browser) -> None:
    for page in pages(site):
        assert faults(browser.open(page.as_uri())) == [], page.name
        assert browser.evaluate(BROKEN_IMAGES) == [], page.name
        assert not browser.evaluate(OUTSIDE), f"{page.name} is wider than the window"
        assert browser.evaluate(FLAT_FORMULAS) == 0, page.name


def test_a_fault_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(
        """<body style="width: 5000px"><img src="none.png"><math></math>
        <script src="http://127.0.0.1:9/none.js"></script><script>console.error("no"); undefined.x</script>"""
    )
    told = " ".join(faults(browser.open((tmp_path / "broken.html").as_uri())))
    for fault in ("asks for http://127.0.0.1:9/none.js", "cannot load", "console: ", "Uncaught"):
        assert fault in told
    assert browser.evaluate(BROKEN_IMAGES) == [(tmp_path / "none.png").as_uri()]
    assert browser.evaluate(OUTSIDE) and browser.evaluate(FLAT_FORMULAS) == 1


def test_the_search_finds_without_a_server(site: Path, browser: Browser) -> None:
    browser.open((site / "models/exprnn.html").as_uri())
    found = browser.evaluate(
        """new Promise(done => {
            const query = document.querySelector("[data-md-component=search-query]")
            document.querySelector("[data-md-toggle=search]").click()
            query.focus()
            query.value = "pseudospectra"
            query.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }))
            query.dispatchEvent(new Event("input", { bubbles: true }))
            let tries = 0
            const look = () => {
                const links = [...document.querySelectorAll("a.md-search-result__link")].map(a => a.href)
                if (links.length || ++tries > 100) done(links)
                else setTimeout(look, 50)
            }
            look()
        })"""
    )
    assert any("theory/pseudospectra.html" in link for link in found), found
    assert faults(browser.events) == []
