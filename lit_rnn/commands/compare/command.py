"""``python -m lit_rnn compare``: finished runs side by side, as tables and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UserError, require
from lit_rnn.commands.parser import Parser, add_threads
from lit_rnn.files import check_folder, make_folder, refuse_links, write_csv, write_file
from lit_rnn.runs.endings import is_diverged
from lit_rnn.threads import use_threads

_FILES = {"csv": "all digits", "markdown": "a table of Markdown", "latex": "a table of LaTeX's booktabs"}

_PICTURES = (".png", ".svg", ".pdf", ".eps", ".jpg", ".webp")


def run(command: str, arguments: Sequence[str]) -> None:
    """Compare finished runs: one table per task with mean and spread over seeds, and loss against steps as pictures."""
    options = _options(command, arguments)
    if options.threads is not None:
        use_threads(options.threads)
    from lit_rnn.commands.compare import measure, page, pictures  # behind --help
    from lit_rnn.commands.compare.subject import by_name_alone, find_runs, read_diverged, read_run, tested_elsewhere
    from lit_rnn.report.console import new_console

    finished, unfinished = find_runs(options.runs)
    diverged = [folder for folder in unfinished if is_diverged(folder)]
    runs = [read_run(one) for one in finished]
    comparisons = measure.compare(runs, [read_diverged(one) for one in diverged])
    lacking = [measure.without_curve(comparisons), tested_elsewhere(runs), by_name_alone(runs)]
    lacking.append(measure.tests_of_several(comparisons))
    notes = [*measure.apart(comparisons), *filter(None, lacking)]
    if unfinished:
        told = [f"{folder} (diverged)" if folder in diverged else str(folder) for folder in unfinished]
        notes.append(f"Left out, not finished: {', '.join(told)}.")
    for name in ("picture", *_FILES):
        if getattr(options, name) is not None:
            make_folder(getattr(options, name).parent, f"--{name}")
    console = new_console()
    for comparison in comparisons:
        made, told = page.tables(comparison, options.published)
        for one in made:
            console.print(one.terminal())
        for note in told:
            console.print(note, highlight=False)
    every = notes + (page.published_notes(comparisons) if options.published else [])
    for sentence in every:
        console.print(sentence, highlight=False)
    drawn = pictures.draw_each(comparisons, options.picture)
    for path in drawn:
        print(f"picture: {path}")
    if options.html is not None:
        make_folder(options.html, "--html")
        print(f"page: {page.write_page(comparisons, notes, drawn, options.published, options.html)}")
    if options.csv is not None:
        write_csv(options.csv, page.rows(comparisons) + (page.published_rows(comparisons) if options.published else []))
    if options.markdown is not None:
        write_file(options.markdown, page.markdown(comparisons, every, options.published))
    if options.latex is not None:
        write_file(options.latex, page.latex(comparisons, every, options.published))
    for name in _FILES:
        if getattr(options, name) is not None:
            print(f"{name}: {getattr(options, name)}")


def parser(command: str) -> Parser:
    """The options."""
    made = Parser(command, run.__doc__)
    add = made.add_argument
    add("runs", nargs="+", metavar="RUNS", help="run folders, folders with runs below them (studies), or patterns")
    add("--published", action="store_true", help="put published figures beside ours, each with its status")
    add(
        "--picture", type=Path, default=Path("compare.png"), metavar="FILE", help="where the picture goes (compare.png)"
    )
    add("--html", type=Path, metavar="DIR", help="also write compare.html there, a page that opens offline")
    for name, what in _FILES.items():
        default = Path("compare").with_suffix({"csv": ".csv", "markdown": ".md", "latex": ".tex"}[name])
        add(f"--{name}", type=Path, nargs="?", const=default, metavar="FILE", help=f"also write {what} ({default})")
    add_threads(add)
    return made


def _options(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    options = parser(command).parse_args(list(arguments))
    for name in ("picture", *_FILES):
        path = getattr(options, name)
        if path is not None and path.is_dir():
            raise UserError(f"--{name} {path} is a folder: name a file, or put --{name} after the runs.")
        if path is not None:
            check_folder(path.parent, f"--{name}")
        same = path is not None and options.html is not None and path.absolute() == options.html.absolute()
        require(not same, f"--{name}", str(path), "another name than --html, which is a folder")
    ending = options.picture.suffix
    require(ending.lower() in _PICTURES, "--picture", str(options.picture), f"a file ending in {', '.join(_PICTURES)}")
    if options.html is not None:
        refuse_links(options.html)
        check_folder(options.html, "--html")
    return options
