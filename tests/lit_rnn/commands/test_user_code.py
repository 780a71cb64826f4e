"""Models and data of a user's own: what is wrong with them is one sentence that names file and line, or the sample."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import CopyMemory, UserError
from lit_rnn.commands.analyze.subject import matrices
from lit_rnn.models import load
from lit_rnn.models.probes import recurrent_matrices

pytestmark = pytest.mark.usefixtures("_no_pictures")

IMPORTS = """\
import torch
from datamodules import SequenceDataModule, Task
from datamodules.base import IndexedBatches
from lit_rnn.cells import VanillaRNNCell
from lit_rnn.models import SequenceModel
"""  # 5 lines

MODEL = """\
class {name}(SequenceModel):
    def build_cell(self, input_size):
        return VanillaRNNCell(input_size, self.options.hidden_size)
"""

DATA = """\
class Split(IndexedBatches):
    def __init__(self, owner, name):
        self.owner, self.name = owner, name
    def __len__(self):
        return 32
    def __getitem__(self, indices):
        return self.owner.batch(torch.as_tensor(indices), self.name)
class {name}(SequenceDataModule):
    def __init__(self, batch_size: int = 8, num_workers: int = 0{arguments}):
        super().__init__(batch_size, num_workers=num_workers)
        self.task = Task("mine", "values", 2, "label", 3, 5, "last", 1.1, "accuracy", True)
    def split(self, name):
        return Split(self, name)
    def batch(self, indices, name):
        inputs, targets = torch.full((len(indices), 5, 2), 0.1), indices % 3
        {spoil}
        return inputs, targets
"""

_numbers = itertools.count()
Write = Callable[[str], tuple[str, str]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module (with ``{name}`` for a class of its own, as no two may share one); gives module and class."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(text: str) -> tuple[str, str]:
        number = next(_numbers)
        (tmp_path / f"own_{number}.py").write_text(IMPORTS + text.replace("{name}", f"Own{number}"))
        return f"own_{number}", f"own_{number}.Own{number}"

    return module


def own_model(path: str) -> dict[str, Any]:
    return {"class_path": path, "init_args": {"hidden_size": 8}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("class {name}(SequenceModel:\n    pass\n", 6, ["SyntaxError"]),
        ("import no_such_module_anywhere\n" + MODEL, 6, ["no_such_module_anywhere"]),
        ("x = 1 / 0\n" + MODEL, 6, ["ZeroDivisionError"]),
        (MODEL.replace("VanillaRNNCell(", "VanilaRNNCell("), 8, ["build_cell", "'VanilaRNNCell'"]),
        (MODEL.replace("hidden_size)", "hidden_size, bogus=3)"), 8, ["build_cell", "bogus"]),
        (MODEL.replace("self.options.hidden_size", "self.options.hiden_size"), 8, ["build_cell", "hiden_size"]),
        (MODEL.replace("return Vanilla", "Vanilla"), 7, ["build_cell", "None", "Cell"]),
        (MODEL + "    def after_step(self, step):\n        self.oops\n", 10, ["after_step", "oops"]),
    ],
    ids=["syntax", "import", "at import", "typo", "argument", "option", "returns nothing", "after a step"],
)
def test_a_model_names_file_and_line(
    refused: Any, config: Any, write: Write, text: str, line: int, words: list[str]
) -> None:
    module, path = write(text)
    sentence = refused("fit", "-c", config(model=own_model(path)), "--run_dir", "r", leaves=True)
    assert all(word in sentence for word in [f"{module}.py line {line}", *words]), sentence
    assert not Path("r").exists()


CELL = """\
from lit_rnn.cells import Cell
class Plain(Cell):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.input = torch.nn.Linear(input_size, hidden_size)
        self.recurrent = torch.nn.Linear(hidden_size, hidden_size)
    def weights(self):
        return self.recurrent.weight
    def step(self, u, state, W):
        h = torch.tanh(u + state[0] @ W.mT)
        return h, (h,)
    def recurrent_matrices(self):
        return {"recurrent": self.recurrent.weight}
