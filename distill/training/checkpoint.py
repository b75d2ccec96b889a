"""Checkpoints, never half-written, with the random state that makes a resumed run exact.

checkpoints = Checkpoints(directory, ranks, model, optimizer, state, also, lists, of_validation, num_steps, keep)
checkpoints.resume(cfg)                           # from last.pt
checkpoints.save(improved)                        # last.pt, previous.pt and, after a better validation, best.pt
checkpoints.load_best()                           # the weights of model/
"""

import errno
import functools
import logging
import os
import pickle
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from distill.config.composition import command_overrides
from distill.data.lists import TrainingLists
from distill.distributed import Ranks
from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.lora import merge
from distill.secrets import redacted
from distill.storage.small_files import read_numbers
from distill.storage.writing import write_whole, writing
from distill.training.optim import set_lr
from distill.training.state import TrainingState
from distill.training.weights import checkpoint_weights, merged_weights, restore_weights

log = logging.getLogger(__name__)

NAMES = ("last.pt", "previous.pt", "best.pt")  # in checkpoints/
# What names in results.json begin with
OF_VALIDATION = ("val/", "calibration/validation/", "calibration/temperature", "calibration/offset")
# What file systems that have no hard links, or no more of them, answer to os.link
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
# Exceptions that torch.load raises for a damaged file
DAMAGE = (
    *(OSError, EOFError, LookupError, ValueError, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError),
    *(zipfile.BadZipFile, zlib.error, OverflowError, MemoryError),
)


