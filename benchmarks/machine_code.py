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
from kernels.adr_mse import discounted_error
from kernels.approx_ndcg import lost_gain
from kernels.bradley_terry import bradley_terry_pairs
from kernels.hinge import hinge_pairs
from kernels.lambda_loss import lambda_pairs
from kernels.pairs import MAX_FACTORS, pairs_kernel
from kernels.ranknet import ranknet_pairs
from kernels.smooth_ranks import smooth_ranks_kernel

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COMMON = {
    "MEAN": False,
    "ROWS": launch.ROWS,
    "COLUMNS": launch.MAX_COLUMNS,
    "TOTAL_BLOCK": launch.TOTAL_BLOCK,
}  # as in training
ONE_PASS = COMMON | {"MAX_FACTORS": MAX_FACTORS}  # kernels/pairs.py
TWO_PASSES = COMMON | {"SURVEY_BLOCK": 1024}  # kernels/smooth_ranks.py


def _pairs(pair: triton.JITFunction, zero_is_padding: bool, idle_bits: int) -> tuple:
    return pairs_kernel, {**ONE_PASS, "PAIR": pair, "ZERO_IS_PADDING": zero_is_padding, "IDLE_BITS": idle_bits}


def _smooth_ranks(term: triton.JITFunction, zero_is_padding: bool) -> tuple:
    return smooth_ranks_kernel, {**TWO_PASSES, "TERM": term, "ZERO_IS_PADDING": zero_is_padding}


KERNELS = {  # as their launchers call them
    "ranknet": _pairs(ranknet_pairs, True, 1),
    "bradley_terry": _pairs(bradley_terry_pairs, False, 1),
    "hinge": _pairs(hinge_pairs, False, 0),
    "lambda_loss": _pairs(lambda_pairs, False, 0),
    "adr_mse": _smooth_ranks(discounted_error, True),
    "approx_ndcg": _smooth_ranks(lost_gain, False),
}
PAIRS_PER_THREAD = launch.ROWS * launch.MAX_COLUMNS // (32 * launch.OPTIONS["num_warps"])
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*);")
LABEL = re.compile(r"^\s*(\.L_x_\d+):")


def compile_for(name: str, arch: int):
    """Compile one kernel for lists of more than 128 passages with float32 scores; return Triton's result."""
    kernel, constants = KERNELS[name]
    types = {"counters": "*i32", "alpha": "fp32", "option": "fp32"}
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
    """Return the instructions of every innermost loop over pairs.

    Of all loops, only these have a reciprocal square root; where no loop has one, it is the longest of the innermost.
    """
    labels, instructions = {}, []
    for line in machine_code.splitlines():
        if label := LABEL.match(line):
            labels[label.group(1)] = len(instructions)
        elif instruction := INSTRUCTION.search(line):
            instructions.append(instruction.groups())
    loops = []
    for end, (name, operands) in enumerate(instructions, start=1):
        target = re.search(r"\.L_x_\d+", operands) if name.startswith("BRA") else None
        start = labels.get(target.group(0), end) if target else end
        if start < end:
            loops.append((start, end))
    with_root = [(a, b) for a, b in loops if any(name.startswith("MUFU.RSQ") for name, _ in instructions[a:b])]
    spans = with_root or loops
    innermost = [a for a in spans if not any(a[0] <= b[0] and b[1] <= a[1] and a != b for b in spans)]
    if not with_root:
        innermost = [max(innermost, key=lambda span: span[1] - span[0])]
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
    print(f"{'kernel':14}{'registers':>10}{'spilled':>10}{'loop':>6}{'instructions/pair':>20}{'special/pair':>15}")
    for name in KERNELS:
        kernel = describe(name, arguments.arch)
        for number, loop in enumerate(kernel["loops"], start=1):
            print(
                f"{name:14}{kernel['registers']:10}{kernel['spilled bytes']:8} B{number:6}"
                f"{loop['instructions']:20.1f}{loop['special']:15.2f}"
            )


if __name__ == "__main__":
    main()
