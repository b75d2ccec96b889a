"""Language models as re-rankers: the scores that the whole model's logits give, over the tokens of the whole prompt."""

import json

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.pair_reading import read_texts
from distill.models.prompts import PROMPTS, T5_PROMPTS
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from evaluate import evaluate
from tests.helpers.configuration import compose_config
from tests.helpers.language_models import CHAT, PAIRS, TEXT, byte_level, sentence_piece, write


def scores_of(directory, prompt: str | None = None) -> torch.Tensor:
    """Score all passages of a list at once, so that there is padding, with the first pair's query."""
    model = CrossEncoder.from_pretrained(str(directory), prompt=prompt)
    order, scores = model.rank(PAIRS[0][0], [passage for _, passage in PAIRS])
    together = torch.empty(len(PAIRS)).index_put((torch.tensor(order),), torch.tensor(scores))
    alone = [model.rank(query, [passage])[1][0] for query, passage in PAIRS]
    return torch.cat([together, torch.tensor(alone)])


def expected_scores(score) -> torch.Tensor:
    return torch.stack([score(PAIRS[0][0], passage) for _, passage in PAIRS] + [score(*pair) for pair in PAIRS])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["monot5-base", "RankT5-base"])
def test_t5_gives_the_scores_of_its_first_decoder_step(tmp_path, name, tied):
    changes = {} if tied else {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
    theirs = write(tmp_path / name, AutoModelForSeq2SeqLM, sentence_piece(), "t5", **changes)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
    mono = name.startswith("mono")

    @torch.no_grad()
    def score(query: str, passage: str) -> torch.Tensor:
        text = f"Query: {query} Document: {passage}" + (" Relevant:" if mono else "")
        encoded = tokenizer(text, return_tensors="pt")
        logits = theirs(**encoded, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
        if not mono:
            return logits[tokenizer.convert_tokens_to_ids("<extra_id_10>")]
        return logits[tokenizer.convert_tokens_to_ids(["▁false", "▁true"])].log_softmax(0)[1]

    torch.testing.assert_close(scores_of(tmp_path / name), expected_scores(score), rtol=1e-5, atol=1e-5)


def test_a_t5_whose_tokenizer_is_a_sentencepiece_model(tmp_path):
    """As castorini's: spiece.model alone, whose tokens are those of the whole prompt."""
    sentencepiece = pytest.importorskip("sentencepiece")
    words = ["▁true", "▁false", "▁Document", "▁Relevan", "t", ":"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_prefix=str(tmp_path / "spiece"), vocab_size=400, user_defined_symbols=words,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    theirs = write(tmp_path / "monot5", AutoModelForSeq2SeqLM, sentence_piece(), "t5", vocab_size=600)
    for path in (tmp_path / "monot5").glob("*token*"):
        path.unlink()
    (tmp_path / "spiece.model").rename(tmp_path / "monot5" / "spiece.model")
    options = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, "pad_token": "<pad>"}
    (tmp_path / "monot5" / "tokenizer_config.json").write_text(json.dumps(options))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "monot5")

    @torch.no_grad()
    def score(query: str, passage: str) -> torch.Tensor:
        encoded = tokenizer(f"Query: {query} Document: {passage} Relevant:", return_tensors="pt")
        logits = theirs(**encoded, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
        return logits[tokenizer.convert_tokens_to_ids(["▁false", "▁true"])].log_softmax(0)[1]

    torch.testing.assert_close(scores_of(tmp_path / "monot5"), expected_scores(score), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_the_prompt_of_qwen3_reranker(tmp_path, family):
    theirs = write(tmp_path / "Qwen3-Reranker-mini", AutoModelForCausalLM, byte_level(), family)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "Qwen3-Reranker-mini")
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])

    @torch.no_grad()
    def score(query: str, passage: str) -> torch.Tensor:
        text = PROMPTS["qwen3-reranker"].text.format(query=query, passage=passage)
        logits = theirs(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        return logits[yes] - logits[no]

    found = scores_of(tmp_path / "Qwen3-Reranker-mini")
    torch.testing.assert_close(found, expected_scores(score), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("false", [True, False])
@pytest.mark.parametrize("activation", [nn.Identity(), nn.Sigmoid()])
def test_a_causal_model_of_sentence_transformers_gives_its_scores(tmp_path, false, activation):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    tokenizer = byte_level()
    tokenizer.chat_template = CHAT
    write(tmp_path / "lm", AutoModelForCausalLM, tokenizer, "qwen3")
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    modules = [
        Transformer(str(tmp_path / "lm"), transformer_task="text-generation"),
        LogitScore(yes, no if false else None),
    ]
    theirs = sentence_transformers.CrossEncoder(
        modules=modules,
        device="cpu",
        activation_fn=activation,
        prompts={"web": "Find {it}."},
        default_prompt_name="web",
    )
    theirs.save_pretrained(str(tmp_path / "st"))
    pairs = [(PAIRS[0][0], passage) for _, passage in PAIRS] + PAIRS
    expected = torch.from_numpy(theirs.predict(pairs))
    torch.testing.assert_close(scores_of(tmp_path / "st"), expected, rtol=1e-5, atol=1e-5)
    if false and isinstance(activation, nn.Identity):  # without modules.json: "yes" and "no" of the same template
        bare = sentence_transformers.CrossEncoder(str(tmp_path / "lm"), device="cpu", activation_fn=activation)
        torch.testing.assert_close(
            scores_of(tmp_path / "lm"), torch.from_numpy(bare.predict(pairs)), rtol=1e-5, atol=1e-5
        )


def test_a_decoder_with_a_classification_head_scores_by_its_last_token(tmp_path):
    theirs = write(tmp_path / "lm", AutoModelForSequenceClassification, byte_level(), "qwen3", num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")

    @torch.no_grad()
    def score(query: str, passage: str) -> torch.Tensor:
        return theirs(**tokenizer(query, passage, return_tensors="pt")).logits[0, 0]

    torch.testing.assert_close(scores_of(tmp_path / "lm"), expected_scores(score), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory) -> CrossEncoder:
    directory = tmp_path_factory.mktemp("lm") / "qwen3-reranker"
    write(directory, AutoModelForCausalLM, byte_level(), "qwen3")
    return CrossEncoder.from_pretrained(str(directory))


LINES = st.text(st.sampled_from("ab Z09.?!'\"()<>{}:\n\té中"), min_size=1, max_size=12)


@given(query=LINES, passage=LINES)
@example(query="is it?", passage=" \n(x")
def test_query_and_passage_are_the_tokens_that_they_are_within_the_prompt(reranker, query, passage):
    tokens = [read_texts(reranker.tokenizer, [text], 500)[0] for text in reranker.template.texts(query, passage)]
    whole = PROMPTS["qwen3-reranker"].text.format(query=query, passage=passage)
    assert reranker.template.join(*tokens)[0].tolist() == reranker.tokenizer(whole)["input_ids"]


def test_a_long_passage_is_cut_and_the_prompt_is_not(reranker):
    texts = reranker.template.texts("a", "b " * 1000)
    tokens, _ = reranker.template.join(*(read_texts(reranker.tokenizer, [text], 2000)[0] for text in texts))
    suffix = reranker.template.suffix.tolist()
    assert len(tokens) == 512 and tokens[-len(suffix) :].tolist() == suffix
    order, _ = reranker.rank("a", ["b " * 1000, "b"])
    assert sorted(order) == [0, 1]


def no_prompt(path):
    write(path, AutoModelForCausalLM, byte_level(), "qwen3")


def unknown_t5(path):
    write(path, AutoModelForSeq2SeqLM, sentence_piece(), "t5")


def capped(path):
    write(path, AutoModelForCausalLM, byte_level(), "gemma2", final_logit_softcapping=2.0)
    (path / "chat_template.jinja").write_text(CHAT)


def no_answer(path):
    tokenizer = sentence_piece()
    tokenizer.chat_template = CHAT
    write(path, AutoModelForCausalLM, tokenizer, "qwen3")


def summariser(path):
    unknown_t5(path)
    config = json.loads((path / "config.json").read_text())
    changes = {"architectures": ["BartForConditionalGeneration"], "model_type": "bart"}
    (path / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("make", "prompt", "message"),
    [
        (no_prompt, None, "has no query and document roles: set prompt=qwen3-reranker"),
        (no_prompt, "monot5", "set prompt=qwen3-reranker"),
        (no_prompt, "gpt", "prompt=gpt is unknown: choose one of monot5, rankt5, qwen3-reranker"),
        (unknown_t5, None, "no file names its training prompt: set prompt=monot5 or prompt=rankt5"),
        (unknown_t5, "qwen3-reranker", "set prompt=monot5 or prompt=rankt5"),
        (capped, None, "its logits are not linear in its last state"),
        (no_answer, None, "lacks the token yes"),
        (summariser, None, "is a BartForConditionalGeneration: T5 is the only encoder-decoder"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_would_not_score_as_it_was_trained_is_refused(tmp_path, make, prompt, message):
    make(tmp_path / "lm")
    with pytest.raises(InputError, match=message):
        CrossEncoder.from_pretrained(str(tmp_path / "lm"), prompt=prompt)


@pytest.mark.parametrize("prompt", T5_PROMPTS)
def test_a_language_model_evaluates_and_is_neither_saved_nor_given_a_prompt_it_has_not(
    tmp_path, collection, backbone, prompt
):
    write(tmp_path / "lm", AutoModelForSeq2SeqLM, sentence_piece(), "t5")
    with pytest.raises(InputError, match="only an encoder or a decoder can be saved"):
        CrossEncoder.from_pretrained(str(tmp_path / "lm"), prompt=prompt).save_pretrained(tmp_path / "saved")
    task = [f"task.{name}={collection[name]}" for name in ("passages", "queries", "qrels")]
    task.append(f"task.run={collection['first_stage']}")
    options = [f"model={tmp_path / 'lm'}", "task=files", *task, f"prompt={prompt}", "task.windows=2"]
    evaluate(compose_config("evaluate", *options), tmp_path / "out")
    model = CrossEncoder.from_pretrained(str(tmp_path / "lm"), prompt=prompt)
    queries = read_queries(str(collection["queries"]))
    passages = read_passages(str(collection["passages"]), {f"d{number}" for number in range(30)})
    for query_id, ranked in read_run(str(tmp_path / "out" / "run.txt")).items():
        places, scores = model.rank(queries[query_id], [passages[doc_id] for doc_id in ranked.doc_ids])
        assert sorted(places) == list(range(10))
        assert [ranked.scores[place] for place in places] == pytest.approx(scores, abs=1e-5)
    with pytest.raises(InputError, match="is for language models"):
        CrossEncoder.from_pretrained(str(backbone), prompt=prompt)
