"""Decoders that are trained, yes-or-no models and classifiers: saved in their form, equal in their libraries."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from distill.data.lists import read_lists
from distill.data.pairs import PairTemplate, cut
from distill.errors import InputError
from distill.export.formats import export
from distill.export.use import use
from distill.losses import LOSSES, ON_RANKS
from distill.losses.objective import Objective
from distill.models import packed
from distill.models.cross_encoder import CrossEncoder
from distill.models.pair_reading import read_texts
from distill.models.prompts import PROMPTS
from distill.models.starting import reader_of
from distill.training.backward import backward
from distill.training.flops import FlopCounter
from tests.helpers.backbones import make_backbone
from tests.helpers.batches import LENGTHS, SIZES, ragged_batch, random_batch
from tests.helpers.configuration import compose_config
from tests.helpers.language_models import CHAT, PAIRS, byte_level, sentence_piece, write
from tests.helpers.training import run_train

PRESET = "backbone=qwen3-reranker-0.6b"
TIED = {"tie_word_embeddings": True}
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}


ROLES = (  # as in Qwen3's chat template: other roles than these are left out
    "{% for message in messages %}{% if message.role in ('system', 'user', 'assistant') %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
)


def answers(directory: Path) -> Path:
    """A look-alike of Qwen3-Reranker: its prompt, known by its name; tied embeddings; keys shared by two heads."""
    tokenizer, path = byte_level(), directory / compose_config("train", PRESET).backbone.name.rpartition("/")[2]
    tokenizer.chat_template = ROLES
    write(path, AutoModelForCausalLM, tokenizer, "qwen3", **GROUPED, **TIED)
    return path


def modules(directory: Path) -> Path:
    """A Llama of sentence-transformers: its chat template, LogitScore, a sigmoid; an output matrix by itself."""
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    write(directory / "lm", AutoModelForCausalLM, tokenizer, "llama", tie_word_embeddings=False)
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"},
            {"idx": 1, "name": "1", "path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.LogitScore"},
        ],
        "1_LogitScore/config.json": {"true_token_id": yes, "false_token_id": no},
        "config_sentence_transformers.json": {"prompts": {"web": "Find it."}, "default_prompt_name": "web"},
    }
    (directory / "lm" / "1_LogitScore").mkdir()
    for name, content in files.items():
        (directory / "lm" / name).write_text(json.dumps(content))
    return directory / "lm"


def classifier(directory: Path, family: str = "qwen3", num_labels: int = 1, **changes) -> Path:
    write(directory / "lm", AutoModelForSequenceClassification, byte_level(), family, num_labels=num_labels, **changes)
    return directory / "lm"


def two_labels(directory: Path) -> Path:
    """A Llama with two labels, whose chat template has the roles of a pair."""
    path = classifier(directory, "llama", 2)
    (path / "chat_template.jinja").write_text(CHAT)
    return path


def plain(directory: Path) -> Path:
    write(directory / "lm", AutoModelForCausalLM, byte_level(), "qwen3", **TIED)
    return directory / "lm"


FORMS = {"answers": answers, "modules": modules, "classifier": classifier, "two-labels": two_labels, "plain": plain}


PROMPTED = ("answers", "modules", "two-labels")
RESUMED = ("answers", "modules", "classifier")  # the others have the head of a classifier, too


def of_sentence_transformers(directory: Path) -> np.ndarray:
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    return sentence_transformers.CrossEncoder(str(directory), device="cpu").predict(PAIRS)


def of_transformers(directory: Path, prompt: str | None) -> list[float]:
    """The scores that transformers gives, one pair at a time, in the prompt or as a pair."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    causal = config["architectures"][0].endswith("CausalLM")
    model = (AutoModelForCausalLM if causal else AutoModelForSequenceClassification).from_pretrained(directory).eval()
    assert causal or model.config.num_labels == 1
    scores = []
    for pair in PAIRS:
        texts = pair if prompt is None else [prompt.format(query=pair[0], passage=pair[1])]
        with torch.no_grad():
            logits = model(**tokenizer(*texts, return_tensors="pt")).logits[0]
        if causal:
            yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
            logits = logits[-1:, yes] - logits[-1:, no]
        scores.append(float(logits[0]))
    return scores


