"""What the pages and the README tell a reader to type, typed: every block of code and every command, at small sizes."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import datamodules
import lit_rnn.models
from lit_rnn.__main__ import COMMANDS, main
from lit_rnn.published import published

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
MOST_NOT_RUN = 12
TINY = "--trainer.limit_train_batches 2 --trainer.limit_val_batches 1 --trainer.log_every_n_steps 1 --threads 1"
SMALL = {
    "fit": f"{TINY} --data.init_args.batch_size 4 --model.init_args.hidden_size 8",
    "test": "--trainer.limit_test_batches 1",
    "predict": "--trainer.limit_predict_batches 1",
    "analyze": "--points 6 --samples 2 --steps 5",
    "attack": "--samples 3 --steps 2 --restarts 1 --queries 3 --draws 2 --smoothing_draws 9 --smoothing_samples 1",
    "study": "--dry_run",
    "compare": "",
    "autotune": "",
}


class Block(NamedTuple):
    """A fenced block: its language, the file that it is where it has a title, and why it is not run where it is not."""

    language: str
    file: str
    text: str
    reason: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(
        r'^(?:<!-- not run: (.+?) -->\n)?```(\w*)(?: title="(.+?)")?\n(.*?)^```$', page.read_text(), re.DOTALL | re.M
    )
    return [Block(language, file, text, reason) for reason, language, file, text in found]


def commands(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


RUNNING = [page for page in PAGES if any(not block.reason and block.language != "text" for block in blocks(page))]


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def small(command: str, arguments: list[str]) -> list[str]:
    """The arguments of a command with what makes it small: a fit whose run nobody reads is one batch."""
    if command == "study" and "--export" in arguments:
        return arguments
    extra = SMALL[command].split()
    if command == "fit":
        if "--print_config" in arguments or "--model.help" in arguments:
            return arguments
        if re.search(
            "pixel_mnist|penn_treebank|timit|speech_commands", " ".join(arguments)
        ):  # a download, or what a user brings
            return [*arguments, "--print_config"]
        if "--run_dir" in arguments:
            extra += ["--trainer.max_epochs", "2" if "--ckpt_path" in arguments else "1"]
        else:
            extra += ["--trainer.fast_dev_run", "1"]
    return [*arguments, *extra]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that several pages speak of."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    call = ["-c", "pixel_digits/exprnn.yaml", "--run_dir", str(folder), *SMALL["fit"].split()]
    assert main(["fit", *call, "--trainer.max_epochs", "1"]) == 0
    return folder


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, where a page's files are importable while it is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run_command(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets), line  # tests/test_install.py runs make
        return
    assert words[:3] == ["python", "-m", "lit_rnn"], f"how to run `{line}`? Else say why not: <!-- not run: ... -->"
    try:
        status: Any = main([words[3], *small(words[3], words[4:])])
    except SystemExit as left:
        status = left.code
    assert status == 0, line


def run_python(text: str, names: dict[str, Any]) -> None:
    """Run a block; a number in a comment behind an expression is compared with its value, to the digits shown."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        code = "\n" * (node.lineno - 1) + "\n".join(lines[node.lineno - 1 : node.end_lineno])
        told = re.search(r"#\s*(-?\d[\d.]*)", lines[node.end_lineno - 1] if isinstance(node, ast.Expr) else "")
        if told is None:
            exec(compile(code, "page", "exec"), names)
            continue
        value = float(eval(compile(code.strip(), "page", "eval"), names))
        number = told[1].rstrip(".")
        digits = len(number.partition(".")[2])
        assert abs(value - float(number)) < 0.6 * 10**-digits, f"`{code.strip()}` gives {value}"


