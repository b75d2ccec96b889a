"""Count registers, spills and instructions per pair in the kernels' machine code; no GPU is needed.

    python -m benchmarks.machine_code              # sm_90; needs only torch and triton
    python -m benchmarks.machine_code --arch 80

Triton compiles for any NVIDIA GPU on any Linux machine, and includes the disassembler. For every loop over pairs, the
table gives the instructions of one thread per pair: all of them, and those of the special-function unit, of which
a multiprocessor finishes 16 per cycle (it issues 128). If a loop has two branches, both count.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import launch
from kernels.adr_mse import adr_mse_kernel
from kernels.ranknet import MAX_FACTORS, ranknet_kernel

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COMMON = {"MEAN": True, "ROWS": launch.ROWS, "COLUMNS": launch.MAX_COLUMNS, "TOTAL_BLOCK": launch.TOTAL_BLOCK}
KERNELS = {
    "ranknet": (ranknet_kernel, {**COMMON, "MAX_FACTORS": MAX_FACTORS}),
    "adr_mse": (adr_mse_kernel, {**COMMON, "LOG2_DISCOUNT": True, "RANGE_BLOCK": 1024}),
}
PAIRS_PER_THREAD = launch.ROWS * launch.MAX_COLUMNS // (32 * launch.OPTIONS["num_warps"])
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);")
LABEL = re.compile(r"^\s*(\.L_x_\d+):")


def compile_for(name: str, arch: int):
    """Compile one kernel for lists of more than 128 passages with float32 scores; return Triton's result."""
    kernel, constants = KERNELS[name]
    types = {"counters": "*i32", "alpha": "fp32"}
    signature, attributes = {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument.endswith("stride") or argument in ("num_passages", "num_parts"):
            signature[argument] = "i32"
        else:
            signature[argument] = types.get(argument, "*fp32")
        if signature[argument].startswith("*"):
            attributes[(place,)] = [["tt.divisibility", 16]]
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=places, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=launch.OPTIONS)


def loops_over_pairs(machine_code: str) -> list[list[str]]:
    """Return the instructions of every innermost loop over pairs: only these have a reciprocal square root."""
    labels, instructions = {}, []
    for line in machine_code.splitlines():
        if label := LABEL.match(line):
            labels[label.group(1)] = len(instructions)
        elif instruction := INSTRUCTION.search(line):
            instructions.append(instruction.groups())
    spans = []
    for end, (name, operands) in enumerate(instructions):
        target = re.search(r"\.L_x_\d+", operands) if name.startswith("BRA") else None
        start = labels.get(target.group(0), end + 1) if target else end + 1
        if any(other.startswith("MUFU.RSQ") for other, _ in instructions[start : end + 1]):
            spans.append((start, end + 1))
    innermost = [a for a in spans if not any(a[0] <= b[0] and b[1] <= a[1] and a != b for b in spans)]
    return [[name for name, _ in instructions[start:end]] for start, end in innermost]


def describe(name: str, arch: int) -> dict:
    """Return the registers, spills and instructions of one kernel's machine code."""
    compiled = compile_for(name, arch)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run([TOOLS / "cuobjdump", "-res-usage", path], capture_output=True, text=True, check=True)
        code = subprocess.run([TOOLS / "nvdisasm", "-c", path], capture_output=True, text=True, check=True).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", usage.stdout)}
    loops = [
        {
            "instructions": len(body) / PAIRS_PER_THREAD,
            "special": sum(op.startswith("MUFU") for op in body) / PAIRS_PER_THREAD,
        }
        for body in loops_over_pairs(code)
    ]
    return {"registers": numbers["REG"], "spilled bytes": numbers["STACK"] + numbers["LOCAL"], "loops": loops}


def main() -> None:
    """Print one line per loop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, default=90, help="compute capability without the dot, as in 80 or 90")
    arguments = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET"):
        sys.exit("TRITON_INTERPRET is set, so nothing would be compiled: unset it")
    print(f"Triton {triton.__version__}, sm_{arguments.arch}, {launch.OPTIONS['num_warps']} warps")
    print(f"{'kernel':10}{'registers':>10}{'spilled':>10}{'loop':>6}{'instructions/pair':>20}{'special/pair':>15}")
    for name in KERNELS:
        kernel = describe(name, arguments.arch)
        for number, loop in enumerate(kernel["loops"], start=1):
            print(
                f"{name:10}{kernel['registers']:10}{kernel['spilled bytes']:8} B{number:6}"
                f"{loop['instructions']:20.1f}{loop['special']:15.2f}"
            )


if __name__ == "__main__":
    main()
