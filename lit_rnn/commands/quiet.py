"""Silences what other libraries print about themselves; warnings stay."""

from __future__ import annotations

import logging
import warnings


def quiet_warnings() -> None:
    """Leave out what Lightning warns of in every run, and the lines of code that gave the other warnings."""
    # Lightning with this torch; a resume, in its own folder and into another
    about_checkpoints = ("Checkpoint directory .* exists", "The dirpath has changed from")
    # a resume with max_time taken off
    no_limit = r"Be aware that when using `ckpt_path`, callbacks used to create .*\['Timer'\]"
    for about in (
        no_limit,
        ".*LeafSpec.*deprecated",
        *about_checkpoints,
        "A `OneCycleLR` scheduler is using 'interval': 'epoch'",
    ):
        warnings.filterwarnings("ignore", message=about)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"


def quiet_matplotlib() -> None:
    """Leave out that Matplotlib, where it cannot write at home, keeps its list of fonts elsewhere for this once."""
    logging.getLogger("matplotlib").addFilter(lambda record: record.funcName != "_get_config_or_cache_dir")


def quiet_lightning() -> None:
    """Let Lightning, imported here because it sets its own levels then, log only warnings."""
    import pytorch_lightning  # noqa: F401

    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