@pytest.mark.parametrize("page", RUNNING, ids=relative)
def test_what_a_page_says_runs(
    page: Path, workspace: Path, digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = [block for block in blocks(page) if not block.reason]
    made = [line for block in there if block.language == "sh" for line in commands(block)]
    # a page's own run/digits, or the one that all share
    if not any(" fit " in line and "--ckpt_path" not in line and "runs/digits " in f"{line} " for line in made):
        shutil.copytree(digits, workspace / "runs/digits")
    names: dict[str, Any] = {"__name__": "page"}
    for block in there:
        if block.file:
            Path(block.file).write_text(block.text)
        elif block.language == "sh":
            for line in commands(block):
                run_command(line, monkeypatch)
        elif block.language == "python":
            run_python(block.text, names)
        else:
            assert block.language == "text", f"a block of {block.language or 'no language'} has no title"
    capsys.readouterr()


def test_a_wrong_number_on_a_page_is_noticed() -> None:
    run_python("x = 2.0\nx / 3  # 0.667 = two thirds", {})
    with pytest.raises(AssertionError, match=r"0\.66666"):
        run_python("x = 2.0\nx / 3  # 0.665", {})


def test_few_blocks_are_not_run() -> None:
    left_out = [(relative(page), block.reason) for page in PAGES for block in blocks(page) if block.reason]
    assert len(left_out) <= MOST_NOT_RUN, left_out


def test_every_command_and_config_of_the_pages_exists() -> None:
    """Of those that are not run, too, and of those that stand in the text."""
    text = "\n".join(page.read_text() for page in PAGES)
    for command in re.findall(r"python -m lit_rnn (\w+)", text):
        assert command in COMMANDS, command
    for name in re.findall(r"(?:`|-c |--config |study )((?:\w+/)+\w+\.yaml)", text):
        place = ROOT if name.startswith("lit_rnn/") else ROOT / "configs"
        assert (place / name.removeprefix("configs/")).is_file(), name
    for name in re.findall(r"\btests/[\w/]+(?:\.\w+)?", text):
        assert (ROOT / name).exists(), name


def test_the_tables_name_every_model_and_data_module() -> None:
    def named(page: str) -> set[str]:
        table = (ROOT / "docs" / page).read_text().partition("\n\n## ")[0]
        return set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE))))

    models = {name for name in lit_rnn.models.__all__ if name[0].isupper()} - {"SequenceModel", "OrthogonalRNN"}
    data = {name for name in datamodules.__all__ if hasattr(getattr(datamodules, name), "train_dataloader")}
    assert named("models/index.md") == models
    assert named("data.md") == data - {
        "SequenceDataModule",
        "GeneratedDataModule",
        "LengthDataModule",
        "StreamDataModule",
        "TextDataModule",
    }


def test_every_model_has_a_page() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/models").glob("*.md") if page.name != "index.md")
    for name in lit_rnn.models.__all__:
        if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN"):
            published = {"ScoRNN": "scoRNN", "ScuRNN": "scuRNN", "HouseholderRNN": "oRNN", "NnRNN": "nnRNN"}
            plain = {"VanillaRNN": "Plain RNN", "EURNN": "EURNN", "StatisticalRU": "SRU"}
            assert published.get(name, plain.get(name, name)) in pages, name


def claimed(page: str) -> Iterator[str]:
    """The numbers behind "Published" in a paragraph, and in the table it announces; a size such as 1.32M is none."""
    paragraphs = page.split("\n\n")
    for text, after in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        if "Published" in text:
            table = after if text.endswith(":") and after.startswith("|") else ""
            yield from re.findall(r"(?<![\w.])\d+\.\d+(?!\d|\.\d|[MK])", text[text.index("Published") :] + table)


def test_published_figures_are_those_of_published_yaml() -> None:
    """Digit for digit, and of a model that the page names."""
    found = 0
    for path in (ROOT / "docs/models").glob("*.md"):
        page = path.read_text()
        figures = {
            one.value for one in published() if one.name in page or (one.model is not None and one.model in page)
        }
        for number in claimed(page):
            assert number in figures, f"{relative(path)}: {number} is not in lit_rnn/published.yaml"
            found += 1
    assert found > 60


def test_every_link_of_the_files_on_github_leads_somewhere() -> None:
    """As files of the repository, without the site that is made of them."""
    pages = [*PAGES[:4], *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 50
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            assert link.startswith("https:") or (page.parent / link).is_file(), f"{relative(page)} links to {link}"


def test_github_runs_what_a_laptop_runs() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make --keep-going lint test"]
    for template in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(template.read_text())
        assert template.name == "config.yml" or {"name", "description", "body"} <= form.keys()