@pytest.mark.parametrize("form", FORMS)
def test_a_decoder_is_trained_saved_in_its_form_and_resumed_bit_for_bit(tmp_path, file_overrides, form):
    backbone = FORMS[form](tmp_path)
    overrides = [
        *(one for one in file_overrides if not one.startswith(("train.max_steps", "train.validate_every"))),
        *(f"backbone.name={backbone}", "train.validate_every=2", "optimizer.lr=1e-3", "task.run=null"),
    ]
    whole = run_train(tmp_path / "whole", *overrides, "train.max_steps=4")
    state = torch.load(tmp_path / "whole" / "checkpoints" / "last.pt")["model"]
    if form in RESUMED:
        run_train(tmp_path / "part", *overrides, "train.max_steps=2")
        resumed = run_train(tmp_path / "part", *overrides, "train.max_steps=4", f"resume={tmp_path / 'part'}")
        for results in (resumed, whole):
            del results["train/seconds"], results["memory/train/peak_bytes"]
        assert resumed == whole
        same = torch.load(tmp_path / "part" / "checkpoints" / "last.pt")["model"]
        assert state.keys() == same.keys() and all(torch.equal(state[name], same[name]) for name in state)

    saved, started = tmp_path / "whole" / "model", CrossEncoder.from_backbone(str(backbone))
    if form in ("answers", "classifier"):  # LogitScore's is compared in tests/test_generative.py
        theirs = of_transformers(backbone, PROMPTS["qwen3-reranker"].text if form == "answers" else None)
        np.testing.assert_allclose(started.eval().predict(PAIRS), theirs, rtol=0, atol=1e-4)
    assert not torch.equal(state["head.weight"], started.head.weight) and "head.bias" not in state
    model = CrossEncoder.from_pretrained(str(saved))
    assert (model.layout, model.query_length, model.passage_length) == ("packed", 8, 16)
    best = torch.load(tmp_path / "whole" / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(best[name], tensor) for name, tensor in model.state_dict().items())
    card = (saved / "README.md").read_text()
    head = "the difference of the rows of its answers" if form in ("answers", "modules") else "the head of "
    assert f"| Decoder | {backbone.name}, the last token's state, {head}" in card and "cls pooling" not in card
    assert ("of a passage, within the prompt of its chat template |" in card) == (form in PROMPTED)
    model.query_length = model.passage_length = 64  # as in the libraries, which cut only pairs
    scores = model.predict(PAIRS)
    assert np.ptp(scores) > 1e-3
    np.testing.assert_allclose(of_sentence_transformers(saved), scores, rtol=0, atol=1e-4)
    if form == "modules":
        assert (
            isinstance(model.activation, nn.Sigmoid)
            and "prompts" in (saved / "config_sentence_transformers.json").read_text()
        )
        return
    prompt = {"answers": PROMPTS["qwen3-reranker"].text, "two-labels": rendered_chat()}.get(form)
    np.testing.assert_allclose(of_transformers(saved, prompt), scores, rtol=0, atol=1e-4)


def rendered_chat() -> str:
    return "<|im_start|>{{Query}}: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>\n\n"


# ---- Layouts, losses and adapters ------------------------------------------------------------------------------------


def decoder(directory: Path, family: str = "qwen3", layout: str = "auto", **changes) -> CrossEncoder:
    """A classifier over random tokens, whose head is drawn."""
    sizes = {"max_position_embeddings": 600} | changes
    model = CrossEncoder.from_backbone(
        str(classifier(directory, family, **sizes)), query_length=32, passage_length=472, layout=layout
    )
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(0))
    return model


WINDOW = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
PACKED = {
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 9},
    "qwen2": WINDOW | {"layer_types": ["full_attention", "sliding_attention"]},
    "qwen3": GROUPED,
}


