"""The answer to --help: every key with its default and its comment in conf/, and every group with its options.

help_text("train", ["data=msmarco"])        # with the defaults of the options given beside --help
"""

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distill.config.composition import ROOT, options_of
from distill.config.mistakes import REFUSALS, mistake
from distill.config.rules import shown
from distill.errors import InputError

COLUMN = 44  # where comments begin
LONGEST = 34  # characters of a default that are shown
SWEPT = ("train", "evaluate", "annotate")  # commands whose runs can be jobs of a sweep
SILENT = ("hydra/job_logging", "hydra/hydra_logging")  # groups that nobody chooses from
KEY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<rest>.*)")
COMMENT = re.compile(r"\s#\s+(.*)")
NEW_DIRECTORY = re.compile(r"\$\{output_dir:.*,(.*)\}")
MORE = re.compile(r" +# +(?P<more>.*)")  # the next line of a comment


def help_text(name: str, overrides: list[str]) -> str:
    """Return the help of a command; raises InputError for wrong overrides."""
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose(name, overrides=overrides, return_hydra_config=True)
    except REFUSALS as error:
        raise InputError(mistake(error, name, overrides)) from None
    choices = {str(group): option for group, option in cfg.hydra.runtime.choices.items()}
    path = ROOT / "conf" / f"{name}.yaml"
    comments = _file_comments(path, "")
    for group, option in choices.items():
        comments = _option_comments(group, option) | comments
    values = OmegaConf.to_container(cfg, resolve=False)
    del values["hydra"]
    if name not in SWEPT:
        choices = {group: option for group, option in choices.items() if not group.startswith("hydra/")}
    new = _readable(str(OmegaConf.to_container(cfg.hydra.run, resolve=False)["dir"]), "")
    lines = [first_comment(path), "", *_groups(choices, list(values)), "Keys (key=default):"]
    section = ""
    for key, value in _flat(values):
        if key.rpartition(".")[0] != section:
            section = key.rpartition(".")[0]
            lines.append("")
        lines += _line(f"  {key}={_short(value, new)}", comments.get(key, ""))
    return "\n".join(
        [*lines, "", "More: docs/configuration.md; --cfg job prints the configuration, --hydra-help Hydra's flags"]
    )


def read_comments(path: Path) -> dict[str, str]:
    """Return the comment beside every key of a file, by the key's path."""
    comments: dict[str, str] = {}
    stack: list[Any] = []
    last: Any = None
    for line in path.read_text(encoding="utf-8").splitlines():
        more, match = MORE.fullmatch(line), KEY.match(line)
        if more and last:
            comments[last] += f" {more['more']}"
        elif match:
            stack = [one for one in stack if one[0] < len(match["indent"])] + [(len(match["indent"]), match["key"])]
            last, comment = ".".join(key for _, key in stack), COMMENT.search(match["rest"])
            if comment:
                comments[last] = comment[1].strip()
            else:
                last = None
        else:
            last = None
    return comments


def first_comment(path: Path) -> str:
    """Return the first line of the comment at the head of a file; "" for none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    heads = (line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line)
    return next(heads, "")


def _option_comments(group: str, option: str | None) -> dict[str, str]:
    """Return the comments of an option by full path."""
    folder, _, package = group.partition("@")
    path = ROOT / "conf" / folder / f"{option}.yaml"
    if not path.is_file() or folder == "experiment" or folder.startswith("hydra"):
        return {}
    return _file_comments(path, f"{package or folder}.")


def _file_comments(path: Path, prefix: str) -> dict[str, str]:
    """Return the comments of a file by full path: those of the files that it starts from, and its own over them."""
    text = path.read_text(encoding="utf-8")
    if text.startswith("# @package _global_"):
        prefix = ""
    comments: dict[str, str] = {}
    for one in (yaml.safe_load(text) or {}).get("defaults", []):
        if not isinstance(one, str):
            continue
        name, _, package = one.partition("@")
        start = ROOT / "conf" / f"{name[1:]}.yaml" if name.startswith("/") else path.parent / f"{name}.yaml"
        if start.is_file() and not name.startswith("hydra"):
            comments |= _file_comments(start, f"{prefix}{package}." if package else prefix)
    return comments | {f"{prefix}{key}": comment for key, comment in read_comments(path).items()}


def _groups(choices: dict[str, str | None], order: list[str]) -> list[str]:
    """Return the section of the groups, in that order: the chosen option, and all options with their first comment."""
    order = [*order, "experiment"]
    lines: list[str] = []
    seen: dict[Any, Any] = {}
    for group, chosen in sorted(choices.items(), key=lambda one: _place(one[0], order)):
        folder = group.partition("@")[0]
        if not options_of(folder) or group in SILENT:
            continue
        lines.append(f"  {group}={shown(chosen)}")
        if folder in seen:
            lines.append(f"    the options of {seen[folder]}")
            continue
        seen[folder] = group
        for option in options_of(folder):
            lines += _line(f"    {option}", first_comment(ROOT / "conf" / folder / f"{option}.yaml"))
    return ["Groups (group=option, a file of conf/):", "", *lines, ""] if lines else []


def _place(group: str, order: list[str]) -> int:
    """Return where a group is in that order, by the key that it sets; Hydra's groups are at the end."""
    folder, _, package = group.partition("@")
    key = (package or folder).split(".")[0]
    return order.index(key) if key in order else len(order)


def _flat(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    """Return the keys with their values: those of the top first, then group by group."""
    leaves = [(f"{prefix}{key}", value) for key, value in values.items() if not isinstance(value, dict) or not value]
    groups = [(key, value) for key, value in values.items() if isinstance(value, dict) and value]
    return leaves + [pair for key, value in groups for pair in _flat(value, f"{prefix}{key}.")]


def _short(value: object, new: str) -> str:
    """Return a default as --help shows it; new: the output directory of a run, where it is not given."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
    text = text if isinstance(value, dict | list) else str(shown(text if isinstance(value, bool) else value))
    readable = _readable(text, new)
    return readable if readable != text or len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _readable(text: str, new: str) -> str:
    """Return a path as the user will see it, with DATE and TIME for those of the start."""
    text = text.replace("${now:%Y-%m-%d}", "DATE").replace("${now:%H-%M-%S}", "TIME")
    return NEW_DIRECTORY.sub(r"\1", text.replace("${hydra:runtime.output_dir}", new))


def _line(left: str, comment: str) -> list[str]:
    """Return what is on the left with its comment beside it, wrapped to the terminal."""
    width = max(shutil.get_terminal_size((120, 24)).columns, COLUMN + 40)
    start = f"{left:{COLUMN - 2}}  " if comment else left
    return textwrap.wrap(f"{start}{comment}", width, subsequent_indent=" " * COLUMN, break_on_hyphens=False,
                         drop_whitespace=True, break_long_words=False) or [left]  # fmt: skip
