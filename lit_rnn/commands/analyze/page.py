"""What `analyze` found, as a page, pictures, files and a table in the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path

from rich.progress import track

from lit_rnn.commands.analyze import measure, pictures
from lit_rnn.commands.analyze.findings import remarks, rows, save, table
from lit_rnn.commands.analyze.states import pictures as of_states
from lit_rnn.commands.analyze.work import Work
from lit_rnn.report.console import new_console
from lit_rnn.report.page import Page

_PANELS = [*pictures.PANELS, *of_states.PANELS]


def _file_names(names: Iterable[str]) -> dict[str, str]:
    """What the picture of each is called: letters a to z and digits, and a number where another has that already."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "matrix"
        numbered = (f"{plain}-{number}" for number in count(2))
        found[name] = next(one for one in chain([plain], numbered) if one not in found.values())
    return found


def write(work: Work, left_out: Sequence[str], folder: Path) -> None:
    """analysis.html, analysis.json and a picture for each matrix in ``folder``; the table in the terminal."""
    moments, findings = work.moments, work.findings
    model = moments[-1].model
    title = f"{type(model).__name__} on {model.task.name}: {' and '.join(moment.label for moment in moments)}"
    head = {
        "model": type(model).__name__,
        "task": model.task.name,
        "moments": {
            moment.label: {"ckpt_path": moment.path, "steps": moment.model.optimizer_steps} for moment in moments
        },
        "parts": [*work.parts, *work.data_parts],
        "settings": {**asdict(work.settings), "eps": measure.EPS, "decoder_noise": measure.NOISE},
    }
    page = Page(title)
    page.text(", ".join(f"{moment.label}: {moment.path}" for moment in moments))
    for sentence in left_out:
        page.text(sentence, warning=True)
    console = new_console()
    hidden = not console.is_terminal
    for name, by_moment in track(
        findings.items(), "pictures", len(findings), console=console, transient=True, disable=hidden
    ):
        page.section(name)
        picture = folder / f"{_file_names(findings)[name]}.png"
        if pictures.draw_page(f"{name}, {title}", by_moment, picture, _PANELS):
            page.picture(picture, pictures.caption(by_moment, _PANELS))
        for sentence in remarks(by_moment):
            page.text(sentence)
        page.table(rows(by_moment))
    page.save(folder / "analysis.html")
    files = save(head, findings, left_out, folder)
    lines, legend = table(findings)
    console.print(title, lines.terminal(), legend, sep="\n", highlight=False)
    for name, by_moment in findings.items():
        for sentence in remarks(by_moment):
            console.print(f"{name}: {sentence}", highlight=False)
    for sentence in left_out:
        console.print(sentence, highlight=False)
    print(f"report: {folder / 'analysis.html'}")
    print(f"numbers: {', '.join(str(file) for file in files)}")
