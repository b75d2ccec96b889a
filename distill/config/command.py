"""What happens to a command line before Hydra runs a command, and after Hydra has refused it.

    start(main, "train")        # instead of main(): in an entry point, with the name of its configuration in conf/

`--help` is answered from conf/. Values that Hydra's grammar refuses are quoted. A key, option or value that Hydra
refuses is answered with one line and exit status 2. Imports neither torch nor transformers.
"""

import gc
import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from distill.config.composition import register_schemas
from distill.config.overrides import all_quoted
from distill.errors import InputError, exit_on_bad_input, printable

ONE_OF = ("-r --run", "-m --multirun", "-c --cfg", "-i --info", "-sc --shell-completion")  # of Hydra's flags
RENAMED = {
    "optimizer.warmup_steps": "is now optimizer.warmup, a share of the steps if below 1: write optimizer.warmup="
}


def start(main: Callable[[], object], name: str) -> None:
    """Run a function made by `hydra.main`; raises SystemExit(2) after one line on bad input."""
    gc.set_threshold(50_000, 20, 20)  # the imports of a short run make a million objects, and no garbage
    register_schemas()
    arguments = with_flags_first(all_quoted(sys.argv[1:], is_sweep=asks_for_sweep(sys.argv[1:])))
    with exit_on_bad_input(sweep=False):
        refuse_renamed(arguments)
        from distill.config.mistakes import check_options

        check_options(name, overrides_of(arguments), asks_for_sweep(arguments))
        if {"-h", "--help"} & {*arguments}:
            from distill.config.help import help_text

            _print(help_text(name, overrides_of(arguments)))
            return
        refuse_flags(arguments)
    sys.argv[1:] = arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through, of which Hydra would print several lines
    with exit_on_bad_input(sweep=False):  # what a disk answers when Hydra writes
        try:
            main()
        except (HydraException, OmegaConfBaseException, YAMLError, InputError) as error:
            from distill.config.mistakes import mistake

            reason = mistake(error, name, overrides_of(arguments), asks_for_sweep(arguments))
            print(f"error: {printable(reason)}", file=sys.stderr)
            sys.exit(2)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `--help | head`: Python would write to it once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_renamed(arguments: list[str]) -> None:
    """Raise InputError for a key that has another name now: Hydra would only say that it is unknown."""
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        if key in RENAMED:
            raise InputError(f"{key}={value}: {RENAMED[key]}{value}")


def refuse_flags(arguments: list[str]) -> None:
    """Raise InputError for flags that Hydra does not take together: it would end in a traceback."""
    given = {one.partition("=")[0] for one in arguments}
    names = [flag.split()[-1] for flag in ONE_OF if given & {*flag.split()}]
    if len(names) > 1:
        raise InputError(f"{' and '.join(names)}: give only one of them")
    if "--resolve" in given and "--cfg" not in names:
        raise InputError("--resolve: needs --cfg, as in --cfg job --resolve")


def with_flags_first(arguments: list[str]) -> list[str]:
    """Put -m before the overrides: behind some, argparse would refuse it, and print all that follows, secrets too."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return [*flags, *(argument for argument in arguments if argument not in flags)]


def overrides_of(arguments: list[str]) -> list[str]:
    """Return the arguments that are overrides: without Hydra's flags and their values."""
    takes_value = "--cfg -c --package -p --config-path -cp --config-name -cn --config-dir -cd".split()
    before = ["", *arguments]
    return [one for one, last in zip(arguments, before, strict=False) if one[:1] != "-" and last not in takes_value]


def asks_for_sweep(arguments: list[str]) -> bool:
    """Whether the command line asks Hydra for a sweep."""
    return bool({"-m", "--multirun"} & {*arguments})
