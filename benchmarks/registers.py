"""What the kernels of the backends `triton` and `streamed` take of a GPU: compiled ahead of time, which needs none.

python benchmarks/registers.py [--sizes 64 128 170 190 256 512] [--kinds relu modrelu 'complex modrelu']
                               [--backend streamed]

By nonlinearity and n: registers a thread (a processor has 255 for each of 256), bytes spilled to memory, and shared
memory a program; as the driver would load it, so with ptxas' own choice of registers.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arguments import whole

from lit_rnn.scan import gpu, streamed
from lit_rnn.scan.gpu import Plan
from lit_rnn.scan.recurrence import COMPLEX, KINDS
from lit_rnn.scan.streamed import StreamedPlan

PROCESSORS = {80: 108, 90: 132}  # of an A100 and an H100, by compute capability


class Usage(NamedTuple):
    """Of a kernel.

    Args:
        registers: A thread.
        spilled: Bytes a thread.
        shared: Bytes of shared memory, a program.
        ptx: What it was compiled to on the way.
    """

    registers: int
    spilled: int
    shared: int
    ptx: str


def usage(
    name: str, kind: str, n: int, batch: int, capability: int, backend: str = "triton", drive: str = "fp32"
) -> Usage:
    """Of the kernel ``name``, `forward` or `backward`, in float32, for a device of that compute capability.

    With torch's setting for TF32 as it is, and the drive in ``drive``, fp32 or bf16.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lit_rnn.scan import plain_triton, streamed_triton

    constants: dict[str, Any] = {"n": n, "KIND": KINDS.index(kind), "WAIT": True, "KEEP": True, "EACH": True}
    plan: Plan | StreamedPlan | None
    if backend == "streamed":
        kernel, plan = getattr(streamed_triton, name), StreamedPlan.of(n, batch, PROCESSORS[capability])
        constants |= streamed.constants_of(plan)
    else:
        kernel = getattr(plain_triton, name)
        plan = Plan.of(n, 1 + (kind == COMPLEX), batch, 4, PROCESSORS[capability])
        if plan is None:
            raise ValueError(f"{n} units do not fit")
        constants |= gpu.constants_of(plan)
    types = {"T": "i32", "B": "i32", "chunks": "i32", "ready": "*i32", "u": f"*{drive}"}
    types |= dict.fromkeys(constants, "constexpr")
    signature = {parameter.name: types.get(parameter.name, "*fp32") for parameter in kernel.params}
    given = {(place,): constants[name] for place, name in enumerate(signature) if name in constants}
    aligned = ("w", "before", "h", "delta")
    hints = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(signature) if name in aligned}
    options = {"num_warps": plan.warps, "enable_fp_fusion": True}
    target = GPUTarget("cuda", capability, 32)
    compiled = triton.compile(ASTSource(kernel, signature, given, hints), target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        command = [str(tool), "--dump-resource-usage", file.name]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(part.split(":")[:2] for part in printed.split() if part.count(":") == 1 and not part.endswith(":"))
    return Usage(
        int(found["REG"]), int(found["STACK"]) + int(found["LOCAL"]), compiled.metadata.shared, compiled.asm["ptx"]
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=whole(), nargs="+", default=[64, 128, 170, 190, 256, 512])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["relu", "modrelu", COMPLEX])
    parser.add_argument("--batch", type=whole(), default=128)
    parser.add_argument("--backend", choices=("triton", "streamed"), default="triton")
    arguments = parser.parse_args(given)
    print("| kernel | f | n | capability | programs to a matrix | rows at once | registers | spilled | shared |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for kind in arguments.kinds:
        for n in arguments.sizes:
            for capability, processors in PROCESSORS.items():
                plan: Any = Plan.of(n, 1 + (kind == COMPLEX), arguments.batch, 4, processors)
                if arguments.backend == "streamed":
                    plan = StreamedPlan.of(n, arguments.batch, processors)
                for name in ("forward", "backward") if plan else ():
                    found = usage(name, kind, n, arguments.batch, capability, arguments.backend)
                    cut = f"{plan.group} | {plan.rows}" if plan else ""
                    numbers = f"{found.registers} | {found.spilled} B | {found.shared} B"
                    print(f"| {name} | {kind} | {n} | {capability / 10} | {cut} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
