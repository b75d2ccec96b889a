"""What servers read of a saved model, by their published loading rules: those that cannot be started in a test.

Each rule names its source. `python -m benchmarks.servers` starts those that can be installed by name.
"""

import json

import pytest
from safetensors import safe_open

from distill.models.cross_encoder import CrossEncoder
from distill.models.onnx import INPUTS
from tests.helpers.backbones import make_backbone
from tests.helpers.models import PASSAGES, QUERY, make_model
from tests.helpers.paths import ROOT

# text-embeddings-inference: router/src/lib.rs (ModelConfig, STConfig, get_backend_model_type),
# backends/candle/src/models/bert.rs (BertConfig, BertClassificationHead, RobertaClassificationHead),
# backends/candle/src/layers/linear.rs (HiddenAct), https://github.com/huggingface/text-embeddings-inference
TEI_BERT = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("hidden_dropout_prob", "max_position_embeddings", "type_vocab_size", "initializer_range", "layer_norm_eps"),
    "pad_token_id",
)
TEI_HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "roberta": ("classifier.dense", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
}
TEI_ACTIVATIONS = ("gelu", "relu", "silu", "swiglu", "gelu_new", "gelu_pytorch_tanh")  # of all versions
# vLLM: vllm/model_executor/models/registry.py (_CROSS_ENCODER_MODELS), vllm/model_executor/layers/pooler/activations.py
# (get_cross_encoder_act_fn), https://github.com/vllm-project/vllm; by suffix: vllm/config/model.py
VLLM = ("Bert", "Roberta", "XLMRoberta", "ModernBert")
VLLM_SUFFIXES = ("ForCausalLM", "ForConditionalGeneration", "Classification", "EmbeddingModel", "RewardModel", "Model")
# SGLang: python/sglang/srt/models/bert.py and roberta.py (EntryClass, load_weights),
# https://github.com/sgl-project/sglang
SGLANG = {"BertForSequenceClassification": "bert.", "XLMRobertaForSequenceClassification": "roberta."}
# Infinity: libs/infinity_emb/infinity_emb/inference/select_model.py, https://github.com/michaelfeil/infinity


def saved(directory, family: str, pooling: str = "cls") -> tuple[dict, set[str]]:
    """A saved model's config.json and the names of its tensors."""
    backbone = str(make_backbone(directory / "backbone", family))
    CrossEncoder.from_backbone(backbone, pooling, query_length=8, passage_length=20).save_pretrained(directory / "m")
    with safe_open(directory / "m" / "model.safetensors", "pt") as weights:
        return json.loads((directory / "m" / "config.json").read_text()), set(weights.keys())


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_text_embeddings_inference_finds_a_re_ranker(tmp_path, family):
    config, names = saved(tmp_path, family)
    assert all(config.get(key) is not None for key in TEI_BERT)
    assert config["architectures"][0].endswith("Classification")
    assert len(config["id2label"]) == 1 and len(config["label2id"]) == 1  # more would be a classifier, without /rerank
    assert {f"{layer}.{part}" for layer in TEI_HEADS[family] for part in ("weight", "bias")} <= names
    prefix = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta."}[family]
    assert f"{prefix}embeddings.word_embeddings.weight" in names
    lengths = json.loads((tmp_path / "m" / "sentence_bert_config.json").read_text())
    assert lengths["max_seq_length"] == 8 + 20 + (4 if family != "bert" else 3)
    assert (tmp_path / "m" / "tokenizer.json").is_file()


def test_text_embeddings_inference_refuses_a_modernbert_whose_heads_bias_it_would_leave_out(tmp_path):
    """backends/candle/src/models/modernbert.rs, ModernBertClassificationHead: head.dense is read without its bias."""
    config, names = saved(tmp_path, "modernbert")
    assert config["classifier_bias"] and "head.dense.bias" in names
    assert config["classifier_activation"] not in TEI_ACTIVATIONS


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert"])
def test_vllm_finds_a_cross_encoder_without_an_activation(tmp_path, family):
    config, names = saved(tmp_path, family)
    [architecture] = config["architectures"]
    assert architecture.removesuffix("ForSequenceClassification") in VLLM
    function = config["sentence_transformers"]["activation_fn"]
    assert function == config["sbert_ce_default_activation_function"] == "torch.nn.modules.linear.Identity"
    roots = {"modernbert": ("model.", "head.", "classifier."), "bert": ("bert.", "classifier.")}
    assert all(name.startswith(roots.get(family, ("roberta.", "classifier."))) for name in names)
    assert not {name for name in names if "pooler" in name} or family == "bert"  # others have no place for one


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_sglang_finds_every_weight_where_it_looks(tmp_path, family):
    config, names = saved(tmp_path, family)
    prefix = SGLANG[config["architectures"][0]]
    assert all(name.startswith((prefix, "classifier.")) for name in names)


@pytest.mark.parametrize("family", ["bert", "electra", "deberta-v2", "modernbert"])
def test_infinity_takes_it_for_a_re_ranker(tmp_path, family):
    config, _ = saved(tmp_path, family)
    assert "SequenceClassification" in config["architectures"][0] and len(config["id2label"]) < 2


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_no_server_takes_what_no_head_carries_for_a_model_that_it_knows(tmp_path, family):
    """vLLM would score with an encoder of single texts by the cosine of two states, without an error."""
    config, _ = saved(tmp_path, family, "mean")
    [architecture] = config["architectures"]
    assert not architecture.endswith(VLLM_SUFFIXES) and "SequenceClassification" not in architecture
    import transformers

    assert not hasattr(transformers, architecture)  # where vLLM looks next
    pooling = json.loads((tmp_path / "m" / "1_Pooling" / "config.json").read_text())
    assert "pooling_mode_mean_tokens" not in pooling  # text-embeddings-inference reads no other name, and stops


# Vespa: the rank features tokenInputIds and customTokenInputIds, https://docs.vespa.ai/en/reference/rank-features.html;
# OpenSearch: TextSimilarityTranslator.java in https://github.com/opensearch-project/ml-commons


@pytest.mark.parametrize(
    ("family", "same"), [("bert", True), ("electra", True), ("deberta-v2", True), ("roberta", False), ("mpnet", False)]
)
def test_vespa_writes_the_pair_that_the_model_reads_or_the_page_says_that_it_does_not(tmp_path, family, same):
    model = make_model(tmp_path, family)
    tokenizer = model.tokenizer
    query, passage = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (QUERY, PASSAGES[0]))
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    [(tokens, _)] = model.encode([QUERY], PASSAGES[:1])
    assert (tokens.tolist() == [start, *query, end, *passage, end]) == same
    page = (ROOT / "docs" / "serving.md").read_text().replace("\n", " ")
    assert "RoBERTa, XLM-R and MPNet put two separators between query and passage, and Vespa writes one" in page


def test_opensearch_names_the_inputs_of_a_graph():
    assert list(INPUTS) == ["input_ids", "attention_mask", "token_type_ids"]
