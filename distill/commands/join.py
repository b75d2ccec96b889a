"""Make one run of the shards of an evaluation or annotation: what the whole would have left, before it was measured.

    python evaluate.py -m shard=0/4,1/4,2/4,3/4 model=DIR task=files ... hydra.sweep.dir=outputs/shards
    python -m distill join shards=[outputs/shards] output=outputs/whole
    python evaluate.py resume=outputs/whole                                 measures it; nothing is re-ranked again

An annotation is finished with `python -m distill annotate resume=outputs/whole`: its journal has all answers. Missing,
unfinished, overlapping and differently configured shards are refused.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.checks import check_values
from distill.config.composition import ROOT, flatten
from distill.config.overrides import as_override
from distill.config.resumable import ANNOTATION, EVALUATION, Command, command_of, read_saved
from distill.config.resuming import describe as describe_changes
from distill.config.resuming import refused
from distill.errors import InputError
from distill.jobs import RESULTS, command_line, run_command, shown_path
from distill.sources.shards import Shard, is_shard

log = logging.getLogger("join")

RUNS = {EVALUATION: ("run.txt", "tasks/*/run.txt"), ANNOTATION: ("teacher.run",)}
JOURNAL = "journal.jsonl"


def join(cfg: DictConfig) -> None:
    """Join as configured; raises InputError for shards that do not make up one run."""
    from distill.storage.writing import write_whole_directory

    output = Path(cfg.output)
    if output.exists():
        raise InputError(f"output={output}: already exists: choose another name, or remove it")
    command, shards = find_shards(list(cfg.shards))
    names = _same_files(command, shards)

    def write(new: Path) -> None:
        for name in names:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            joiner: Callable[[list[Path], Path], None] = join_journals if name == JOURNAL else join_runs
            joiner([directory / name for directory in shards], new / name)
        config = (shards[0] / "config.yaml").read_text(encoding="utf-8")
        (new / "config.yaml").write_text(re.sub(r"(?m)^shard: .*$", "shard: null", config), encoding="utf-8")

    write_whole_directory(output, write, is_new=True)
    log.info("%d shards: %s", len(shards), shown_path(output))
    log.info("next: %s", command_line(command.name, as_override("resume", shown_path(output))))


def find_shards(places: list[str]) -> tuple[Command, list[Path]]:
    """Return the command that made the shards in or below some directories, and theirs, in the order of the shards.

    Raises InputError unless they are all shards of one run, and finished.
    """
    found: dict[Shard, tuple[Path, dict]] = {}
    for path in sorted({path for place in places for path in _runs_below(Path(place))}):
        saved = read_saved(path)
        text = saved.get("shard")
        if text is None or command_of(saved) not in RUNS:
            continue
        if not is_shard(text):
            raise InputError(f"{path / 'config.yaml'}: shard={text} is none: restore it, or run this shard again")
        shard = Shard.parse(text)
        _check_fits(shard, path, saved, found)
        found[shard] = path, saved
    if not found:
        raise InputError(
            f"shards={','.join(places)}: no shard there or below: expected runs with shard=0/4 and the like"
        )
    number = next(iter(found)).number
    missing = [str(Shard(place, number)) for place in range(number) if Shard(place, number) not in found]
    if missing:
        raise InputError(
            f"shards={','.join(places)}: shard {', '.join(missing)} is missing: run it, or name its directory"
        )
    for shard, (path, _) in sorted(found.items()):
        if not (path / RESULTS).is_file():
            raise InputError(f"{path}: shard {shard} has not finished: run its command again, which resumes it")
    _, saved = found[Shard(0, number)]
    return command_of(saved), [path for _, (path, _) in sorted(found.items())]


def _runs_below(directory: Path) -> list[Path]:
    from distill.report.runs import NOT_SEARCHED  # here: it needs NumPy

    paths = (path.parent for path in directory.rglob("config.yaml"))
    return [path for path in paths if not {*path.relative_to(directory).parts} & {*NOT_SEARCHED}]


def _check_fits(shard: Shard, path: Path, saved: dict, found: dict[Shard, tuple[Path, dict]]) -> None:
    """Raise InputError if a shard does not belong to those that were found before."""
    if shard in found:
        raise InputError(f"{path} and {found[shard][0]} are both shard {shard}: name only one of them")
    for other, (place, config) in found.items():
        if other.number != shard.number:
            raise InputError(f"{path} is shard {shard}, but {place} is shard {other}: name the shards of one run")
        if command_of(config) is not command_of(saved):
            raise InputError(f"{path} and {place} are runs of different commands: name the shards of one run")
        one, two = flatten(config), flatten(saved)
        pairs = {key: (one.get(key), two.get(key)) for key in sorted((one.keys() | two.keys()) - {"shard", "resume"})}
        changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        changed = refused(changed, command_of(saved), resumed=False)
        if changed:
            raise InputError(
                f"{path} and {place} are shards of different runs ({describe_changes(changed)}): name those of one"
            )


def _same_files(command: Command, shards: list[Path]) -> list[str]:
    """Return the names of the files to join, which all shards have; raises InputError if one lacks some."""
    patterns = (*RUNS[command], JOURNAL)
    names = [{str(path.relative_to(place)) for pattern in patterns for path in place.glob(pattern)} for place in shards]
    for place, own in zip(shards, names, strict=True):
        if lacking := sorted(set.union(*names) - own):
            raise InputError(f"{place}: lacks {lacking[0]}, which other shards have: run this shard again")
    return sorted(names[0])


def join_runs(paths: list[Path], output: Path) -> None:
    """Write one run after the other; raises InputError if two have a query in common."""
    seen: dict[bytes, Path] = {}
    with open(output, "wb") as joined:
        for path in paths:
            with open(path, "rb") as run:
                for query_id in {line.split(None, 1)[0]: None for line in run if line.strip()}:
                    if query_id in seen:
                        raise InputError(
                            f"{path} and {seen[query_id]} both rank query {query_id.decode()}: the first stage has "
                            "changed between them: run one of the shards again"
                        )
                    seen[query_id] = path
                run.seek(0)
                shutil.copyfileobj(run, joined)


def join_journals(paths: list[Path], output: Path) -> None:
    """Write the answers of all journals, one for each request: where two have paid for it, the first one's."""
    from distill.teachers.entries import line_of

    paid = {key for key, entry in _entries(paths) if not entry.get("is_shared")}
    written = set[str]()
    with open(output, "wb") as joined:
        for key, entry in _entries(paths):
            if key not in written and not (key in paid and entry.get("is_shared")):
                written.add(key)
                joined.write(line_of(key, entry))


def _entries(paths: list[Path]) -> Iterator[tuple[str, dict]]:
    from distill.teachers.entries import Entries

    for path in paths:
        with open(path, "rb") as file:
            entries = Entries(path, file)
            entries.catch_up()
            yield from entries.entries()


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"joining the shards in {', '.join(cfg.shards)}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="join", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Join once; bad input ends with a one-line message and exit status 2."""
    run_command(cfg, describe, check_values, join)