@pytest.mark.parametrize("family", PACKED)
def test_packed_padded_and_plain_scores_and_gradients_agree(tmp_path, family):
    models = [decoder(tmp_path / layout, family, layout, **PACKED[family]) for layout in ("packed", "padded")]
    assert [model.layout for model in models] == ["packed", "padded"]
    plain = AutoModel.from_pretrained(tmp_path / "packed" / "lm", dtype=torch.float32).eval()
    batch, weights = ragged_batch(LENGTHS, SIZES), torch.randn(len(LENGTHS), generator=torch.Generator().manual_seed(0))
    starts = np.cumsum([0, *LENGTHS])
    pairs = [batch.tokens[None, start : start + length] for start, length in zip(starts, LENGTHS, strict=False)]
    expected = torch.stack([models[0].head(plain(pair).last_hidden_state[:, -1])[0, 0] for pair in pairs])
    (expected @ weights).backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for max_tokens in (10_000, 600):
        for model in models:
            model.train().zero_grad()
            scores = model.score(batch, max_tokens)[batch.mask]
            torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
            (scores @ weights).backward()
            for name, parameter in model.backbone.named_parameters():
                error = (parameter.grad - gradients[name]).norm()
                assert error <= 1e-4 * gradients[name].norm() + 1e-7, name


@pytest.mark.parametrize("family", PACKED)
def test_queries_and_keys_have_the_type_of_the_values_under_autocast(tmp_path, monkeypatch, family):
    model, seen = decoder(tmp_path, family, "packed", **PACKED[family]).eval(), set()

    def attend(query, key, value, *_, **__):
        seen.update({query.dtype, key.dtype, value.dtype})
        return torch.zeros_like(query)

    monkeypatch.setattr(packed, "_attend", attend)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model.score(ragged_batch(LENGTHS, SIZES), 10_000)
    assert seen == {torch.bfloat16}  # varlen_attn takes no other


def test_the_operations_of_two_short_pairs_by_hand(tmp_path):
    """Hidden size 16, two heads of 8, intermediate size 32; half of the products of attention are masked."""
    forward = 2 * 2 * (4 * 16**2 + 3 * 16 * 32) * 8 + 2 * 4 * 16 * (9 + 25) / 2
    assert FlopCounter(decoder(tmp_path))(torch.tensor([3, 5])) == 3 * forward


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_decoder_learns_with_every_loss(tmp_path, layout):
    model = decoder(tmp_path, layout=layout).train()
    batch = random_batch(sizes=(5, 2))
    ranks, relevant = batch.targets["rank"], (torch.arange(5) == 1).float() * batch.mask
    for loss in LOSSES:
        labelled = loss in ("lce", "bce", "hinge", "lambda", "approxndcg")
        target = "rank" if loss in ON_RANKS else "score"
        batch.targets = {target: relevant if labelled else ranks}
        model.zero_grad()
        backward(
            model, batch, Objective({"name": loss, "target": target, "reduction": "sum"}), torch.tensor([7]), [1.0], 50
        )
        every = [model.head.weight.grad, *(parameter.grad for parameter in model.backbone.parameters())]
        assert all(gradient.abs().max() > 0 for gradient in every if gradient is not None and gradient.dim() > 1), loss


@pytest.mark.parametrize("head", ["auto", "linear", "native"])
def test_another_pooling_than_a_decoders_is_refused(tmp_path, head):
    path = str(plain(tmp_path))
    with pytest.raises(InputError, match="model.pooling=mean: .* is a decoder, whose score is read from the last"):
        CrossEncoder.from_backbone(path, "mean", query_length=8, passage_length=20, head=head)


