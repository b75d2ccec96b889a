"""What a sentence-transformers directory does to its texts is done here, too, or refused in one line."""

import json

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from tests.helpers.backbones import make_backbone
from tests.helpers.language_models import CHAT, PAIRS, byte_level, write


def change(file, **values) -> None:
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | values))


def test_a_chat_template_gets_its_options_in_a_saved_copy_too(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    tokenizer = byte_level()
    tokenizer.chat_template = CHAT + "{%- if add_generation_prompt %}{{- 'Answer:' }}{%- endif %}"
    torch.manual_seed(1)
    write(tmp_path / "lm", AutoModelForCausalLM, tokenizer, "qwen3")
    words = tokenizer.convert_tokens_to_ids(["yes", "no"])
    options = {
        "transformer_task": "text-generation",
        "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
    }
    theirs = sentence_transformers.CrossEncoder(
        modules=[Transformer(str(tmp_path / "lm"), **options), LogitScore(*words)],
        device="cpu",
        activation_fn=nn.Identity(),
    )
    theirs.save_pretrained(str(tmp_path / "with"))
    expected = theirs.predict(PAIRS).tolist()
    ours = CrossEncoder.from_pretrained(str(tmp_path / "with"))
    assert ours.predict(PAIRS) == pytest.approx(expected, abs=1e-5)
    change(tmp_path / "with" / "sentence_bert_config.json", processing_kwargs={})
    assert CrossEncoder.from_pretrained(str(tmp_path / "with")).predict(PAIRS) != pytest.approx(expected, abs=1e-3)
    ours.save_pretrained(tmp_path / "copy")
    copy = sentence_transformers.CrossEncoder(str(tmp_path / "copy"), device="cpu")
    assert copy.predict(PAIRS).tolist() == pytest.approx(expected, abs=1e-5)


def test_max_seq_length_bounds_a_language_model(tmp_path):
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    write(tmp_path / "lm", AutoModelForCausalLM, tokenizer, "qwen3")
    change(tmp_path / "lm" / "sentence_bert_config.json", max_seq_length=300)
    assert CrossEncoder.from_pretrained(str(tmp_path / "lm")).max_length == 300


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"max_length": 32}}},
            "processing_kwargs has text",
        ),
        ("sentence_bert_config.json", {"processing_kwargs": [1]}, "processing_kwargs must be an object"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case=true, but the tokenizer keeps capitals"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"web": "Given a query: "}, "default_prompt_name": "web"},
            "has a default prompt, 'Given a query: '",
        ),
    ],
)
def test_what_is_not_followed_is_refused(tmp_path, name, values, message):
    model = CrossEncoder.from_backbone(str(make_backbone(tmp_path, "roberta")), query_length=8, passage_length=16)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "distill.json").unlink()  # as another library would have written it
    change(tmp_path / "model" / "tokenizer.json", normalizer=None)
    file = tmp_path / "model" / name
    known = json.loads(file.read_text()) if file.is_file() else {}
    CrossEncoder.from_pretrained(str(tmp_path / "model"))
    for harmless in ({"do_lower_case": False}, {"processing_kwargs": {"text": {}}}, {"prompts": {"q": "Q: "}}):
        change(file, **harmless)
        CrossEncoder.from_pretrained(str(tmp_path / "model"))
        file.write_text(json.dumps(known))
    change(file, **values)
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match=f"{name}: {message}"):
            opened(str(tmp_path / "model"))


def test_a_default_prompt_of_a_decoder_that_reads_plain_pairs_is_refused(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    write(tmp_path / "lm", AutoModelForSequenceClassification, byte_level(), "qwen3", num_labels=1)
    options = {"prompts": {"web": "Find it: "}, "default_prompt_name": "web", "activation_fn": nn.Identity()}
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "lm"), device="cpu", **options)
    theirs.save_pretrained(str(tmp_path / "st"))
    plain = theirs.predict(PAIRS, prompt="").tolist()
    assert theirs.predict(PAIRS).tolist() != pytest.approx(plain, abs=1e-3)
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match="sentence_transformers.json: has a default prompt, 'Find it: ', which"):
            opened(str(tmp_path / "st"))
    change(tmp_path / "st" / "config_sentence_transformers.json", default_prompt_name=None)
    assert CrossEncoder.from_pretrained(str(tmp_path / "st")).predict(PAIRS) == pytest.approx(plain, abs=1e-5)
    (tmp_path / "st" / "chat_template.jinja").write_text(CHAT)  # which reads it
    scores = []
    for name in ("web", None):
        change(tmp_path / "st" / "config_sentence_transformers.json", default_prompt_name=name)
        scores.append(CrossEncoder.from_pretrained(str(tmp_path / "st")).predict(PAIRS).tolist())
    assert scores[0] != pytest.approx(scores[1], abs=1e-3)


def test_a_decoder_with_pooling_and_a_dense_layer_has_no_prompt_either(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    write(tmp_path / "lm", AutoModel, byte_level(), "qwen3")
    score = Dense(16, 1, activation_function=nn.Identity(), module_output_name="scores")
    theirs = sentence_transformers.CrossEncoder(
        modules=[Transformer(str(tmp_path / "lm")), Pooling(16, pooling_mode="mean"), score],
        device="cpu",
        prompts={"web": "Find it: "},
        default_prompt_name="web",
    )
    theirs.save_pretrained(str(tmp_path / "st"))
    with pytest.raises(InputError, match="has a default prompt, 'Find it: '"):
        CrossEncoder.from_pretrained(str(tmp_path / "st"))
    change(tmp_path / "st" / "config_sentence_transformers.json", default_prompt_name=None)
    expected = theirs.predict(PAIRS, prompt="").tolist()
    assert CrossEncoder.from_pretrained(str(tmp_path / "st")).predict(PAIRS) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="prompt=qwen3-reranker is for language models, but this is a Qwen3Model"):
        CrossEncoder.from_pretrained(str(tmp_path / "st"), prompt="qwen3-reranker")


def test_a_chat_template_option_that_is_no_variable_is_refused(tmp_path):
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    write(tmp_path / "lm", AutoModelForCausalLM, tokenizer, "qwen3")
    for options in ({"messages": "x"}, {"a": [1]}, [1]):
        change(tmp_path / "lm" / "sentence_bert_config.json", processing_kwargs={"chat_template": options})
        with pytest.raises(InputError, match="processing_kwargs.chat_template must hold variables of the template"):
            CrossEncoder.from_pretrained(str(tmp_path / "lm"))


def test_a_model_cast_to_bfloat16_scores_with_a_float32_head(tmp_path):
    model = CrossEncoder.from_backbone(str(make_backbone(tmp_path, "bert")), "cls", 8, 16).eval()
    expected = model.predict(PAIRS)
    cast = model.to(torch.bfloat16)
    assert cast.predict(PAIRS) == pytest.approx(expected, abs=0.05)
    order, scores = cast.rank(PAIRS[0][0], [passage for _, passage in PAIRS])
    assert len(order) == len(PAIRS) and all(torch.tensor(score).isfinite() for score in scores)
