"""The cross-encoder: what it computes, what it saves, and that sentence-transformers opens it with the same scores."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from distill import CrossEncoder
from distill.errors import InputError
from distill.models.parts import evaluating
from distill.models.starting import _set_dropout
from tests.helpers.backbones import FAMILIES, make_backbone

QUERY = "a bee finds its home"
PASSAGES = ["trains follow rails of iron", "the ant and the bee", "its home by the sun", "rain"]


def make_model(directory, family="bert", **options) -> CrossEncoder:
    options = {"query_length": 8, "passage_length": 16} | options
    model = CrossEncoder.from_backbone(str(make_backbone(directory, family)), **options).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head.bias)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_score_is_a_linear_layer_on_the_pooled_state(tmp_path, family, pooling):
    model = make_model(tmp_path, family, pooling=pooling)
    backbone, tokenizer = AutoModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    indices, scores = model.rank(QUERY, PASSAGES)
    assert scores == sorted(scores, reverse=True) and sorted(indices) == [0, 1, 2, 3]
    for index, score in zip(indices, scores, strict=True):
        inputs = tokenizer(QUERY, PASSAGES[index], return_tensors="pt")
        if family in ("roberta", "modernbert"):
            inputs.pop("token_type_ids", None)
        states = backbone(**inputs).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(dim=0)
        assert score == pytest.approx((pooled @ model.head.weight[0] + model.head.bias).item(), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gives_the_same_scores(tmp_path, family):
    model = make_model(tmp_path / "backbone", family, pooling="mean", passage_length=12)
    model.save_pretrained(tmp_path / "model")
    loaded = CrossEncoder.from_pretrained(str(tmp_path / "model"))
    assert (loaded.pooling, loaded.query_length, loaded.passage_length) == ("mean", 8, 12)
    assert loaded.rank(QUERY, PASSAGES) == model.rank(QUERY, PASSAGES)
    assert not loaded.training


@pytest.mark.parametrize("place", ["outputs", "outputs/notes.txt"])
def test_saving_takes_no_place_of_other_files(tmp_path, place):
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    (tmp_path / "outputs" / "notes.txt").write_text("mine")
    model = make_model(tmp_path / "backbone")
    with pytest.raises(InputError, match=f"{place}: holds other files than a model's.*: save it to a new or an empty"):
        model.save_pretrained(tmp_path / place)
    assert (tmp_path / "outputs" / "notes.txt").read_text() == "mine" and (tmp_path / "outputs" / "run").is_dir()
    for _ in range(2):  # first into an empty directory, then over a model
        model.save_pretrained(tmp_path / "outputs" / "run")
    (tmp_path / "outputs" / "run" / "data").mkdir()
    (tmp_path / "outputs" / "run" / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="than a model's, such as data/thesis.txt: save it to a new or an empty"):
        model.save_pretrained(tmp_path / "outputs" / "run")
    assert (tmp_path / "outputs" / "run" / "data" / "thesis.txt").read_text() == "mine"


FOREIGN = ["weights.safetensors", "my_config.json", "LICENSES/a.txt"]


@pytest.mark.parametrize(
    ("of_a_model", "name"),
    [*((True, name) for name in FOREIGN), *((False, name) for name in [*FOREIGN, "README.md", "LICENSE"])],
)
def test_files_that_only_look_like_those_of_a_model_are_not_replaced(tmp_path, of_a_model, name):
    model, directory = make_model(tmp_path / "backbone"), tmp_path / "here"
    if of_a_model:
        model.save_pretrained(directory)
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text("mine")
    with pytest.raises(InputError, match=f"here: holds other files than a model's, such as {name}: save it to a new"):
        model.save_pretrained(directory)
    assert (directory / name).read_text() == "mine"


def test_a_link_in_a_models_directory_is_not_removed(tmp_path):
    model = make_model(tmp_path / "backbone")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "data").symlink_to(tmp_path)
    with pytest.raises(InputError, match="other files than a model's, such as data: save it to a new"):
        model.save_pretrained(tmp_path / "model")


def test_a_model_that_is_saved_where_it_was_opened_keeps_its_card_and_its_licence(tmp_path):
    model, directory = make_model(tmp_path / "backbone"), tmp_path / "model"
    model.save_pretrained(directory)
    own = {"README.md": "my card", "LICENSE": "my terms", "LICENSE-weights.txt": "others"}
    for name, text in own.items():
        (directory / name).write_text(text)
    files = sorted(path.name for path in directory.rglob("*"))
    CrossEncoder.from_pretrained(str(directory)).save_pretrained(directory)
    assert {name: (directory / name).read_text() for name in own} == own
    assert sorted(path.name for path in directory.rglob("*")) == files
    assert CrossEncoder.from_pretrained(str(directory)).rank(QUERY, PASSAGES) == model.rank(QUERY, PASSAGES)
    model.write(directory)  # as a training does, which writes the card at its end
    assert not (directory / "README.md").exists()


def test_the_packaged_model_is_saved_over_its_own_copy(tmp_path):
    from distill.models.locate import locate_model

    shutil.copytree(locate_model("googleq-minilm-3"), tmp_path / "copy")
    model = CrossEncoder.from_pretrained(str(tmp_path / "copy"))
    model.save_pretrained(tmp_path / "copy")
    for name in ("README.md", "LICENSE"):
        assert (tmp_path / "copy" / name).read_text() == Path(locate_model("googleq-minilm-3"), name).read_text()


def test_a_model_is_saved_through_a_link_to_its_directory(tmp_path):
    model = make_model(tmp_path / "backbone")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        model.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "link", "real"]


def test_a_model_is_saved_to_the_current_directory(tmp_path, monkeypatch):
    model = make_model(tmp_path / "backbone")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model.save_pretrained(".")
    monkeypatch.chdir(tmp_path)
    assert CrossEncoder.from_pretrained("here").rank(QUERY, PASSAGES) == model.rank(QUERY, PASSAGES)


def test_saving_again_replaces_the_directory_and_leaves_nothing_beside_it(tmp_path):
    model = make_model(tmp_path / "backbone")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").touch()
    torch.nn.init.zeros_(model.head.weight)
    model.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "model"]
    assert not (tmp_path / "model" / "vocab.txt").exists()
    assert CrossEncoder.from_pretrained(str(tmp_path / "model")).head.weight.abs().sum() == 0
    assert not list((tmp_path / "model").rglob("*.bin"))


def test_a_second_stage_starts_from_the_first_ones_linear_layer(tmp_path):
    model = make_model(tmp_path / "backbone")
    model.save_pretrained(tmp_path / "model")
    second = CrossEncoder.from_backbone(str(tmp_path / "model"), query_length=8, passage_length=30)
    assert torch.equal(second.head.weight, model.head.weight) and torch.equal(second.head.bias, model.head.bias)
    fresh = CrossEncoder.from_backbone(str(tmp_path / "model"), query_length=8, passage_length=16, weights="random")
    assert not torch.equal(fresh.head.weight, model.head.weight)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sentence_transformers_opens_a_saved_model_with_the_same_scores(tmp_path, family, pooling):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    model = make_model(tmp_path / "backbone", family, pooling=pooling)
    model.save_pretrained(tmp_path / "model")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "model"), device="cpu", local_files_only=True)
    indices, scores = model.rank(QUERY, PASSAGES)
    torch.testing.assert_close(
        torch.from_numpy(theirs.predict([(QUERY, PASSAGES[index]) for index in indices])),
        torch.tensor(scores),
        rtol=1e-5,
        atol=1e-5,
    )
    assert [row["corpus_id"] for row in theirs.rank(QUERY, PASSAGES)] == indices


def test_ranking_nothing_gives_nothing(tmp_path):
    assert make_model(tmp_path).rank(QUERY, []) == ([], [])


@pytest.mark.parametrize("kind", [tuple, np.array, lambda texts: np.array(texts, object), iter, pd.Series])
def test_passages_may_stand_in_any_sequence(tmp_path, kind):
    model = make_model(tmp_path)
    assert model.rank(QUERY, kind(PASSAGES)) == model.rank(QUERY, PASSAGES)
    assert model.rank(QUERY, kind([])) == ([], [])


@pytest.mark.parametrize(
    ("query", "passages", "message"),
    [
        (QUERY, "a bee", r"^passages is a str: expected a list of texts, as in rank\(query, \[passage\]\)$"),
        (QUERY, b"a bee", "^passages is a bytes: expected a list of texts"),
        (QUERY, {"d1": "a bee"}, "^passages is a dict: expected a list of texts"),
        (QUERY, None, "^passages is a NoneType: expected a list of texts"),
        (QUERY, pd.DataFrame({"text": ["a bee"]}), "^passages is a DataFrame: expected a list of texts"),
        (QUERY, ["a bee", None], r"^passage 1 is a NoneType \(None\): expected a text$"),
        (QUERY, pd.Series(["a bee", float("nan")]), r"^passage 1 is a float \(nan\): expected a text$"),
        (QUERY, np.array([["a", "bee"]]), "^passage 0 is a ndarray"),
        (None, ["a bee"], r"^query is a NoneType \(None\): expected a text$"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(tmp_path, query, passages, message):
    with pytest.raises(TypeError, match=message):
        make_model(tmp_path).rank(query, passages)


def test_an_empty_text_has_a_score_like_any_other(tmp_path):
    model = make_model(tmp_path)
    together = dict(zip(*model.rank(QUERY, ["", *PASSAGES, ""]), strict=True))
    assert together[0] == together[len(PASSAGES) + 1] == pytest.approx(model.rank(QUERY, [""])[1][0], abs=1e-6)
    assert len(together) == len(PASSAGES) + 2
    assert all(np.isfinite(model.rank("", PASSAGES)[1]))


def test_a_score_that_is_no_finite_number_is_refused_and_the_mode_comes_back(tmp_path):
    model = make_model(tmp_path).train()
    with torch.no_grad():
        model.head.bias.fill_(float("inf"))
    with pytest.raises(InputError, match="^passage 0 has the score inf, which is not finite: the model's weights"):
        model.rank(QUERY, PASSAGES)
    assert model.training
    model.score = None  # fails inside
    with pytest.raises(TypeError):
        model.rank(QUERY, PASSAGES)
    assert model.training and not model.eval().training


def test_threads_that_score_at_once_with_a_model_in_training_mode_see_no_dropout(tmp_path):
    model = make_model(tmp_path, dropout=0.5)
    expected = model.rank(QUERY, PASSAGES)
    model.train()
    model.projection.eval()  # a frozen part stays as it is
    inside, go_on = threading.Event(), threading.Event()
    encode = model.encode

    def waiting(*texts):
        inside.set()
        assert go_on.wait(60)
        return encode(*texts)

    model.encode = waiting
    with ThreadPoolExecutor(1) as pool:
        with evaluating(model):
            second = pool.submit(model.rank, QUERY, PASSAGES)
            assert inside.wait(60)
        still_evaluating = not any(module.training for module in model.modules())
        go_on.set()
        assert second.result() == expected and still_evaluating
    assert model.training and [module for module in model.modules() if not module.training] == [model.projection]


def test_parts_of_a_model_have_users_of_their_own(tmp_path):
    model = make_model(tmp_path).train()
    with evaluating(model.backbone):
        assert model.training and not model.backbone.training
        with evaluating(model):
            assert not model.training
        assert model.training and not any(module.training for module in model.backbone.modules())
    assert all(module.training for module in model.modules())


def test_half_precision_weights_are_read_as_float32(tmp_path):
    make_backbone(tmp_path)
    AutoModel.from_pretrained(tmp_path).half().save_pretrained(tmp_path)
    model = CrossEncoder.from_backbone(str(tmp_path), query_length=8, passage_length=16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_autocast_leaves_scores_in_float32(tmp_path):
    model = make_model(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, scores = model.rank(QUERY, PASSAGES)
    _, exact = model.rank(QUERY, PASSAGES)
    assert scores == pytest.approx(exact, rel=0.1, abs=0.1) and scores != exact
    assert model.rank(QUERY, PASSAGES, precision=torch.bfloat16)[1] == scores


def test_a_precision_is_given_by_its_name_or_as_a_dtype(tmp_path):
    model = make_model(tmp_path)
    half = model.rank(QUERY, PASSAGES, precision=torch.bfloat16)
    assert model.rank(QUERY, PASSAGES, precision="bfloat16") == half != model.rank(QUERY, PASSAGES)
    pairs = [(QUERY, passage) for passage in PASSAGES]
    assert (
        model.predict(pairs, precision="bfloat16").tolist() == model.predict(pairs, precision=torch.bfloat16).tolist()
    )
    for name in ("auto", "float32", torch.float32):
        assert model.rank(QUERY, PASSAGES, precision=name) == model.rank(QUERY, PASSAGES)


@pytest.mark.parametrize("precision", [torch.float64, torch.int8, "float64", "half", 16, True])
def test_another_precision_is_refused_instead_of_scoring_in_float32(tmp_path, precision):
    model = make_model(tmp_path)
    shown = str(precision).removeprefix("torch.")
    for passages in (PASSAGES, []):
        with pytest.raises(InputError, match=f"^precision={shown}: must be one of auto, float32, bfloat16, float16$"):
            model.rank(QUERY, passages, precision=precision)


def test_an_unknown_layout_is_refused(tmp_path, backbone):
    make_model(tmp_path / "backbone").save_pretrained(tmp_path / "model")
    for load in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match="^layout=foo is unknown: choose one of auto, packed, padded$"):
            load(str(tmp_path / "model"), layout="foo")


@pytest.mark.parametrize("keep", [1.5, True, "2", 0, -1])
def test_passages_that_are_kept_are_counted_in_whole_numbers(backbone, keep):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16, exit_layer=1).eval()
    assert model.rank(QUERY, PASSAGES, exit_keep=np.int64(2)) == model.rank(QUERY, PASSAGES, exit_keep=2)
    with pytest.raises(InputError, match=f"^exit_keep={keep}: must be at least 1, and a whole number$"):
        model.rank(QUERY, PASSAGES, exit_keep=keep)


def test_dropout_replaces_every_dropout_of_the_backbone(backbone):
    model = CrossEncoder.from_backbone(str(backbone), query_length=8, passage_length=16, dropout=0.0)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


def test_dropout_has_other_names_in_a_gpt2_and_is_refused_where_there_is_none():
    config = AutoConfig.for_model("gpt2")
    _set_dropout(config, 0.37, "gpt2")
    assert {config.resid_pdrop, config.embd_pdrop, config.attn_pdrop} == {0.37}
    config = SimpleNamespace(model_type="fnet", to_dict=dict)
    _set_dropout(config, 0.0, "org/name")
    with pytest.raises(InputError, match="model.dropout=0.37: a fnet such as org/name has none: set it to null"):
        _set_dropout(config, 0.37, "org/name")


def test_pairs_beyond_the_positions_are_refused(backbone):
    with pytest.raises(
        InputError, match="make pairs of 83 tokens, .*, but this backbone reads 64: lower model.passage_length to 41"
    ):
        CrossEncoder.from_backbone(str(backbone), query_length=20, passage_length=60)


def test_roberta_counts_positions_from_its_padding_id(tmp_path):
    with pytest.raises(InputError, match="but this backbone reads 63"):
        make_model(tmp_path, "roberta", query_length=20, passage_length=40)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("tokenizer.json", "has no tokenizer"),
        ("config.json", "has no config.json"),
        ("model.safetensors", "cannot be loaded"),
    ],
)
def test_an_incomplete_backbone_is_answered_in_one_line(tmp_path, missing, message):
    (make_backbone(tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=message) as caught:
        CrossEncoder.from_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path):
    make_backbone(tmp_path)
    torch.save(AutoModel.from_pretrained(tmp_path).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        CrossEncoder.from_backbone(str(tmp_path))


@pytest.mark.parametrize("change", [lambda names: names[3:], lambda names: names[:0]], ids=["some", "all"])
def test_a_backbone_that_lacks_weights_is_refused_instead_of_drawn(tmp_path, change):
    make_backbone(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = change(sorted(weights))
    named_otherwise = {f"other.{name}": tensor for name, tensor in weights.items()}
    save_file({name: weights[name] for name in kept} or named_otherwise, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lacks \d+ of its weights .*: the checkpoint is incomplete"):
        CrossEncoder.from_backbone(str(tmp_path))


def test_a_directory_that_is_no_cross_encoder_is_refused(backbone):
    with pytest.raises(InputError, match="is not a saved cross-encoder .BertModel without a head."):
        CrossEncoder.from_pretrained(str(backbone))


def test_an_unknown_name_is_answered_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for open_model in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match="^no/such-model: ") as caught:
            open_model("no/such-model")
        assert "\n" not in str(caught.value)