def test_adapters_and_checkpointing_of_a_decoder(tmp_path):
    from distill.models.lora import add_adapters, linear_layers
    from distill.training.recompute import recompute_activations

    path = answers(tmp_path)
    model = CrossEncoder.from_backbone(str(path), query_length=8, passage_length=40)
    assert {name.rpartition(".")[2] for name in linear_layers(model.backbone)} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    add_adapters(model, rank=4, alpha=8.0, dropout=0.1)
    recompute_activations(model.backbone)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or name == "head.weight":
            nn.init.normal_(parameter, std=0.1)
    batch = random_batch()
    objective = Objective({"name": "ranknet", "target": "rank", "reduction": "sum"})
    backward(model.train(), batch, objective, torch.tensor([7]), [1.0], 50)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 1 + 2 * 14 and all(parameter.grad.abs().max() > 0 for parameter in trained.values())
    scores = model.eval().predict(PAIRS)
    model.save_pretrained(tmp_path / "saved")
    again = CrossEncoder.from_pretrained(str(tmp_path / "saved"))
    np.testing.assert_allclose(again.predict(PAIRS), scores, rtol=0, atol=1e-5)
    before, after = (AutoModelForCausalLM.from_pretrained(one).state_dict() for one in (path, tmp_path / "saved"))
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    np.testing.assert_allclose(of_sentence_transformers(tmp_path / "saved"), scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [answers, modules])
def test_the_adapters_of_a_language_model_are_saved_with_the_difference_of_its_answers(tmp_path, make):
    from peft import PeftModel

    from distill.models.adapters import train_adapters

    path = make(tmp_path)
    model = CrossEncoder.from_backbone(str(path), query_length=32, passage_length=40)
    train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    scores = model.eval().predict(PAIRS)
    model.save_pretrained(tmp_path / "saved")
    again = CrossEncoder.from_pretrained(str(tmp_path / "saved"), base=str(path))
    np.testing.assert_allclose(again.predict(PAIRS), scores, rtol=0, atol=1e-5)
    again.save_pretrained(tmp_path / "whole")
    np.testing.assert_allclose(of_sentence_transformers(tmp_path / "whole"), scores, rtol=0, atol=1e-4)
    # another name of the backbone changes nothing, since the prompt is known
    path = path.rename(tmp_path / "moved")
    moved = CrossEncoder.from_pretrained(str(tmp_path / "saved"), base=str(path))
    np.testing.assert_array_equal(moved.predict(PAIRS), again.predict(PAIRS))
    # peft puts them on a classifier
    base = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    theirs = PeftModel.from_pretrained(base, tmp_path / "saved").eval()
    encoded = model.encode(*map(list, zip(*PAIRS, strict=True)))
    with torch.no_grad():
        logits = [theirs(input_ids=torch.from_numpy(tokens)[None]).logits[0, 0] for tokens, _ in encoded]
    np.testing.assert_allclose(model.activation(torch.stack(logits)), scores, rtol=0, atol=1e-5)


def test_adapters_are_refused_without_the_prompt_of_their_backbone(tmp_path):
    from distill.models.adapters import train_adapters

    path = two_labels(tmp_path)
    model = CrossEncoder.from_backbone(str(path))
    train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")
    model.save_pretrained(tmp_path / "saved")
    (path / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="its prompt is not the one that .*saved was trained with"):
        CrossEncoder.from_pretrained(str(tmp_path / "saved"), base=str(path))


def test_adapters_whose_head_no_library_has_are_refused_before_training(tmp_path, monkeypatch):
    from distill.models import adapters

    model = CrossEncoder.from_backbone(str(answers(tmp_path)))
    monkeypatch.setattr(adapters, "score_layer", lambda config: None)
    with pytest.raises(InputError, match="model.lora.save=adapters: .* no other head for a qwen3: set .*save=merged"):
        adapters.train_adapters(model, rank=4, alpha=8.0, dropout=0.1, save="adapters")


# ---- Long pairs ------------------------------------------------------------------------------------------------------


def test_a_text_that_is_cut_keeps_what_the_prompt_puts_after_it(tmp_path, file_overrides, collection):
    name = str(answers(tmp_path))
    model = CrossEncoder.from_backbone(name, query_length=4, passage_length=6).eval()
    query, passage = "who flies home by the sun?", "a bee and an ant " * 5
    [(tokens, _)] = model.encode([query], [passage])
    (whole_query,), (whole_passage,) = (
        read_texts(model.tokenizer, [text], None) for text in model.template.texts(query, passage)
    )
    newline = model.tokenizer("\n")["input_ids"]
    parts = [model.template.prefix, whole_query[:3], newline, model.template.middle, whole_passage[:6]]
    assert tokens.tolist() == np.concatenate([*parts, model.template.suffix]).tolist()
    # training lists
    reader = reader_of(name)
    collection["queries"].write_text("".join(f"q{number}\t{query}\n" for number in range(6)))
    cfg = compose_config("train", *file_overrides, "model.query_length=4", "model.passage_length=6")
    lists = read_lists(cfg, reader.tokenizer, reader.forms)
    assert all(lists.queries[row].tolist() == [*whole_query[:3], *newline] for row in range(6))
    first = model.template.texts("", Path(cfg.data.passages).read_text().splitlines()[0].partition("\t")[2])[1]
    assert lists.passages[0].tolist() == read_texts(model.tokenizer, [first], 6)[0].tolist()


