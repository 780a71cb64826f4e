"""Networks as programs that run without this package: torch.export and ONNX."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from datamodules.errors import UserError, one_line, require
from datamodules.extras import needed
from lit_rnn import __version__, files
from lit_rnn.cells import Cell
from lit_rnn.class_paths import class_path
from lit_rnn.export.folder import learned
from lit_rnn.export.network import Form, initial_state, network
from lit_rnn.models import SequenceModel

ABOUT = "lit_rnn"
"""Key of what a program says of itself: an extra file of a .pt2 (with .json), a metadata property of an ONNX model."""


def to_pt2(source: SequenceModel | Cell, path: str | Path, form: Form = "step") -> Path:
    """Write a network as a program of torch.export, which ``torch.export.load(path).module()`` runs; gives the path.

    Arguments, results and limits as `to_onnx`.
    """
    path = _checked_path(path, ".pt2")
    exported = program(source, form)
    files.make_folder(path.parent, "path")
    torch.export.save(exported, path, extra_files={f"{ABOUT}.json": _about(source, form)})
    return path


def to_onnx(source: SequenceModel | Cell, path: str | Path, form: Form = "step") -> Path:
    """Write a network as an ONNX model, for onnxruntime and others; gives the path.

    The program takes ``input, state_0, ...`` and gives ``output, next_state_0, ...``, the state of all layers one after
    another, complex ones as [Re | Im]. Batch size and, of a sequence, length are free. Weights are those that are
    applied: an orthogonal matrix, not what it is made of. ``initial_state`` gives the state to start from; the file
    holds it too, as JSON under ``lit_rnn``, with the ``task`` of a model and what its data had ``learned``: the
    program itself reads every step that it is given, and inputs that were standardised in training must come so.

    - ``step``, of a model: symbols (B,) or values (B, input_size) to what its decoder makes of this step.
    - ``sequence``, of a model: symbols (B, T) or values (B, T, input_size) to what the model gives.
    - of a cell: x_t (B, I) to y_t (B, output_size), or, time first, x (T, B, I) to y (T, B, output_size).

    Args:
        source: The model or the cell, in float32 or float64.
        path: Where, ending in .onnx.
        form: One ``step``, or a ``sequence`` of any length.

    Raises:
        UserError: if a package is not installed, torch is older than 2.12, or the network cannot be exported: weights
            in other dtypes, a model that does more than encode, run its cells and decode, a complex state outside
            `UnitaryCell`, or a cell of your own that torch's exporter cannot follow.
    """
    path = _checked_path(path, ".onnx")
    for package in ("onnx", "onnxscript"):
        needed(package, "lit_rnn.export.to_onnx", "export")
    exported = program(source, form)
    names = [f"state_{number}" for number in range(len(initial_state(source, 1)))]

    def export() -> Any:
        return torch.onnx.export(
            exported,
            dynamo=True,
            verbose=False,
            input_names=["input", *names],
            output_names=["output", *(f"next_{name}" for name in names)],
            dynamic_shapes=_free(source, form),
            custom_translation_table={
                torch.ops.aten.scalar_tensor.default: _scalar,
                torch.ops.aten.leaky_relu.default: _leaky_relu,
                torch.ops.aten.gelu.default: _gelu,
            },
        )

    onnx = _told(export, source, form, "ONNX")
    needed("onnx_ir.passes.common", "lit_rnn.export.to_onnx", "export").RemoveUnusedNodesPass()(onnx.model)
    onnx.model.metadata_props[ABOUT] = _about(source, form)
    files.make_folder(path.parent, "path")
    onnx.save(str(path))
    return path


def program(source: SequenceModel | Cell, form: Form = "step") -> ExportedProgram:
    """What `to_pt2` writes."""
    if torch.__version__ < "2.12":  # follows no loop over time, or leaves out what onnxruntime lacks
        raise UserError(f"torch is {torch.__version__}, but lit_rnn.export writes programs by torch 2.12 or newer.")
    module = network(source, form)

    def export() -> ExportedProgram:
        with torch.no_grad():
            return torch.export.export(module, module.example(), dynamic_shapes=_free(source, form), strict=False)

    return _told(export, source, form, "torch.export")


def _free(source: SequenceModel | Cell, form: Form) -> Any:
    """Batch and length are any."""
    batch = Dim("batch")
    first: dict[int, Any] = {0: batch}
    if form == "sequence":
        time = Dim("time")
        first = {0: batch, 1: time} if isinstance(source, SequenceModel) else {0: time, 1: batch}
    return first, tuple({0: batch} for _ in initial_state(source, 1))


def _scalar(s: Any, dtype: int = -1, layout: str = "", device: str = "", pin_memory: bool = False) -> Any:
    """A number in a network's own precision: torch's exporter rounds it to float32 first, 0.1 to 0.100000001."""
    from onnx import helper
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops.core import aten_scalar_tensor

    if isinstance(s, int | float) and int(dtype) > 0:
        return op.Constant(value=helper.make_tensor("scalar", int(dtype), (), [s]))
    return aten_scalar_tensor(s, dtype)


def _leaky_relu(z: Any, negative_slope: float = 0.01) -> Any:
    """max(z, slope z): of ONNX's own operation the slope is a float32, and onnxruntime has none in float64."""
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops.nn import aten_leaky_relu

    if not 0 <= negative_slope <= 1 or z.dtype is None:
        return aten_leaky_relu(z, negative_slope)
    return op.Max(z, op.Mul(z, _scalar(negative_slope, z.dtype)))


def _gelu(z: Any, approximate: str = "none") -> Any:
    """z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2: torch's exporter has its numbers in float32."""
    from onnxscript import opset18 as op
    from onnxscript.function_libs.torch_lib.ops.nn import aten_gelu

    if approximate != "tanh" or z.dtype is None:
        return aten_gelu(z, approximate)
    half, one, slope, cubic = (_scalar(s, z.dtype) for s in (0.5, 1.0, math.sqrt(2 / math.pi), 0.044715))
    inner = op.Mul(slope, op.Add(z, op.Mul(cubic, op.Mul(z, op.Mul(z, z)))))
    return op.Mul(op.Mul(half, z), op.Add(one, op.Tanh(inner)))


def _told(export: Callable[[], Any], source: object, form: Form, to: str) -> Any:
    """What ``export`` gives; what torch's exporter raises, which may be anything, in a sentence."""
    what = "one step" if form == "step" else "a sequence"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of itself
            return export()
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise UserError(f"{type(source).__name__} cannot be exported as {what} to {to} ({reason}).") from error


def _about(source: SequenceModel | Cell, form: Form) -> str:
    state = [part[0].tolist() for part in initial_state(source, 1)]
    about: dict[str, Any] = {
        "version": __version__,
        "class_path": class_path(type(source)),
        "form": form,
        "initial_state": state,
    }
    if isinstance(source, SequenceModel):
        about |= {"task": asdict(source.task), "learned": learned(source)}
    return json.dumps(about)


def _checked_path(path: str | Path, ending: str) -> Path:
    require(Path(path).suffix == ending, "path", str(path), f"a file that ends in {ending}")
    return Path(path)
