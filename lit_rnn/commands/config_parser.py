"""The parser of a run's config: Lightning's, which raises, with the Task linked from data to model."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import operator
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal, get_args

import yaml
from jsonargparse import get_loader, set_loader, set_parsing_settings
from pytorch_lightning import Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from datamodules import SequenceDataModule, Task
from datamodules.errors import UserError
from lit_rnn import blame, callbacks  # noqa: F401  # callbacks, so that configs may name them by short names
from lit_rnn.commands.arguments import complete
from lit_rnn.commands.dropped import LeftOut, dropped, empty_mappings
from lit_rnn.commands.sentences import explain
from lit_rnn.models import SequenceModel
from lit_rnn.runs.config import with_full_names
from lit_rnn.yaml_limits import check_yaml

_ABOUT = (
    "-c takes a file or the name of a shipped config, such as pixel_digits/exprnn.yaml. --model NAME and --data NAME "
    "choose classes, --model.KEY and --data.KEY their options, which --model.help NAME and --data.help NAME list; "
    "--trainer.KEY are the options of Lightning's Trainer."
)
# instead of what Lightning says of options that mean less, or another thing, here
_HELP = {
    "config": "A YAML file, or a shipped config; may be given again, and later ones win.",
    "seed_everything": "Seeds the weights, the order of the data and what is generated; true draws the seed.",
    "trainer.logger": "Loggers beside metrics.csv; false writes neither.",
    "trainer.log_every_n_steps": "How often to log, in optimizer steps.",
    "ckpt_path": "A checkpoint file, or last or best of the run folder.",
    "weights_only": "Leave it out: a checkpoint is always read without running its code.",
}

# options of predict on text
_SAMPLING: dict[str, tuple[Any, str]] = {
    "prompt": (str | None, "what sample.txt goes on from; if not given, the end of a line."),
    "temperature": (
        float | None,
        "1 draws what the model says (the default), 0 takes the likeliest symbol each time.",
    ),
    "sample_length": (int | None, "how many symbols are drawn; 500 if not given."),
}

# values that are no options: argparse of before Python 3.14 knows no exponent, and none knows infinity
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|-\.?inf(inity)?$", re.IGNORECASE)

_load_yaml = get_loader("yaml")


def _load_measured(text: str) -> Any:
    check_yaml(text)
    return with_full_names(_load_yaml(text))


# no YAML is built before it is measured, a class of ours is what its short name means, and no class is made where an
# option takes anything
set_loader("yaml", _load_measured, (yaml.YAMLError,))
set_parsing_settings(instantiate_subclass_spec_in_any=False)

_left_out = LeftOut()
_log = logging.getLogger("lit_rnn.config")  # of that name, since parsers are copied with their logger
_log.setLevel(logging.DEBUG)
_log.addFilter(_left_out)


def _task_of(data: SequenceDataModule) -> dict[str, Any]:
    task = getattr(data, "task", None)
    if not isinstance(task, Task):
        given = "sets no task" if task is None else f"sets task to a {type(task).__name__}"
        raise UserError(f"{type(data).__name__} {given}, but its __init__ must set self.task to a datamodules.Task.")
    return asdict(task)


class _RefusedError(Exception):
    """What the parser says, before it is put in a sentence."""


class ConfigParser(LightningArgumentParser):
    """Raises instead of printing usage and leaving; takes no abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)  # or a misspelt --trainer.max_epoch would pass
        super().__init__(*args, **{**kwargs, "logger": _log})
        self._negative_number_matcher = _NEGATIVE

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise _RefusedError(message) from ex

    def dump(self, *args: Any, **kwargs: Any) -> str:
        kwargs.setdefault("skip_validation", True)  # it was parsed, and to check it again took a fifth of a tiny run
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Lightning 2.6 calls what newer jsonargparse 4 renamed
            return str(super().dump(*args, **kwargs))


