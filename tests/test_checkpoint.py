"""Checkpoints: a run that is killed while it writes them resumes as if it had not been."""

import errno
import os
import shutil

import pytest
import torch

from distill.errors import DiskError, InputError
from distill.models.cross_encoder import CrossEncoder
from distill.training.averaging import Soup
from distill.training.checkpoint import joined_overrides, link_checkpoint, load_checkpoint, save_checkpoint
from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.commands import run_patched
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.training import run_train
from train import train


def test_the_model_card_names_the_overrides_that_a_run_was_started_and_resumed_with():
    assert joined_overrides(["loss=adrmse", "train.max_steps=80"], []) == ["loss=adrmse", "train.max_steps=80"]
    more = ["train.max_steps=160", "train.device=cpu"]
    assert joined_overrides(["loss=adrmse", "train.max_steps=80"], more) == ["loss=adrmse", *more]


def best_files(directory) -> tuple:
    checkpoint = load_checkpoint(directory / "checkpoints" / "best.pt")
    return checkpoint["step"], (directory / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "killed_at", ["best.pt", "best.new", "checkpoint", "model", "model, and best.pt is another's", "copied"]
)
def test_a_run_killed_between_two_renames_is_mended_when_it_is_resumed(file_overrides, tmp_path, killed_at):
    directory = tmp_path / "run"
    overrides = [*file_overrides, "train.max_steps=4", "validation.measures=[nDCG@10]", "train.patience=null"]
    train(compose_config("train", *overrides), directory)
    last, best = (directory / "checkpoints" / f"{name}.pt" for name in ("last", "best"))
    expected, model = best_files(directory), directory / "model"
    state = load_checkpoint(last)
    if expected[0] != state["step"]:  # make the last step the best: that is where a kill can come between
        state["best_step"] = state["step"]
        torch.save(state, last)
        best.unlink()
        os.link(last, best)
        _save_model(state, model)
        expected = best_files(directory)
    if killed_at in ("best.pt", "best.new", "copied"):  # last.pt was renamed, best.pt not
        best.unlink()
        if killed_at == "best.new":
            os.link(last, best.with_suffix(".new"))
        if killed_at == "copied":  # as by cp -r: the same content, but no link
            best.write_bytes(last.read_bytes())
    elif killed_at == "checkpoint":  # the model of a later step was saved, its checkpoint was not
        weights = {name: value + 1 for name, value in state["model"].items()}
        _save_model(state | {"model": weights}, model)
    elif killed_at == "model":
        model.rename(directory / ".model.old")
    else:
        best.unlink()
        torch.save(state | {"step": 1}, best)
        state["best_step"] = 3
        torch.save(state, last)
        model.rename(directory / ".model.new")
        expected = (1, expected[1])
    train(resumed(directory), directory)
    assert best_files(directory) == expected
    names = {path.name for path in [*directory.iterdir(), *(directory / "checkpoints").iterdir()]}
    assert not names & {".model.new", ".model.old", "best.new", "last.new"}


def _save_model(state: dict, directory) -> None:

    model = CrossEncoder.from_pretrained(str(directory))
    model.load_state_dict(state["model"])
    model.save_pretrained(directory)


KILLED_AT = {
    "best.pt": "import distill.training.checkpoint\nlink = distill.training.checkpoint.link_checkpoint\n"
    "def killed(last, best):\n    os.kill(os.getpid(), 9) if best.exists() else link(last, best)\n"
    "distill.training.checkpoint.link_checkpoint = killed",
    "model": "rename = os.rename\n"
    "def killed(old, new):\n    rename(old, new)\n    str(new).endswith('.model.old') and os.kill(os.getpid(), 9)\n"
    "os.rename = killed",
}