""" + MODEL.replace("VanillaRNNCell", "Plain")


@pytest.mark.filterwarnings("ignore:Plain. .* or step changes in place what it gave before:UserWarning")
@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("return h, (h,)", "return h", ["Plain.step returns (", "(y, state)"]),
        ("return h, (h,)", "return h, h", ["Plain.step returns ((", "state is a tuple"]),
        ("return h, (h,)", "return h, (h, h)", ["Plain.step returns ((", "(y, state)"]),
        ("return h, (h,)", "return h[:, :-1], (h,)", [", 7)", ", 8)"]),
        ("return h, (h,)", "return h, (h[:1],)", ["(1, 8)"]),
        ("return h, (h,)", "pass", ["Plain.step returns NoneType"]),
        ("return h, (h,)", "return h.detach(), (h.detach(),)", ["No gradient reaches Plain"]),
        ("self.input =", "self.reads =", ["Plain has no map called input", "define drive"]),
        ("weights(self)", "weights(self, x)", [".py line 12, in weights: TypeError: Plain.weights() missing 1"]),
        ("u, state, W)", "u, state)", [".py line 14, in step: TypeError: Plain.step() takes 3 positional"]),
        ("h = torch.tanh(u +", "h = state[0].tanh_().add_(u +", ["Plain: what it computes with changes in place"]),
    ],
)
def test_what_a_cell_returns_is_told(
    refused: Any, config: Any, write: Write, right: str, wrong: str, words: list[str]
) -> None:
    _, path = write(CELL.replace(right, wrong))
    sentence = refused("fit", "-c", config(model=own_model(path)), "--run_dir", "r", leaves=True)
    assert all(word in sentence for word in words), sentence


def test_what_no_gradient_reaches_is_told(cli: Any, config: Any, write: Write) -> None:
    """It would stay as it starts, without a word, and the parameters would count it."""
    without_bias = CELL.replace("Linear(hidden_size, hidden_size)", "Linear(hidden_size, hidden_size, bias=False)")
    _, path = write(without_bias)
    assert cli("fit", "-c", config(model=own_model(path)), "--run_dir", "r").status == 0  # a warning would be an error
    _, path = write(without_bias.replace("W.mT", "W.mT.detach()"))
    with pytest.warns(UserWarning, match=r"No gradient reaches recurrent\.weight of Plain, which stay as they start"):
        assert cli("fit", "-c", config(model=own_model(path)), "--run_dir", "s").status == 0


def test_a_wanted_option_without_annotation(refused: Any, config: Any, write: Write) -> None:
    _, path = write(
        MODEL + "    def __init__(self, task, hidden_size, leak, **kwargs):\n"
        "        super().__init__(task, hidden_size, **kwargs)\n"
    )
    sentence = refused("fit", "-c", config(model=own_model(path)), "--run_dir", "r")
    assert "model.init_args.leak is missing; give it in the config or as --model.init_args.leak." in sentence


def test_a_task_annotated_as_a_task(refused: Any, config: Any, write: Write) -> None:
    _, path = write(
        MODEL + "    def __init__(self, task: Task, hidden_size: int):\n        super().__init__(task, hidden_size)\n"
    )
    sentence = refused("fit", "-c", config(model=own_model(path)), "--run_dir", "r")
    assert "takes task: Task, but a config gives it as a mapping: write task: dict, or no type at all." in sentence


@pytest.mark.parametrize("wrong", ["self.recurrent.weight", "{'W': 3}", "{'W': self.input.weight}"])
def test_matrices_are_square_ones_by_name(write: Write, wrong: str) -> None:
    module, path = write(CELL.replace('{"recurrent": self.recurrent.weight}', wrong))
    own = getattr(importlib.import_module(module), path.rpartition(".")[2])
    model = own(CopyMemory(delay=5).task, 8)
    with pytest.raises(UserError, match=rf"{module}.py line 17, in recurrent_matrices: .* \(n, n\) tensor"):
        recurrent_matrices(model)
    with pytest.raises(UserError, match="line 17"):
        next(matrices(model, model))


def test_a_class_that_is_not_finished_or_not_there(refused: Any, config: Any, write: Write) -> None:
    _, path = write("class {name}(SequenceModel):\n    pass\n")
    assert "build_cell" in refused("fit", "-c", config(model=own_model(path)), "--run_dir", "r")
    _, path = write("class {name}(SequenceDataModule):\n    pass\n")
    assert "split" in refused("fit", "-c", config(**own_data(path)), "--run_dir", "r")
    sentence = refused("fit", "-c", config(model=own_model("no_such_file.Mine")), "--run_dir", "r")
    assert "no module no_such_file" in sentence


def test_debug_shows_where_it_was_raised(cli: Any, config: Any, write: Write) -> None:
    _, path = write(MODEL.replace("VanillaRNNCell(", "VanilaRNNCell("))
    with pytest.raises(Exception, match="VanilaRNNCell"):
        cli("fit", "-c", config(model=own_model(path)), "--debug")


def test_a_model_without_kwargs_works_and_loads(cli: Any, config: Any, write: Write) -> None:
    """What it hands to the base by itself is what it runs with."""
    start = (
        "    def __init__(self, task, hidden_size: int):\n        super().__init__(task, hidden_size, backend='loop')\n"
    )
    _, path = write(MODEL.replace("    def build", start + "    def build"))
    assert cli("fit", "-c", config(model=own_model(path)), "--run_dir", "r").status == 0
    model = load("r/checkpoints/last.ckpt")
    assert model.options.backend == "loop"
    weights = torch.load("r/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert cli("validate", "--run_dir", "r", "--ckpt_path", "best").status == 0


def data(spoil: str = "pass", arguments: str = ", seed: int | None = None") -> str:
    return DATA.replace("{spoil}", spoil).replace("{arguments}", arguments)


def own_data(path: str, **options: Any) -> dict[str, Any]:
    return {"data": {"class_path": path, "init_args": options}}


def test_data_without_a_seed_takes_the_runs(cli: Any, config: Any, write: Write) -> None:
    """The order of training is the run's, as for all data: another seed gives another order."""
    _, path = write(data("print('read', name, indices.tolist())", arguments=""))
    orders = []
    for seed in (1, 2, 1):
        done = cli("fit", "-c", config(**own_data(path), seed_everything=seed, trainer={"max_epochs": 1}))
        assert done.status == 0
        orders.append([line for line in done.out.splitlines() if line.startswith("read train")])
    assert orders[0] and orders[0] == orders[2] != orders[1]


