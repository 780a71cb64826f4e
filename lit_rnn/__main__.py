"""The command line: one subcommand, one sentence where something is wrong, and an exit status that says so."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence


def quiet() -> None:
    """Keep what others print about themselves out of the way; warnings stay."""
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*deprecated", category=FutureWarning)  # Lightning with torch
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the run failed, 2 bad input, 128 + n stopped by signal n."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    os.environ.setdefault("WANDB_SILENT", "true")
    # imported here: torch and Lightning take seconds, and W&B reads its environment when imported
    from datamodules import UserError
    from lit_rnn.callbacks import DivergedError, Stopped
    from lit_rnn.cli import run

    quiet()  # after the imports: Lightning sets its own levels then
    try:
        run(given)
    except (UserError, DivergedError, Stopped) as error:
        if debug:
            raise
        print(f"lit_rnn: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 128 + error.signum if isinstance(error, Stopped) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
