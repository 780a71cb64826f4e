"""How training goes on from a checkpoint, wherever it was taken, as if it had not stopped.

Lightning 2.6 goes on from some moments only: behind an epoch's last batch it repeats or drops the epoch's end, with
``max_steps`` it takes every checkpoint for one from inside an epoch. So the counters of a checkpoint are put in order
before Lightning reads them (`straighten`), and what was left to do at that moment (a validation, the end of an
epoch) is done by the loops' own methods before the next batch (`take_up`).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer

from datamodules.base import data_of
from datamodules.errors import UserError

Checkpoint = dict[str, Any]
Place = Literal["between epochs", "inside an epoch", "behind the last batch"]


def note(trainer: Trainer, model: LightningModule, validated: bool) -> dict[str, Any]:
    """What the loops' own state does not tell, for a checkpoint.

    Args:
        trainer: In ``fit``.
        model: Its model.
        validated: Whether a validation that is under way has come to its end.
    """
    fit = trainer.fit_loop
    batches: Any = fit.epoch_loop.batch_progress.current
    between = batches.completed == batches.processed and not trainer.validating
    metrics = {
        name: value.detach().cpu().clone()
        for name, value in trainer.callback_metrics.items()
        if isinstance(value, torch.Tensor)
    }
    gradients = {}
    if fit._should_accumulate():
        gradients = {
            name: trainer.strategy.reduce(parameter.grad.clone(), reduce_op="mean")
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
    return {"step_done": between or validated, "metrics": metrics, "gradients": gradients}


def straighten(checkpoint: Checkpoint) -> dict[str, Any]:
    """Put the counters of a checkpoint in order: between two epochs, behind an epoch's last batch, or inside.

    An epoch whose end was cut short by ``max_steps`` counts as one that goes on.

    Returns:
        What `note` kept, or its like for the checkpoint of an older version.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    done = batch["current"]["completed"] == batch["current"]["processed"]
    noted = {"step_done": done, "metrics": {}, "gradients": {}, **checkpoint["lit_rnn"]}
    started, processed = epoch["current"]["started"], epoch["current"]["processed"]
    given = batch["current"]["processed"]
    whole = batch["is_last_batch"] and batch["current"]["ready"] == given
    inside = started > processed or (given > 0 and not whole)
    number = processed if started > processed or not inside else processed - 1
    total = batch["total"]["processed"]

    def counters(ready: int, completed: int) -> dict[str, dict[str, int]]:
        counts = {"ready": ready, "started": ready, "processed": completed, "completed": completed}
        return {"total": dict(counts), "current": dict(counts)}

    epoch.update(counters(number + inside, number))
    batch["is_last_batch"] = inside and whole
    # completed one late is how Lightning knows a step that is done but for validation
    late = inside and not whole
    for key, count in (("total", total), ("current", given if inside else 0)):
        batch[key] = {"ready": count, "started": count, "processed": count, "completed": count - late}
    return noted


def recount(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Count the batches of the epoch in this run's, where a checkpoint is of another number of processes or batch size.

    Args:
        checkpoint: With the counters of `straighten`.
        trainer: In ``fit``, its data set up.

    Raises:
        UserError: if training cannot go on exactly.
    """
    data = data_of(trainer)
    state = checkpoint.get(type(data).__qualname__) or {}
    if data is None or "rows" not in state:
        return
    loops = checkpoint["loops"]["fit_loop"]
    epoch, batch = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    given = batch["current"]["processed"]
    if epoch["started"] == epoch["processed"] or state["rows"] == data.batch_size * trainer.world_size:
        return
    if (state["epoch"], state["position"]) != (epoch["processed"], given):  # an epoch that max_steps had cut short
        state |= {"epoch": epoch["processed"], "position": given, "samples": given * state["rows"]}
    limit = trainer.limit_train_batches
    if limit not in (None, 1.0):
        raise UserError(
            f"trainer.limit_train_batches is {limit}, and the checkpoint was made inside an epoch whose batches have "
            "another size: resume with the same data.init_args.batch_size and trainer.devices."
        )
    position, over = data.place_of(state)
    every = trainer.accumulate_grad_batches
    if checkpoint["lit_rnn"].get("gradients") or (position % every and not over):
        raise UserError(
            "The checkpoint was made between two batches of one optimizer step (trainer.accumulate_grad_batches): "
            "resume with the same data.init_args.batch_size and trainer.devices."
        )
    batch["is_last_batch"] = over
    for key, count in (("total", batch["total"]["processed"] + position - given), ("current", position)):
        batch[key] = {"ready": count, "started": count, "processed": count, "completed": count - (not over)}


def take_up(trainer: Trainer, model: LightningModule, noted: dict[str, Any]) -> Place:
    """Do what was left of the last step when the checkpoint was taken; the last thing before the first batch.

    Args:
        trainer: In ``fit``, with the counters of `straighten`.
        model: Its model.
        noted: What `straighten` returned.

    Returns:
        Where training is now. Behind an epoch's last batch `close_epoch` has to follow.
    """
    fit = trainer.fit_loop
    loop = fit.epoch_loop
    trainer.callback_metrics.update({key: value.to(model.device) for key, value in noted["metrics"].items()})
    parameters = dict(model.named_parameters())
    for name, gradient in noted["gradients"].items():
        parameters[name].grad = gradient.to(parameters[name])
    loop.val_loop.restarting = False
    loop.val_loop.reset_restart_stage()
    epochs: Any = fit.epoch_progress.current
    if epochs.started == epochs.processed:
        loop.restarting = False
        loop._batches_that_stepped = trainer.global_step
        return "between epochs"
    # a step is counted when all of it is done, which Lightning does itself where the epoch goes on
    before = trainer.global_step - (not fit._should_accumulate())
    loop._batches_that_stepped = before
    if not noted["step_done"]:
        assert fit._data_fetcher is not None
        loop.on_advance_end(fit._data_fetcher)  # validates, if it is time to
    loop._batches_that_stepped = before
    over = trainer.is_last_batch or trainer.global_step == trainer.max_steps
    return "behind the last batch" if over else "inside an epoch"


def close_epoch(trainer: Trainer) -> None:
    """The end of an epoch without a batch left, as the fit loop would do it."""
    trainer.fit_loop.epoch_loop.restarting = False
    trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
    trainer.fit_loop.on_advance_end()
    trainer.fit_loop.on_iteration_done()


def owed_row(trainer: Trainer) -> dict[str, Any] | None:
    """What Lightning logs behind the hook that takes a checkpoint: the step's numbers, or the epoch's means."""
    connector, fit = trainer._logger_connector, trainer.fit_loop
    batches: Any = fit.epoch_loop.batch_progress.current
    epochs: Any = fit.epoch_progress.current
    step = fit.epoch_loop._batches_that_stepped
    loss = None  # which a model logs in its own hook, and a checkpoint is taken before it
    if batches.completed < batches.processed:
        if fit._should_accumulate() or not connector.should_update_logs:
            return None
        loss = getattr(trainer.lightning_module, "shown_loss", None)
    elif epochs.completed < epochs.processed and trainer.is_last_batch:
        step -= 1
    else:
        return None
    taken = connector.metrics["log"] | ({} if loss is None else {"train/loss_step": loss})
    metrics = {name: value.item() for name, value in taken.items()}
    return {**metrics, "epoch": trainer.current_epoch, "step": step} if metrics else None
