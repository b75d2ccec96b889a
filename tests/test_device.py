"""The precision that a device is given, and what is said of a slow one."""

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

from distill import device
from distill.device import choose_device, choose_precision, cpu_flags, half_precision, must_compile
from distill.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def cpu_info(tmp_path, monkeypatch):
    """A /proc/cpuinfo of our own."""
    device._warn_of_slow_half.cache_clear()
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")
    yield tmp_path / "cpuinfo"
    device._warn_of_slow_half.cache_clear()


def test_auto_is_bfloat16_on_cuda_alone():
    assert choose_precision("auto", CPU) == choose_precision("float32", CPU) == torch.float32
    assert choose_precision("auto", torch.device("cuda")) == torch.bfloat16


def test_a_device_without_half_precision_is_refused():
    with pytest.raises(InputError, match=r"device=meta: not usable here \(.*\): try device=cpu"):
        choose_device("meta")


@pytest.mark.parametrize(("kind", "compiler"), [("cpu", r"g\+\+"), ("cuda", "gcc")])
def test_compiling_without_a_compiler_is_refused_before_the_data_are_read(monkeypatch, kind, compiler):
    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert not must_compile("false", torch.device(kind)) and not must_compile("auto", CPU)
    with pytest.raises(
        InputError, match=f"train.compile=true: no compiler was found: install {compiler}, or set train"
    ):
        must_compile("true", torch.device(kind))
    monkeypatch.undo()
    assert must_compile("True", torch.device(kind))


def test_bfloat16_without_instructions_for_it_is_warned_of_once(cpu_info, caplog):
    cpu_info.write_text(
        "processor\t: 0\nflags\t\t: fpu sse4_2 avx avx2 fma f16c\n\nprocessor\t: 1\nflags\t\t: fpu avx2\n"
    )
    assert cpu_flags(cpu_info) == {"fpu", "sse4_2", "avx", "avx2", "fma", "f16c"}
    assert choose_precision("bfloat16", CPU) == choose_precision("bfloat16", CPU) == torch.bfloat16
    assert caplog.messages == [
        "precision=bfloat16: this CPU has no instructions for it (none of amx_bf16, avx512_bf16, bf16): with only AVX2 "
        "it took eight times as long as float32: use float32 or auto"
    ]


def test_float16_without_instructions_for_it_is_warned_of_once(cpu_info, caplog):
    cpu_info.write_text("flags\t\t: fpu avx2 avx512_bf16\n")
    assert choose_precision("float16", CPU) == choose_precision("float16", CPU) == torch.float16
    assert caplog.messages == [
        "precision=float16: this CPU has no instructions for it (none of amx_fp16, asimdhp, avx512_fp16): it is slower "
        "than float32: use float32 or auto"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "flags\t\t: fpu avx2 avx512f avx512_bf16\n",
        "flags\t\t: fpu avx2 amx_bf16 amx_tile\n",
        "Features\t: fp asimd i8mm bf16\n",  # ARM
        "Model\t: a board that lists nothing\n",
        None,  # another system
    ],
)
def test_nothing_is_said_where_it_is_fast_or_not_known(cpu_info, caplog, text):
    if text is not None:
        cpu_info.write_text(text)
    choose_precision("bfloat16", CPU)
    assert not caplog.messages


def test_float16_is_refused_in_one_line_where_the_device_has_none(monkeypatch):
    def lacking(*_):
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'\nand more")

    assert choose_precision("float16", CPU) == torch.float16
    monkeypatch.setattr(torch.nn.functional, "linear", lacking)
    with pytest.raises(InputError) as error:
        choose_precision("float16", CPU)
    reason = "\"addmm_impl_cpu_\" not implemented for 'Half'"
    assert str(error.value) == f"precision=float16: not usable on device=cpu ({reason}): use float32 or auto"


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float32])
def test_a_forward_pass_computes_in_its_precision_whatever_is_around_it(precision):
    layer = torch.nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), half_precision(CPU, precision):
        assert layer(torch.ones(1, 2)).dtype == precision


def test_float32_and_gpus_are_never_warned_of(cpu_info, caplog):
    cpu_info.write_text("flags\t\t: fpu avx2\n")
    choose_precision("auto", CPU)
    choose_precision("float32", CPU)
    choose_precision("bfloat16", torch.device("cuda"))
    assert not caplog.messages
