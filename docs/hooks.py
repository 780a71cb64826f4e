"""What mkdocs does beside its plugins: formulas become MathML, so that pages need neither a script nor the network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# what pymdownx.arithmatex makes of $..$ and $$..$$
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return convert(html.unescape(found[2]).strip(), display=display)


def on_page_content(content: str, **_: Any) -> str:
    """Put MathML in place of each LaTeX formula."""
    return _FORMULA.sub(_mathml, content)