class Checkpoints:
    """The checkpoints last.pt, previous.pt and best.pt of one run, and model/, the weights of its best validation."""

    def __init__(
        self,
        directory: Path,
        ranks: Ranks,
        model: CrossEncoder,
        optimizer: torch.optim.Optimizer,
        state: TrainingState,
        also: dict[str, Any],
        lists: dict[str, TrainingLists],
        of_validation: dict[str, int],
        num_steps: int,
        keep_previous: bool,
    ):
        """Keep references to what checkpoints contain, and note what resuming checks; nothing is written yet.

        also: by name, what else has a state_dict; one that is empty is left out. of_validation: task -> checksum.
        """
        self.also = also
        self.results = directory / "results.json"
        self.of_validation = of_validation
        self.gone: list[str] = []  # validation tasks of a finished run that are no longer available
        self.last, self.previous, self.best = (directory / "checkpoints" / name for name in NAMES)
        self.keep_previous = keep_previous
        self.model_directory = directory / "model"
        self.ranks, self.model, self.optimizer, self.state = ranks, model, optimizer, state
        self.overrides = own_overrides()  # of this command and, once resumed, of the run's earlier commands
        self.lists = [number for of_set in lists.values() for number in (len(of_set), len(of_set.rows))]
        self.checksums = {name: of_set.checksum() for name, of_set in lists.items()}
        self.num_steps = num_steps
        self.vocabulary = zlib.crc32(repr(sorted(model.tokenizer.get_vocab().items())).encode("utf-8", "replace"))

    def resume(self, cfg: DictConfig) -> None:
        """Restore weights, optimiser, state and random generators from last.pt, and log any change of schedule.

        Raises InputError for a damaged checkpoint, and if the data of training or validation are not the run's.
        """
        saved = load_checkpoint(self.last)
        self._check_same_run(saved, cfg)  # before anything is written
        if self.ranks.is_first:
            mend_best(saved, self.last, self.best, self.model, self.model_directory)
        num_steps = self.num_steps
        restore_weights(self.model, saved, self.last)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state.restore(saved, self.ranks)
        for name, part in self.also.items():
            if name in saved or part.state_dict():  # what an earlier version did not save starts from here
                part.load_state_dict(saved.get(name, {}))
        step, ranks = self.state.step, self.ranks
        restore_random_state(saved["random"], ranks.rank, ranks.size, cfg.seed + step)
        self.overrides = joined_overrides(saved.get("overrides", []), self.overrides)
        log.info("resumed at step %d of %d", step, num_steps)
        before = saved.get("num_steps", num_steps)
        if num_steps > before:
            self.state.longer_from = step
        if num_steps != before:
            lr_before, lr = (set_lr(self.optimizer, cfg.optimizer, step, steps) for steps in (before, num_steps))
            log.info(
                "the %s schedule now ends at step %d, not %d: the learning rate at step %d is %.3g instead of %.3g",
                *(cfg.optimizer.schedule, num_steps, before, step, lr, lr_before),
            )

    def _check_same_run(self, saved: dict[str, Any], cfg: DictConfig) -> None:
        """Raise InputError where model, tokenizer, training data or validation are not those of a checkpoint."""
        weights = self.model.state_dict()
        if _head_names(saved["model"]) != _head_names(weights):
            raise InputError(
                f"model.head={cfg.model.head}: the run's checkpoint has another head: set model.head=linear, which "
                "runs had before there was a choice"
            )
        backbone = f"backbone.name={cfg.backbone.name}"
        for name, tensor in saved["model"].items():
            there = list(weights[name].shape) if name in weights else "missing"
            if there != list(tensor.shape):
                raise InputError(
                    f"{backbone}: {name} is {there}, and {list(tensor.shape)} in {self.last}: give the backbone that "
                    "the run was started with"
                )
        if saved.get("vocabulary", self.vocabulary) != self.vocabulary:
            raise InputError(
                f"{backbone}: its tokenizer has another vocabulary than the run's: give the backbone that the run was "
                "started with"
            )
        if saved.get("lists", self.lists) != self.lists:
            raise InputError(
                f"resume={cfg.resume}: {self.lists} lists and passages to train on, but {saved['lists']} before: "
                "give the files that the run was started with"
            )
        before = saved.get("checksums", {})  # an earlier version saved none
        others = [name for name, checksum in self.checksums.items() if before.get(name, checksum) != checksum]
        if others:
            of_sets = f" of {', '.join(others)}" if len(self.checksums) > 1 else ""
            raise InputError(
                f"resume={cfg.resume}: the training lists{of_sets} are as many as before, but their ids, texts or "
                "targets differ: give the files that the run was started with"
            )

        self._check_validation(saved.get("of_validation", self.of_validation), cfg)  # an earlier version saved none

    def _check_validation(self, before: dict[str, int], cfg: DictConfig) -> None:
        """Raise InputError for other tasks than before, whose values cannot be compared with the best one so far."""
        gone = [name for name in before if name not in self.of_validation]
        faults = [f"{name} is not available now" for name in gone]
        for name, checksum in self.of_validation.items():
            if name not in before:
                faults.append(f"{name} was not available then")
            elif checksum != before[name]:
                faults.append(f"{name} has other judgments, lists or texts")
        if self.results.is_file() and len(faults) == len(gone):  # it is only measured again
            self.gone = gone
        elif faults:
            raise InputError(
                f"resume={cfg.resume}: the validation differs from the run's ({'; '.join(faults)}), so that its values "
                "could not be compared with those before: give the files that the run was started with"
            )

    def save(self, improved: bool) -> None:
        """Write last.pt and, if the last validation was the best so far, make best.pt another name of it.

        The last.pt of before becomes previous.pt, unless that is not kept: then previous.pt is removed.
        """
        content = {
            "lists": self.lists,
            "checksums": self.checksums,
            "of_validation": self.of_validation,
            "vocabulary": self.vocabulary,
            "num_steps": self.num_steps,
            **self.state.saved(self.ranks),
            "random": self.ranks.gather(random_state()),
            **checkpoint_weights(self.model),
            "optimizer": self.optimizer.state_dict(),
            "overrides": self.overrides,
            **{name: part.state_dict() for name, part in self.also.items() if part.state_dict()},
        }
        if self.ranks.is_first:
            if not self.keep_previous:
                self.previous.unlink(missing_ok=True)
            elif self.last.exists():  # before last.pt is written, so that no more files exist at once
                link_checkpoint(self.last, self.previous)
            save_checkpoint(self.last, content)
            if improved:
                link_checkpoint(self.last, self.best)

    def chosen_before(self) -> dict[str, float]:
        """Give the model the interpolation and calibration of model/; return what results.json says of the validation.

        Of a finished run, for tasks that are gone.
        """
        log.warning("the model stays as the validation has chosen it: %s cannot be ranked again", ", ".join(self.gone))
        saved = _open(self.model_directory, self.model)
        self.model.interpolation, self.model.calibration = saved.interpolation, saved.calibration
        return {name: value for name, value in read_numbers(self.results).items() if name.startswith(OF_VALIDATION)}

    def load_best(self) -> None:
        """Load the weights of model/ on all ranks, ready to score; adapters are merged, as they are there."""
        merge(self.model.backbone)
        if self.ranks.is_first:
            self.model.load_state_dict(_open(self.model_directory, self.model).state_dict())
        self.ranks.copy_from_first(self.model)
        self.model.eval()

    def keep_last(self) -> None:
        """Save the last step as the best one, for a run without validation."""
        if self.ranks.is_first:
            self.model.write(self.model_directory)
            link_checkpoint(self.last, self.best)