@pytest.mark.parametrize("lengths, kept", [((5, 30), (5, 7)), ((30, 5), (12, 0)), ((12, 3), (12, 0)), ((3, 9), (3, 9))])
def test_in_a_prompt_the_passage_is_cut_first(lengths, kept):
    end = np.array([99])
    template = PairTemplate(np.array([1, 2]), np.array([3]), np.array([4, 5]), 0, 17, keeps_query=True, query_end=end)
    query, passage = np.arange(100, 100 + lengths[0]), np.arange(200, 200 + lengths[1])
    query[-1] = 99
    tokens, _ = template.join(query, passage)
    expected = [1, 2, *query[: kept[0] - 1], 99, 3, *passage[: kept[1]], 4, 5]
    assert tokens.tolist() == expected and len(tokens) <= 17


def test_a_cut_keeps_at_most_the_length():
    tokens, end = np.arange(5), np.array([8, 9])
    kept = [cut(tokens, length, end).tolist() for length in (0, 1, 2, 3, 5, 6)]
    assert kept == [[], [8], [8, 9], [0, 8, 9], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


# ---- What is drawn, and what is refused ------------------------------------------------------------------------------


def test_a_plain_decoder_never_gives_all_passages_the_same_score(tmp_path, caplog):
    path = plain(tmp_path)
    config = json.loads((path / "config.json").read_text()) | {"architectures": ["Qwen3Model"]}
    (path / "config.json").write_text(json.dumps(config))
    with caplog.at_level("INFO"):
        model = CrossEncoder.from_backbone(str(path), query_length=8, passage_length=40, layout="padded").eval()
    assert "a new linear layer" in caplog.text and "puts nothing between query and passage" in caplog.text
    assert model.pooling == "last" and np.ptp(model.predict([("a", "b c"), ("a", "d e f")])) > 1e-3
    with pytest.raises(InputError, match="model.head=mlp: a decoder has one linear layer"):
        CrossEncoder.from_backbone(str(path), head="mlp")


def test_a_prompt_makes_a_re_ranker_of_a_plain_language_model(tmp_path):
    path = plain(tmp_path)
    model = CrossEncoder.from_backbone(str(path), query_length=8, passage_length=40, prompt="qwen3-reranker").eval()
    expected = CrossEncoder.from_pretrained(str(path), prompt="qwen3-reranker").predict(PAIRS)
    np.testing.assert_allclose(model.predict(PAIRS), expected, rtol=1e-6)
    model.save_pretrained(tmp_path / "saved")  # nothing was trained: the output matrix is still that of the embeddings
    assert json.loads((tmp_path / "saved" / "config.json").read_text()).get("tie_word_embeddings", True)
    np.testing.assert_allclose(
        CrossEncoder.from_pretrained(str(tmp_path / "saved")).predict(PAIRS), expected, rtol=1e-6
    )


def test_a_new_head_leaves_the_answers_and_keeps_the_prompt(tmp_path, caplog):
    model = CrossEncoder.from_backbone(str(answers(tmp_path)), query_length=32, passage_length=40, head="linear").eval()
    assert "its head is dropped" in caplog.text
    nn.init.normal_(model.head.weight)
    model.save_pretrained(tmp_path / "saved")
    scores = model.predict(PAIRS)
    assert of_transformers(tmp_path / "saved", PROMPTS["qwen3-reranker"].text) == pytest.approx(scores, abs=1e-4)
    np.testing.assert_allclose(of_sentence_transformers(tmp_path / "saved"), scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose(CrossEncoder.from_pretrained(str(tmp_path / "saved")).predict(PAIRS), scores, rtol=1e-6)


@pytest.mark.parametrize("make", [answers, modules])
def test_a_language_model_is_exported_as_a_classifier(tmp_path, make):
    model = CrossEncoder.from_pretrained(str(make(tmp_path)))
    scores = model.predict(PAIRS)
    for target in ("transformers", "sentence-transformers"):
        export(model, tmp_path / target, target)
        np.testing.assert_allclose(of_sentence_transformers(tmp_path / target), scores, rtol=0, atol=1e-4)
        again = CrossEncoder.from_pretrained(str(tmp_path / target))
        np.testing.assert_allclose(again.predict(PAIRS), scores, rtol=0, atol=1e-6)
    shown: dict = {}
    exec(use("transformers", str(tmp_path / "transformers"), in_prompt=True).split("```")[1][7:], shown)
    logits = shown["model"](**shown["pairs"]).logits[:, 0].detach()
    expected = model.predict([(shown["query"], passage) for passage in shown["passages"]])
    np.testing.assert_allclose(model.activation(logits), expected, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="onnx: only an encoder can be exported: choose one of sentence-transformers"):
        export(model, tmp_path / "onnx", "onnx")


def test_an_exported_decoder_names_its_padding(tmp_path):
    model = decoder(tmp_path, "qwen3")
    model.backbone.config.pad_token_id = None  # as many published language models have it
    export(model, tmp_path / "out", "transformers")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["pad_token_id"] == model.tokenizer.pad_token_id is not None


def test_the_head_of_a_decoder_is_not_rounded(tmp_path):
    export(decoder(tmp_path, "qwen3"), tmp_path / "out", "transformers", dtype="bfloat16")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    types = {(name == "score.weight", weight.dtype) for name, weight in weights.items()}
    assert types == {(True, torch.float32), (False, torch.bfloat16)}


@pytest.mark.parametrize("make", [classifier, plain])
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("gpt", "^prompt=gpt is unknown: choose one of monot5, rankt5, qwen3-reranker$"),
        (
            "monot5",
            "lm: prompt=monot5 is for another kind of language model: set prompt=qwen3-reranker, or leave it out$",
        ),
    ],
)
def test_a_prompt_that_is_unknown_or_of_another_kind_is_refused(tmp_path, make, prompt, message):
    path = str(make(tmp_path))
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match=message):
            opened(path, prompt=prompt)
    assert np.ptp(CrossEncoder.from_pretrained(path, prompt="qwen3-reranker").predict(PAIRS)) > 1e-3