def test_data_without_options(cli: Any, config: Any, write: Write) -> None:
    start = "def __init__(self, batch_size: int = 8, num_workers: int = 0, seed: int | None = None):"
    module, path = write(
        data().replace(start, "def __init__(self):").replace("batch_size, num_workers=num_workers", "8")
    )
    done = cli("fit", "-c", config(data={"class_path": path}), "--run_dir", "r", "--trainer.max_epochs", "1")
    assert done.status == 0, done.err
    assert cli("test", "--run_dir", "r", "--ckpt_path", "best", "--trust", module).status == 0


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("inputs = inputs.double()", ["validation split", "float64", "float32"]),
        ("inputs = inputs[..., :1]", ["validation split", "(8, 5, 1)", "(8, 5, 2)"]),
        ("targets = targets.float()", ["targets", "float32", "int64"]),
        ("targets = targets[:, None]", ["targets", "(8, 1)", "(8,)"]),
        ("targets = targets.where(indices != 17, 3)", ["sample 17", "targets", "3", "from 0 to 2"]),
        ("targets = targets.where(indices != 17, -1)", ["sample 17", "targets", "-1", "from 0 to 2"]),
        ("inputs = inputs[:, :0]", ["(8, 0, 2)", "at least one step"]),
        ("inputs, targets = inputs[1:], targets[1:]", ["(7, 5, 2)", "8 sequences"]),
        ("inputs = inputs.tolist()", ["(list, int64)", "tensors"]),
        ("inputs[indices == 17, 2] = float('nan')", ["sample 17, step 2", "inputs", "nan", "finite"]),
        ("inputs[indices == 17, 4, 1] = float('inf')", ["sample 17, step 4", "inputs", "inf", "finite"]),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_batch_names_the_sample(
    refused: Any, config: Any, write: Write, spoil: str, words: list[str], num_workers: int
) -> None:
    if num_workers and "17" not in spoil:
        pytest.skip("found before any worker is asked")
    _, path = write(data(spoil))
    sentence = refused("fit", "-c", config(**own_data(path, num_workers=num_workers)), "--run_dir", "r", leaves=True)
    assert all(word in sentence for word in [path.rpartition(".")[2], *words]), sentence
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("self.task = Task(", "self.tasks = Task(", ["sets no task", "self.task"]),
        ("return Split(self, name)", "pass", ["split('val') returns NoneType", "IndexedBatches"]),
    ],
)
def test_data_without_a_task_or_a_split(
    refused: Any, config: Any, write: Write, right: str, wrong: str, words: list[str]
) -> None:
    _, path = write(data().replace(right, wrong))
    sentence = refused("fit", "-c", config(**own_data(path)), "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_that_raises_names_file_and_line(refused: Any, config: Any, write: Write, num_workers: int) -> None:
    module, path = write(data("if name == 'train': self.oops"))
    sentence = refused("fit", "-c", config(**own_data(path, num_workers=num_workers)), "--run_dir", "r", leaves=True)
    assert f"{module}.py line 21, in batch" in sentence and "oops" in sentence
    assert not Path("r").exists()