def _head_names(weights: dict[str, Any]) -> set[str]:
    return {name for name in weights if name.startswith(("head.", "projection."))}


def own_overrides() -> list[str]:
    """Return the overrides of this command without secrets, except resume."""
    return [redacted(override) for override in command_overrides("task") if not override.startswith("resume=")]


def joined_overrides(started: list[str], more: list[str]) -> list[str]:
    """Return the overrides that a run was started and resumed with; those of the resuming command take precedence."""
    keys = {override.partition("=")[0] for override in more}
    return [override for override in started if override.partition("=")[0] not in keys] + more


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all, with a CRC-32 of each of its parts, which torch.save computes.

    Raises DiskError; the old one is then still there.
    """

    def write(aside: Path) -> None:
        with open(aside, "wb") as file:
            torch.save(state, file)

    size = _bytes_of(state)
    with writing(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write, size=size, aside=path.with_suffix(".new"))


def _bytes_of(content: Any) -> int:
    """Return the bytes of all tensors in nested dictionaries and lists: nearly those of the checkpoint."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return sum(map(_bytes_of, parts))


def link_checkpoint(path: Path, link: Path) -> None:
    """Give a checkpoint a second name, which keeps it when the first is overwritten: a hard link takes no disk space.

    It is a copy where the file system has no hard links. Raises DiskError; the old file of that name is still there
    then.
    """
    aside = link.with_suffix(".new")
    with writing(link):
        aside.unlink(missing_ok=True)
        try:
            os.link(path, aside)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            _say_copied(path.parent)
            write_whole(link, lambda copy: shutil.copyfile(path, copy), size=path.stat().st_size, aside=aside)
        else:
            os.replace(aside, link)
            aside.unlink(missing_ok=True)  # renaming one name of a file to another one of it does nothing