def test_the_last_token_is_the_one_that_transformers_takes(tmp_path):
    """With an end of the text that is also the padding, it is the token before that."""
    from tokenizers import processors

    tokenizer = byte_level()
    tokenizer.pad_token = tokenizer.eos_token
    ends = "$A <|im_end|> $B <|im_end|>"
    special = [("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing("$A <|im_end|>", ends, special)
    write(tmp_path, AutoModelForSequenceClassification, tokenizer, "llama", num_labels=1)
    scores = CrossEncoder.from_pretrained(str(tmp_path)).predict(PAIRS)
    np.testing.assert_allclose(of_transformers(tmp_path, None), scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (
            lambda path: write(path, AutoModelForSeq2SeqLM, sentence_piece(), "t5"),
            {},
            "is a t5, which has both an encoder",
        ),
        (
            make_backbone,
            {"prompt": "qwen3-reranker"},
            "prompt=qwen3-reranker is for language models, but this is a bert",
        ),
        (
            lambda path: classifier(path.parent),
            {"first_stage_score": "min-max"},
            "the pairs of a decoder do not hold it",
        ),
    ],
    ids=["t5", "prompt", "score"],
)
def test_what_cannot_be_trained_is_refused(tmp_path, make, options, message):
    make(tmp_path / "lm")
    with pytest.raises(InputError, match=message):
        CrossEncoder.from_backbone(str(tmp_path / "lm"), **options)
