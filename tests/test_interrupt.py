"""Ctrl-C and SIGTERM end a command with one line, early and late."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.config.overrides import as_override
from distill.jobs import resume_command
from distill.training.checkpoint import load_checkpoint
from tests.helpers.commands import run, run_patched, start
from tests.helpers.configuration import compose_config
from tests.helpers.paths import ROOT


@pytest.mark.parametrize(("number", "name"), [(2, "Ctrl-C"), (15, "SIGTERM")])
def test_a_stop_during_the_final_test_is_one_line_that_says_how_to_resume(file_overrides, tmp_path, number, name):
    directory = tmp_path / "lr=1e-3,seed=0"
    patch = (
        "import distill.evaluation.suite\n"
        f"def stopped(*arguments):\n    os.kill(os.getpid(), {number}); time.sleep(5)\n"
        "distill.evaluation.suite.measure_rows = stopped"
    )
    arguments = [*file_overrides, "train.max_steps=2", as_override("hydra.run.dir", directory)]
    stopped = run_patched(tmp_path, patch, "train.py", *arguments)
    assert stopped.returncode == 128 + number and "Traceback" not in stopped.stderr
    command = resume_command(compose_config("train"), directory)
    assert stopped.stderr.splitlines()[-1] == f"stopped by {name}; resume with: {command}"
    assert load_checkpoint(directory / "checkpoints" / "last.pt")["step"] == 2
    if number == 2:
        run(*shlex.split(command.removeprefix("python ")), cwd=tmp_path, check=True)
        assert (directory / "results.json").is_file()


@pytest.mark.parametrize("script", [[str(ROOT / "train.py")], ["-m", "distill", "retrieve"]], ids=["train", "retrieve"])
def test_ctrl_c_while_it_starts_is_one_line(tmp_path, script):
    for module in (
        "hydra.version",
        "omegaconf",
        "distill.config.checks",
        "torch.nn",
    ):  # what it imports then, early and late
        command = [sys.executable, "-X", "importtime", *script]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if line.rsplit("|")[-1].strip() == module:
                process.send_signal(2)
                break
        _, errors = process.communicate()
        if process.returncode == 2:  # retrieve has ended before, for want of arguments
            continue
        said = [line for line in errors.splitlines() if not line.startswith("import time:")]
        assert process.returncode == 130 and said[-1:] == ["stopped by Ctrl-C"], (module, said)


TOKENISE = """
import sys
from transformers import AutoTokenizer
from distill.data.token_store import open_token_store
from distill.interrupt import answer_stops

if __name__ == "__main__":
    answer_stops()
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
    print(len(open_token_store(sys.argv[1], tokenizer, 16)))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) == 1, reason="looks for two children in /proc"
)
def test_ctrl_c_while_its_processes_for_tokenising_start_is_one_line(tmp_path):
    (tmp_path / "tokenise.py").write_text(TOKENISE)
    passages = tmp_path / "passages.tsv"
    passages.write_text("".join(f"d{number}\tbees find home by the sun\n" for number in range(12_000)))
    environment = os.environ | {"DISTILL_CACHE": str(tmp_path / "cache")}
    arguments = (tmp_path / "tokenise.py", passages, ROOT / "sample" / "backbone")
    command = start(*arguments, env=environment, cwd=tmp_path, start_new_session=True)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    while command.poll() is None and len(children.read_text().split()) < 3:  # two, and the tracker of their resources
        time.sleep(0.01)
    time.sleep(0.2)  # they import
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait() == 130
    _, errors = command.communicate()
    assert errors.splitlines()[-1] == "stopped by Ctrl-C" and "Traceback" not in errors
