"""``python -m lit_rnn compare``: finished runs side by side, as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_rnn.commands.parser import Parser
from lit_rnn.runs.results import read_result


def run(command: str, arguments: Sequence[str]) -> None:
    """Compare run folders: a table in the terminal, loss against steps as a picture."""
    parser = Parser(command, run.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; those on one task share a picture")
    parser.add_argument("--picture", type=Path, default=Path("compare.png"), help="where the picture goes")
    options = parser.parse_args(list(arguments))
    from lit_rnn.commands.compare.page import table  # behind --help
    from lit_rnn.commands.compare.pictures import draw
    from lit_rnn.report.console import new_console

    results = [(folder, read_result(folder)) for folder in options.runs]
    tasks = {(result["task"], result["chance"], result["metric"]) for _, result in results}
    for task in sorted(tasks):
        ours = [(f, r) for f, r in results if (r["task"], r["chance"], r["metric"]) == task]
        new_console().print(table(ours).terminal())
    if len(tasks) > 1:
        print("No picture: these runs are not on one task.")
        return
    draw(results, options.picture)
    print(f"picture: {options.picture}")
