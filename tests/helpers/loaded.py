"""Which packages of third parties each step of a list loads, in forks of one process that starts with none.

    loaded = packages_of({"import": "import distill"}, {"report --help": "command('report', '--help')"}, stops={})

A step is Python code. The steps of the second list are forked once Hydra is loaded; `forget()` leaves out what is
loaded before it. What a step has loaded is noted at its first two log lines, and at its end; `stops` names
those that end at one of these lines.
"""

import json
import logging
import os
import subprocess
import sys

from tests.helpers.paths import ROOT

PROGRAM = "from tests.helpers.loaded import main; main()"
LINES = FIRST_LINE, SECOND_LINE = "first line", "second line"
END = "end"
started_with = set(sys.modules)


class Stop(BaseException):
    """Ends a step at one of its lines."""


def packages_of(bare: dict[str, str], hydra: dict[str, str], stops: dict[str, str]) -> dict[str, dict[str, set]]:
    """Run the steps; return the packages that each has loaded, by step and by moment.

    Raises AssertionError for a step that fails.
    """
    given = json.dumps({"bare": bare, "hydra": hydra, "stops": stops})
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=given, env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: {moment: set(packages) for moment, packages in of_step.items()} for name, of_step in found}


def main() -> None:
    """Fork for each step of the request on standard input; write a line of JSON for each."""
    request = json.load(sys.stdin)
    for name, code in request["bare"].items():
        _fork(name, code, request["stops"].get(name))
    import distill.config.command  # noqa: F401

    for name, code in request["hydra"].items():
        _fork(name, code, request["stops"].get(name))


def command(*arguments: str) -> None:
    """Do what `python -m distill ARGUMENTS` does."""
    from distill.__main__ import main

    sys.argv = ["distill", *arguments]
    main()


def loaded() -> set[str]:
    """Return the packages of third parties in this process, besides those that the interpreter started with."""
    names = {name.partition(".")[0] for name in set(sys.modules) - started_with}
    return {name for name in names if name[0] != "_"} - set(sys.stdlib_module_names) - {"distill", "tests", "examples"}


def forget() -> None:
    """Count only what is loaded from now on."""
    started_with.update(sys.modules)


def _fork(name: str, code: str, stop: str | None) -> None:
    pid = os.fork()
    if pid:
        if os.waitpid(pid, 0)[1]:
            raise SystemExit(f"{name}: failed")
        return
    output = os.dup(1)
    os.dup2(2, 1)  # what the step prints
    noted: dict[str, set[str]] = {}
    make_record = logging.getLogRecordFactory()

    def note(*arguments, **keywords) -> logging.LogRecord:
        line = next((line for line in LINES if line not in noted), None)
        if line is not None:
            noted[line] = loaded()
        if stop is not None and line == stop:
            raise Stop
        return make_record(*arguments, **keywords)

    logging.setLogRecordFactory(note)
    status = 1
    try:
        exec(code, {"command": command, "forget": forget})
        status = 0
    except Stop:
        status = 0
    except SystemExit as error:
        status = int(bool(error.code))
    finally:
        noted[END] = loaded()
        with os.fdopen(output, "w") as lines:
            lines.write(json.dumps([name, {moment: sorted(packages) for moment, packages in noted.items()}]) + "\n")
        sys.stderr.flush()
        os._exit(status)
