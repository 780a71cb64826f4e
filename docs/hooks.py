"""What mkdocs does beside its plugins: formulas become MathML, and notebooks pages, so that pages need no network."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# what pymdownx.arithmatex makes of $..$ and $$..$$
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_THIN = '<mspace width="0.1667em"/>'
# what latex2mathml leaves to a browser that does not know it, as TeX has it
_AS_IN_TEX = [
    # bars hug what is between them, and are as high as it
    (r"<mo[^>]*>(&#x02016;|&#x0007C;)</mo>", r'<mo stretchy="false" lspace="0em" rspace="0em">\1</mo>'),
    (r"<mi>:</mi>", r"<mo>:</mo>"),
    (r"<mi>&#x0007E;</mi>", r"<mo>&#x0223C;</mo>"),
    (r'mathvariant="sans-serif"', r'mathvariant="normal"'),
    (r"<mo>((?!sup|inf|max|min|lim)[A-Za-z]{2,})</mo>", r"<mi>\1</mi>"),
    # thin spaces around the name of a function, but before a parenthesis
    (r"(<mi>[A-Za-z]{2,}</mi>)(?!<mo[^>]*>&#x00028;|</|<mo>[,;.])", rf"\1{_THIN}"),
    (r"(</mi>|</mn>|</msup>|</msub>|</msqrt>)(<mi>[A-Za-z]{2,}</mi>)", rf"\1{_THIN}\2"),
]


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; ``display`` is block or inline."""
    code = convert(latex.strip(), display=display)
    for pattern, instead in _AS_IN_TEX:
        code = re.sub(pattern, instead, code)
    return code


def _page(name: str, cells: list[dict[str, Any]]) -> Iterator[tuple[str, str | bytes]]:
    """The page of a notebook and its pictures, as (file name, content); its first code cell is for Colab only."""
    parts, pictures, code_cells = [], 0, 0
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        code_cells += 1
        if code_cells == 1:
            continue
        parts.append(f"```python\n{source}\n```")
        text = ""
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                picture = f"{name}-{pictures}.png"
                pictures += 1
                yield picture, base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above draws]({picture})")
            else:
                text += re.sub(r"\x1b\[[\d;]*m", "", "".join(data["text/plain"])).strip("\n") + "\n"
        if text:
            parts.append(f"```text\n{text}```")
    yield f"{name}.md", "\n\n".join(parts) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of each notebook, its committed outputs included."""
    for path in sorted(Path(config.docs_dir, "tutorials").glob("*.ipynb")):
        for name, content in _page(path.stem, json.loads(path.read_text())["cells"]):
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a notebook, which GitHub shows, leads to its page here."""
    return markdown.replace(".ipynb)", ".md)")


def on_page_content(content: str, **_: Any) -> str:
    """Put MathML in place of each LaTeX formula."""
    return _FORMULA.sub(lambda m: mathml(html.unescape(m[2]), "block" if m[1] == "div" else "inline"), content)