@pytest.mark.parametrize("place", KILLED_AT)
def test_a_run_killed_in_its_second_improvement_ends_as_one_that_was_not(file_overrides, tmp_path, place):
    overrides = [*file_overrides, "optimizer.lr=0.01", "train.max_steps=8"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(compose_config("train", *overrides), straight)
    done = run_patched(tmp_path, KILLED_AT[place], "train.py", *overrides, f"hydra.run.dir={killed}")
    assert done.returncode == -9, done.stderr
    assert (killed / "model").is_dir() == (place == "best.pt") and (killed / "checkpoints" / "best.pt").is_file()
    train(resumed(killed), killed)
    assert best_files(killed) == best_files(straight)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small checkpoint, as torch.save writes it."""
    path = tmp_path_factory.mktemp("checkpoints") / "last.pt"
    torch.manual_seed(0)
    save_checkpoint(path, {"step": 3, "model": {"a": torch.randn(50), "b": torch.randn(7, 3)}, "sums": torch.ones(2)})
    return path


def test_a_flipped_bit_in_a_checkpoint_is_noticed_or_changes_nothing(checkpoint, tmp_path):
    whole, path = checkpoint.read_bytes(), tmp_path / "last.pt"
    expected, noticed = load_checkpoint(checkpoint), 0
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            content = load_checkpoint(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: is damaged (")
            noticed += 1
            continue
        assert content["step"] == 3 and all(torch.equal(content["model"][key], expected["model"][key]) for key in "ab")
    assert noticed > len(whole) / 3 / 4  # the rest is padding, and fields that nobody reads


def test_a_part_that_is_said_to_be_compressed_is_damage(checkpoint, tmp_path):
    whole = bytearray(checkpoint.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 10] ^= 8  # its method in the archive's list: 0, stored, becomes 8, deflated
    (tmp_path / "last.pt").write_bytes(whole)
    with pytest.raises(InputError, match=r"last\.pt: is damaged \("):
        load_checkpoint(tmp_path / "last.pt")


def test_a_damaged_checkpoint_names_the_newest_good_one(checkpoint, tmp_path):
    last, previous, best = (tmp_path / f"{name}.pt" for name in ("last", "previous", "best"))
    last.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"last\.pt: is damaged \(.*\), and no other checkpoint there can be read"):
        load_checkpoint(last)
    save_checkpoint(best, {"step": 1})
    save_checkpoint(previous, {"step": 2})
    remedy = "the last good one is {}, of step {}: copy it to last.pt, and resume again"
    with pytest.raises(InputError, match=remedy.format("previous.pt", 2)):
        load_checkpoint(last)
    previous.write_bytes(b"")
    with pytest.raises(InputError, match=remedy.format("best.pt", 1)):
        load_checkpoint(last)


@pytest.mark.parametrize("keep", [True, False])
def test_the_previous_checkpoint_is_kept_unless_told_otherwise(file_overrides, tmp_path, keep):
    overrides = [*file_overrides, "train.max_steps=3", "train.save_every=1", f"train.keep_previous={keep}"]
    train(compose_config("train", *overrides), tmp_path / "run")
    files = {path.name: path for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert files.keys() - {"best.pt"} == ({"last.pt", "previous.pt"} if keep else {"last.pt"})
    if keep:
        assert load_checkpoint(files["last.pt"])["step"] == 3 and load_checkpoint(files["previous.pt"])["step"] == 2
        files["last.pt"].write_bytes(files["previous.pt"].read_bytes())  # as the message says
        (tmp_path / "run" / "results.json").unlink()
        train(resumed(tmp_path / "run"), tmp_path / "run")
        assert load_checkpoint(files["last.pt"])["step"] == 3


def without_links(monkeypatch, number: int) -> None:
    """Let the file system have no hard links."""

    def link(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV])
def test_where_there_are_no_hard_links_a_checkpoint_is_copied(checkpoint, tmp_path, monkeypatch, caplog, number):
    caplog.set_level("INFO")
    without_links(monkeypatch, number)
    last, best = tmp_path / "last.pt", tmp_path / "best.pt"
    shutil.copyfile(checkpoint, last)
    for _ in range(2):
        best.write_bytes(b"older")
        link_checkpoint(last, best)
        assert best.read_bytes() == last.read_bytes() and not best.samefile(last)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    said = f"{tmp_path}: its file system has no hard links: previous.pt and best.pt are copies"
    assert caplog.messages == [said]


def test_any_other_answer_to_a_link_ends_the_run(checkpoint, tmp_path, monkeypatch):
    without_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(DiskError, match=r"cannot be written \(No space left on device\)"):
        link_checkpoint(checkpoint, tmp_path / "best.pt")
    assert not [*tmp_path.iterdir()]


def test_a_run_without_hard_links_ends_as_one_with_them_and_its_copies_are_recognised(
    file_overrides, tmp_path, monkeypatch
):
    overrides = [*file_overrides, "optimizer.lr=0.01", "train.max_steps=4", "train.save_every=1"]
    linked, copied = tmp_path / "linked", tmp_path / "copied"
    train(compose_config("train", *overrides), linked)
    without_links(monkeypatch, errno.EPERM)
    train(compose_config("train", *overrides), copied)
    assert best_files(copied) == best_files(linked)
    last, previous, best = (copied / "checkpoints" / f"{name}.pt" for name in ("last", "previous", "best"))
    assert load_checkpoint(previous)["step"] == 3
    if load_checkpoint(best)["step"] != 4:  # make the last step the best
        torch.save(load_checkpoint(last) | {"best_step": 4}, last)
        shutil.copyfile(last, best)
    for is_whole in (True, False):
        if not is_whole:
            best.write_bytes(best.read_bytes()[:-100])
        before = best.stat().st_ino
        train(resumed(copied), copied)
        assert load_checkpoint(best)["step"] == 4 and (best.stat().st_ino == before) == is_whole


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"words": [*WORDS, "comet"]}, r"embeddings.word_embeddings.weight is \[\d+, 16\], and \[\d+, 16\] in "),
        ({"num_layers": 1}, r"encoder.layer.1.*is missing, and \[.*\] in .*last.pt: give the backbone that the run"),
        ({"words": WORDS[::-1]}, "its tokenizer has another vocabulary than the run's: give the backbone that the run"),
    ],
)
def test_a_run_resumes_with_no_other_backbone(file_overrides, tmp_path, other, message):
    run_train(tmp_path / "run", *file_overrides)
    name = make_backbone(tmp_path / "other", **other)
    with pytest.raises(InputError, match=f"backbone.name={name}: .*{message}"):
        run_train(tmp_path / "run", *file_overrides, f"backbone.name={name}", f"resume={tmp_path / 'run'}")


def test_a_resume_that_is_refused_leaves_the_soup_as_it_was(file_overrides, tmp_path, monkeypatch, collection):
    monkeypatch.setattr(Soup, "keeps", lambda *_: True)
    run = tmp_path / "run"
    rules = ["train.soup=2", "train.validate_every=1", "loss=lce", "data.negatives.margin=0"]
    run_train(run, *file_overrides, *rules)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    queries = tmp_path / "shorter.tsv"
    queries.write_text("".join(collection["queries"].read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(InputError, match="lists and passages to train on, but .* before: give the files that"):
        run_train(run, *file_overrides, *rules, f"data.queries={queries}", f"resume={run}")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files


def changed(name: str, text: str) -> str:
    """The file's content with every text at another id, or with the teacher's order reversed."""
    lines = [line.split() for line in text.splitlines()]
    if name == "teacher":
        return "".join(" ".join([*line[:4], f"-{line[4]}", line[5]]) + "\n" for line in lines)
    texts = [line[1:] for line in lines]
    moved = zip(lines, [*texts[1:], texts[0]], strict=True)
    return "".join(f"{own[0]}\t{' '.join(words)}\n" for own, words in moved)


@pytest.mark.parametrize(("name", "key"), [("passages", "data.passages"), ("teacher", "teacher.path")])
def test_a_run_resumes_with_no_other_training_data_of_the_same_size(file_overrides, tmp_path, collection, name, key):
    run = tmp_path / "run"
    run_train(run, *file_overrides)
    (tmp_path / "other").mkdir()
    moved = tmp_path / "other" / collection[name].name
    moved.write_text(changed(name, collection[name].read_text()))
    with pytest.raises(InputError, match="lists are as many as before, but their ids, texts or targets differ: give"):
        train(resumed(run, f"{key}={moved}"), run)
    shutil.copyfile(collection[name], moved)  # the same file at another place
    train(resumed(run, f"{key}={moved}", "train.num_workers=1"), run)


def test_a_checkpoint_of_an_earlier_version_is_resumed_without_checksums_of_its_data(
    file_overrides, tmp_path, collection
):
    run = tmp_path / "run"
    run_train(run, *file_overrides)
    last = run / "checkpoints" / "last.pt"
    saved = load_checkpoint(last)
    del saved["checksums"], saved["of_validation"]
    save_checkpoint(last, saved)
    collection["passages"].write_text(changed("passages", collection["passages"].read_text()))
    train(resumed(run), run)


def of_another_validation(name: str, text: str) -> str:
    """The file's content with other grades, one passage less in a list, or every text at another id."""
    if name == "qrels":
        return text.replace(" 2\n", " 0\n")
    return text.partition("\n")[2] if name == "run" else changed(name, text)


@pytest.mark.parametrize("name", ["qrels", "run", "passages", "queries"])
def test_a_run_resumes_with_no_other_validation(file_overrides, tmp_path, collection, name):
    run, before = tmp_path / "run", collection["first_stage" if name == "run" else name]
    run_train(run, *file_overrides)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    moved = tmp_path / "moved" / before.name
    moved.parent.mkdir()
    moved.write_text(of_another_validation(name, before.read_text()))
    message = (
        r"differs from the run's \(validation has other judgments, lists or texts\), so that its values could not be c"
    )
    for more in ([], ["train.max_steps=8"]):
        with pytest.raises(InputError, match=message):
            train(resumed(run, f"validation.{name}={moved}", *more), run)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    lines = before.read_text().splitlines(keepends=True)
    if name != "run":  # whose order breaks ties
        lines.reverse()
    moved.write_text("".join(lines))
    train(resumed(run, f"validation.{name}={moved}", "train.max_steps=8"), run)


def test_a_suite_that_lacks_a_task_is_measured_again_and_not_trained_further(
    file_overrides, tmp_path, collection, caplog
):
    run, gone = tmp_path / "run", tmp_path / "gone.run"
    shutil.copyfile(collection["teacher"], gone)
    suite = [
        f"+validation.tasks={{a:{{run:{collection['first_stage']}}},b:{{run:{gone}}}}}",
        "calibration.method=platt",
    ]
    results = run_train(run, *file_overrides, *suite, "task.interpolate=auto")
    chosen = (run / "model" / "distill.json").read_bytes()
    gone.unlink()
    again = train(resumed(run), run)
    assert (run / "model" / "distill.json").read_bytes() == chosen
    assert "the model stays as the validation has chosen it: b cannot be ranked again" in caplog.messages
    differ = {"train/seconds", "memory/train/peak_bytes"}
    assert {k: v for k, v in again.items() if k not in differ} == {k: v for k, v in results.items() if k not in differ}
    with pytest.raises(InputError, match=r"differs from the run's \(b is not available now\), so that its values"):
        train(resumed(run, "train.max_steps=8"), run)
    new = tmp_path / "new"
    run_train(new, *file_overrides, *suite)
    shutil.copyfile(collection["teacher"], gone)
    with pytest.raises(InputError, match=r"differs from the run's \(b was not available then\)"):
        train(resumed(new), new)