@functools.cache  # once for each directory
def _say_copied(directory: Path) -> None:
    log.info("%s: its file system has no hard links: previous.pt and best.pt are copies", directory)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; only tensors and plain values are unpickled.

    Raises InputError for a truncated or damaged file, with the newest checkpoint beside it that is not damaged.
    """
    content, damage = read_checkpoint(path)
    if damage is None:
        return content
    if path.name == "best.pt":
        raise InputError(
            f"{path}: is damaged ({damage}): remove it: the best weights are in model/, and the next better validation "
            "writes it anew"
        )
    beside = {
        other: read_checkpoint(other)[0] for other in map(path.with_name, NAMES) if other != path and other.is_file()
    }
    steps = {other: content["step"] for other, content in beside.items() if content}
    last_good = max(steps, key=lambda other: steps[other], default=None)
    if last_good is None:
        raise InputError(f"{path}: is damaged ({damage}), and no other checkpoint there can be read: train again")
    raise InputError(
        f"{path}: is damaged ({damage}): the last good one is {last_good.name}, of step {steps[last_good]}: copy it to "
        f"{path.name}, and resume again"
    )


def read_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a checkpoint to the CPU; return its contents and None, or an empty dictionary and what is wrong with it.

    It is a zip archive, whose checksums torch.load does not compare.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
        if part is not None:
            return {}, f"{part} differs from its checksum"
        return torch.load(path, map_location="cpu", weights_only=True), None
    except DAMAGE as error:
        return {}, " ".join(str(error).split())[:100] or type(error).__name__


def mend_best(state: dict[str, Any], last: Path, best: Path, model: CrossEncoder, directory: Path) -> None:
    """Make best.pt and the saved model match the best step, if the run was killed between writing one and the other.

    state: the contents of last.pt. model: of the same architecture; its weights are overwritten. Temporary files and
    directories are removed.
    """
    if not state["best_step"]:
        return  # no validation yet: both are written at the end of the run, or by the next improvement
    if state["best_step"] == state["step"] and not _is_same_step(best, last, state["step"]):
        link_checkpoint(last, best)
    new, old = (directory.with_name(f".{directory.name}.{part}") for part in ("new", "old"))
    best_state: dict[str, Any] = load_checkpoint(best) if best.is_file() else {"step": None}
    if best_state["step"] == state["best_step"]:
        validated = best_state["model"] | best_state.get("average", {})  # the average, if there is one
        restore_weights(model, best_state | {"model": validated}, best)
        if not _holds(directory, model, merged_weights(model)):
            model.write(directory)
    elif not directory.exists():
        complete = next((path for path in (new, old) if _holds(path, model)), None)
        if complete is None:
            raise InputError(f"{directory}: is missing, and {best} is not of step {state['best_step']}: train again")
        os.rename(complete, directory)
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    for path in map(last.with_name, NAMES):
        path.with_suffix(".new").unlink(missing_ok=True)


def _is_same_step(best: Path, last: Path, step: int) -> bool:
    """Whether best.pt is a name of last.pt, or a copy: a whole checkpoint of the step of last.pt."""
    return best.is_file() and (best.samefile(last) or read_checkpoint(best)[0].get("step") == step)


def _open(directory: Path, model: CrossEncoder) -> CrossEncoder:
    """Open a run's saved model; if it holds only adapters, with the backbone of the model in training."""
    return CrossEncoder.from_pretrained(str(directory), base=model.base["name"] if model.saves_adapters else None)


def _holds(directory: Path, model: CrossEncoder, weights: dict[str, torch.Tensor] | None = None) -> bool:
    """Whether a directory holds a complete model and, if weights are given, whether it has these weights.

    A pooler that no score uses is left out: the saved one carries the head for other libraries.
    """
    try:
        saved = _open(directory, model).state_dict()
    except InputError:
        return False
    used = {name: weight for name, weight in (weights or {}).items() if not name.startswith("backbone.pooler.")}
    return all(torch.equal(saved[name], weight.cpu()) for name, weight in used.items())


def random_state() -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random generators, which dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def seed_of_rank(seed: int, rank: int) -> int:
    """Return the seed of a rank's dropout, different for each rank; the first rank uses the run's seed."""
    return seed + 1_000_003 * rank


def restore_random_state(states: list[dict[str, torch.Tensor]], rank: int, size: int, seed: int) -> None:
    """Restore the random generators to the state that this rank saved.

    states: of all ranks of the saved run. If the number of ranks has changed, each rank seeds its generators afresh.
    """
    if len(states) != size:
        torch.manual_seed(seed_of_rank(seed, rank))
        return
    state = states[rank]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
