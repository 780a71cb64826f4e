"""The README is true: its example runs, its config parses, its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from datamodules import Task
from lit_rnn.__main__ import COMMANDS, main
from lit_rnn.models import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_cell_of_the_readme_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaky.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (command,) = (line for line in blocks("sh")[-1].splitlines() if "leaky.LeakyRNN" in line)
    arguments = command.removeprefix("python -m lit_rnn ").split()
    shorter = ["--trainer.max_epochs", "1", "--model.init_args.hidden_size", "9", "--model.init_args.leak", "0.25"]
    assert main([*arguments, *shorter, "--trainer.log_every_n_steps", "1"]) == 0
    model = load(tmp_path / "runs/leaky/checkpoints/last.ckpt")
    assert type(model).__name__ == "LeakyRNN" and model.options.leak == 0.25
    cell = model.cells[0].double()
    x, h = torch.randn(3, 1, dtype=torch.float64), torch.randn(3, 9, dtype=torch.float64)
    y, _ = cell.step(cell.drive(x[None], cell.weights())[0], (h,), cell.weights())
    by_hand = 0.75 * h + 0.25 * torch.tanh(h @ cell.recurrent.weight.T + cell.input(x))
    torch.testing.assert_close(y, by_hand, rtol=1e-12, atol=1e-12)


def test_the_config_of_the_readme_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(blocks("yaml")[0])
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", str(path), "--print_config"])
    assert left.value.code == 0
    assert "gradient_clip_val: 1.0" in capsys.readouterr().out


def test_every_command_and_config_of_the_readme_exists() -> None:
    commands = [
        line for block in blocks("sh") for line in block.splitlines() if "lit_rnn fit" in line or "-m lit_rnn" in line
    ]
    assert len(commands) >= 8
    for line in commands:
        found = re.search(r"lit_rnn (\w+)", line.removeprefix("docker run"))
        assert found and found[1] in COMMANDS, line
    for name in re.findall(r"(?:configs/)?((?:\w+/)*\w+\.yaml)", "\n".join(commands)):
        assert (ROOT / "configs" / name).is_file(), name
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file(), picture


def test_the_readme_names_every_model_and_data_module() -> None:
    import datamodules
    import lit_rnn.models

    named = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    models = {name for name in lit_rnn.models.__all__ if name[0].isupper()} - {"SequenceModel", "OrthogonalRNN"}
    data = {name for name in datamodules.__all__ if hasattr(getattr(datamodules, name), "train_dataloader")}
    assert named == models | (data - {"SequenceDataModule", "GeneratedDataModule"})
    assert Task.__name__ in README