def _take_whole_numbers_first() -> None:
    """Let 1 be an int where the Trainer takes ``int | float``: of ``limit_val_batches`` 1 is one batch, and 1.0 all.

    The parser takes the first type of a union that a value fits, and typing, which keeps unions, may hand out the one
    that somebody else wrote the other way round: so it was in `study`, not in `fit`.
    """
    hints = Trainer.__init__.__annotations__
    for name, hint in hints.items():
        kinds = get_args(hint)
        if {int, float} <= set(kinds):
            hints[name] = functools.reduce(operator.or_, sorted(kinds, key=lambda kind: kind is not int))


class ConfigCLI(LightningCLI):
    """LightningCLI with our options, parsed from a list; what follows is of those who derive from it."""

    def __init__(self, arguments: Sequence[str], **kwargs: Any) -> None:
        self._command = arguments[0]
        _take_whole_numbers_first()
        super().__init__(
            SequenceModel,
            SequenceDataModule,
            trainer_defaults={"log_every_n_steps": 10, "enable_model_summary": False},
            seed_everything_default=1,
            parser_class=ConfigParser,
            parser_kwargs={"prog": "python -m lit_rnn"},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=list(arguments),
            **kwargs,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static
        """The one that is asked for: a parser takes a tenth of a second to build."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="Run folder; runs/<data>-<model>-<number> if not given."
        )
        parser.add_argument(
            "--resume",
            type=Literal["auto"] | None,
            default=None,
            help="auto: fit starts where there is no run, goes on where there is one, and says so where all is done.",
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads; if not given, as many as there are cores for this process, and one for NumPy.",
        )
        if self._command == "predict":
            words = "Also write the probabilities of all classes to predictions.npz."
            parser.add_argument("--probabilities", type=bool, default=False, help=words)
            for name, (kind, words) in _SAMPLING.items():
                parser.add_argument(f"--{name}", type=kind, default=None, help=f"Of text: {words}")
        parser.link_arguments("data", "model.init_args.task", compute_fn=_task_of, apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        for group in parser._action_groups:
            if group.title == parser.description:  # a line of the Trainer's docstring, which may be half a sentence
                group.title = "Checkpoint"
        parser.usage, parser.description = f"python -m lit_rnn {subcommand} [options]", _ABOUT
        for action in parser._actions:
            action.help = _HELP.get(action.dest, action.help)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)  # as `run` gives
        self._refuse_dropped(parser, args)
        with _left_out.told():
            self.config = parser.parse_args(args)

    def _refuse_dropped(self, parser: LightningArgumentParser, args: list[str]) -> None:
        suspects = empty_mappings(args)
        if not suspects:
            return
        rest = [part for part in args if not part.startswith("--print_config")]
        try:
            whole = parser.parse_args(rest)
        except _RefusedError:
            if rest == args:
                raise
            return  # what is printed need not be complete
        for key, cls in itertools.chain.from_iterable(dropped(one, whole[self._command]) for one in suspects):
            option = {"class_path": cls, "init_args": {key.rpartition(".")[2]: None}}
            raise _RefusedError(f"Option '{key}' is not accepted" + (f"\nGiven value: {option}" if cls else ""))

    def _parse_ckpt_path(self) -> None:
        """Nothing: a checkpoint's hyperparameters must not beat the command line; `fit` compares them."""


@contextlib.contextmanager
def in_sentences(arguments: Sequence[str]) -> Iterator[None]:
    """Turn what the parser refuses of ``arguments`` into one sentence."""
    try:
        yield
    except _RefusedError as error:
        raise blame.refusal(error) or UserError(explain(str(error), arguments)) from error


def resolve(arguments: Sequence[str]) -> dict[str, Any]:
    """The whole config that ``fit`` would run with; nothing is built.

    Args:
        arguments: What follows ``python -m lit_rnn fit``.

    Raises:
        UserError: what `fit` itself would say.
    """
    completed = ["fit", *complete("fit", [*arguments, "--print_config"])]
    printed = io.StringIO()
    with in_sentences(completed), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        ConfigCLI(completed)
    config: dict[str, Any] = yaml.safe_load(printed.getvalue())
    return config
