"""``python -m lit_rnn autotune``: what backends took on a GPU, which decides what ``auto`` means there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datamodules.errors import UserError, require
from lit_rnn.commands.parser import Parser

_DEVICE = "cuda"
_PASSES = 10_000  # that are taken to come, so that what compiles for a while is measured too


def run(command: str, arguments: Sequence[str]) -> None:
    """Show what each backend took on a GPU, by shape. Auto takes the fastest; training measures what is new."""
    options, rest = parser(command).parse_known_args(list(arguments))
    if rest and options.config is None:
        raise UserError(
            f"autotune is given {' '.join(rest)} without --config: name the config whose backends it is to measure, as "
            "in autotune --config FILE, or give nothing to see what is measured."
        )
    from lit_rnn.report.console import new_console  # torch: behind --help
    from lit_rnn.report.tables import Table
    from lit_rnn.scan import autotune

    measure = _measuring(["--config", options.config, *rest]) if options.config is not None else None
    if options.clear:  # not before all that was asked is known to be possible
        autotune.forget()
    if measure is not None:
        measure()
    console, files = new_console(), autotune.files()
    for path in files:
        rows = [
            [key, autotune.fastest(times) or "none", autotune.listed(times)]
            for key, times in autotune.read(path).items()
        ]
        console.print(Table(["shape", "auto", "milliseconds of a pass"], rows, texts=3, title=path.stem).terminal())
    if not files:
        print("Nothing is measured. Training on a GPU measures what is new to it; --config FILE does it now.")


def _measuring(arguments: Sequence[str]) -> Callable[[], None]:
    """What measures every backend on every cell of a config, in its precision, with gradients and without."""
    import torch
    from pytorch_lightning import Trainer

    from datamodules import SequenceDataModule
    from lit_rnn.class_paths import class_in
    from lit_rnn.commands.config_parser import resolve
    from lit_rnn.commands.quiet import quiet_lightning
    from lit_rnn.models import SequenceModel
    from lit_rnn.scan import autotune, scan

    device = torch.device(_DEVICE)
    if not autotune.measures(device):
        raise UserError("autotune --config measures on a GPU, and torch finds none here.")
    config = resolve(arguments)
    kinds: tuple[tuple[str, type], ...] = (("data", SequenceDataModule), ("model", SequenceModel))
    for key, _ in kinds:
        if config.get(key) is None:
            raise UserError(f"config {arguments[1]} has no {key}, and autotune measures a model on data: add {key}.")
    made = [class_in(arguments[1], key, config[key]["class_path"], base) for key, base in kinds]
    data = made[0](**config["data"]["init_args"])
    given = {key: value for key, value in config["model"]["init_args"].items() if key != "task"}
    model = made[1](data.task, **{**given, "backend": "auto"}).to(device)
    steps, batch = data.task.length, data.batch_size
    require(steps is not None, "data", data.task.name, "data of one length: without one there is no shape to measure")

    quiet_lightning()
    trainer = Trainer(accelerator=device.type, devices=1, precision=config["trainer"]["precision"], logger=False)
    as_in_training = trainer.precision_plugin
    as_in_training.convert_module(model)  # in place

    def measure() -> None:
        for cell in model.cell_list():
            for learns in (True, False):
                x = as_in_training.convert_input(torch.zeros(steps, batch, cell.input_size, device=device))
                with torch.set_grad_enabled(learns), as_in_training.forward_context():
                    scan(cell, x, last_only=not data.task.per_step, expected_passes=_PASSES)

    return measure


def parser(command: str) -> Parser:
    """The options."""
    made = Parser(command, run.__doc__)
    made.add_argument("--clear", action="store_true", help="forget all of it first")
    made.add_argument(
        "-c", "--config", metavar="FILE", help="measure what this config trains; options of fit may follow"
    )
    return made
