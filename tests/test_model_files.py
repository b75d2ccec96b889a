"""Model directories that are damaged or hostile: refused in one line, before they take time or memory."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from tokenizers import normalizers

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.tokenizer_files import _growth
from tests.helpers.backbones import make_backbone
from tests.helpers.models import make_classifier, scores_of, without_checksums
from tests.stress import fuzz_models

BOMBS = [
    *({"num_hidden_layers": number} for number in (10**6, 10**12, 4000)),
    {"hidden_size": 10**6},
    {"intermediate_size": 10**9},
    {"vocab_size": 10**9},
    {"type_vocab_size": 10**9},
    {"max_position_embeddings": 10**9},
    {"num_labels": 10**9},
    {"text_config": {"num_hidden_layers": 10**9}},
    {"model_type": "distilbert", "sinusoidal_pos_embds": True, "max_position_embeddings": 10**9},
    {"model_type": "albert", "num_hidden_groups": 3000, "inner_group_num": 3000},
    {"model_type": "mixtral", "num_hidden_layers": 900, "num_local_experts": 900},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The directory of a model of ours."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    backbone = str(make_backbone(folder / "backbone"))
    CrossEncoder.from_backbone(backbone, query_length=8, passage_length=20).save_pretrained(folder / "model")
    return without_checksums(folder / "model")  # else they would tell first


@pytest.fixture
def case(model, tmp_path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(model, tmp_path / "case"))


def change(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refusal(case: Path) -> str:
    """Return the one line that refuses a directory, as a model or as a backbone."""
    with pytest.raises(InputError) as refused:
        CrossEncoder.from_pretrained(str(case))
    assert "\n" not in str(refused.value) and str(case) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("changes", BOMBS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_a_configuration_cannot_ask_for_a_giant_model(case, changes):
    change(case / "config.json", **changes)
    start = time.monotonic()
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError) as refused:
            opened(str(case))
        assert "\n" not in str(refused.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("number", [0, -1])
def test_a_model_has_layers(case, number):
    change(case / "config.json", num_hidden_layers=number)
    for opened in (CrossEncoder.from_pretrained, CrossEncoder.from_backbone):
        with pytest.raises(InputError, match=f"num_hidden_layers={number}: must be 1 or more"):
            opened(str(case))


def test_new_weights_are_bounded_too(case):
    change(case / "config.json", hidden_size=2**16, intermediate_size=2**18)
    with pytest.raises(InputError, match="asks for more than 2.1 billion new weights"):
        CrossEncoder.from_backbone(str(case), weights="random")


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    ("step", "growth"),
    [
        (None, 1),
        (REPLACE, 2),
        ({"type": "Sequence", "normalizers": [REPLACE] * 30}, 2**30),
        ({"type": "Sequence", "normalizers": [REPLACE, {"type": "Sequence", "normalizers": [REPLACE] * 2}]}, 8),
        ({"type": "Replace", "pattern": {"String": "ab"}, "content": "c"}, 1),
        ({"type": "Replace", "pattern": {"Regex": "a*"}, "content": "x" * 9}, 10),
        ({"type": "Replace", "pattern": {"String": ""}, "content": "x" * 9}, 10),
        ({"type": "Sequence", "normalizers": [{"type": "NFKC"}] * 5}, 18),
        ({"type": "BertNormalizer", "lowercase": True}, 3),
        ({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Lowercase"}]}, 2),
        # A trie of four bytes, and three texts
        ({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAGJiYmIAYwA="}, 4),
    ],
    ids=str,
)
def test_the_growth_of_a_normaliser(step, growth):
    assert _growth(step, Path("tokenizer.json")) == growth


def test_unicode_writes_18_characters_for_one():
    text = normalizers.NFKC().normalize_str("\ufdfa")
    assert len(text) == 18 == max(len(normalizers.NFKD().normalize_str(chr(code))) for code in range(0xFB00, 0xFE00))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 30}}, "up to 1.07e[+]09 times as long"),
        ({"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 5000}}, "has 5000 steps"),
        ({"normalizer": {"type": "Prepend", "prepend": "x" * 10**6}}, "puts 1000000 characters before a text"),
        ({"normalizer": 5}, "normalizer=5: must be an object"),
        (
            {"model": {"type": "WordPiece", "max_input_chars_per_word": 10**9}},
            "max_input_chars_per_word=1000000000: at most 10000",
        ),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 1000,
                    "special_tokens": {"x": {"id": "x", "ids": [1] * 1000, "tokens": ["x"] * 1000}},
                }
            },
            "puts 1000000 special tokens around a text",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_tokenizer_that_makes_texts_longer_is_refused(case, changes, reason):
    change(case / "tokenizer.json", **changes)
    with pytest.raises(InputError, match=f"tokenizer.json: .*{reason}"):
        CrossEncoder.from_pretrained(str(case))


JSON_FILES = ("config.json", "tokenizer_config.json", "modules.json", "distill.json", "1_Pooling/config.json")
JSON_FILES += ("2_Dense/config.json", "config_sentence_transformers.json", "tokenizer.json")
WRONG = ["5", "[]", '""', "null", "", "{", "NaN", "[" * 100_000, '{"a": ' * 100_000, "\xff"]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:5])
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_file_that_holds_another_kind_of_json_is_refused_with_its_name(case, name, text):
    (case / name).write_bytes(text.encode("latin-1"))
    assert Path(name).name in refusal(case)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("modules.json", [{"idx": 0}], "must be a list of objects with a type and a path"),
        ("modules.json", [{"type": 5, "path": ""}], "must be a list of objects with a type and a path"),
        ("modules.json", [{"type": "a.Transformer", "path": "../../x"}], "a path in this directory"),
        ("modules.json", [{"type": "a.Transformer", "path": "/etc"}], "a path in this directory"),
        ("modules.json", [{"type": "a.Transformer", "path": "..\\x"}], "a path in this directory"),
        ("2_Dense/config.json", {}, "in_features is missing"),
        ("2_Dense/config.json", {"bias": "false"}, 'bias="false": must be true or false'),
        ("2_Dense/config.json", {"activation_function": []}, "activation_function=[]: must be a text"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls"]}, 'pooling_mode=["cls"]: must be a text'),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pools by max"),
        ("config.json", {"architectures": "BertModel"}, 'architectures="BertModel": must be a list'),
        ("config.json", {"architectures": [5]}, None),
        ("config.json", {"architectures": {}}, "architectures={}: must be a list"),
        ("config.json", {"model_type": 5}, "model_type=5: must be a text"),
        ("config.json", {"model_type": "unknown"}, "cannot be loaded with transformers"),
        ("config.json", {"sentence_transformers": "x"}, 'sentence_transformers="x": must be an object'),
        ("config.json", {"hidden_size": "16"}, "cannot be loaded with transformers"),
        ("config.json", {"num_attention_heads": 0}, "cannot be loaded with transformers"),
        ("config.json", {"num_attention_heads": 3}, "cannot be loaded with transformers"),
        ("config.json", {"hidden_act": "nothing"}, "cannot be loaded with transformers"),
        ("config.json", {"dtype": "x"}, "cannot be loaded with transformers"),
        ("config.json", {"vocab_size": 9}, "cannot be loaded"),
        ("tokenizer_config.json", {"tokenizer_class": "NoTokenizer"}, "transformers has no such tokenizer"),
        ("tokenizer_config.json", {"tokenizer_class": ["x"]}, "must be a text"),
        ("tokenizer_config.json", {"model_max_length": "x"}, "model_max_length=x"),
        ("tokenizer_config.json", {"split_special_tokens": "false"}, "must be true or false"),
        ("tokenizer_config.json", {"cls_token": 5}, "cls_token=5: must be a text or an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": []}, "added_tokens_decoder=[]: must be an object"),
        ("config_sentence_transformers.json", {"activation_fn": 5}, "activation_fn=5: must be a text"),
        ("config_sentence_transformers.json", {"prompts": []}, "prompts=[]: must be an object"),
        ("distill.json", {"first_stage_score": 5}, "first_stage_score=5: must be a text"),
        ("distill.json", {"interpolation": []}, "interpolation=[]: must be an object"),
        ("distill.json", {"query_length": None}, "query_length=null: must be a whole number"),
        ("tokenizer.json", {"model": {"type": "WordLevel", "vocab": {}}}, "cannot be loaded"),
        ("tokenizer.json", {"model": []}, "model=[]: must be an object"),
        (
            "tokenizer.json",
            {"model": {"type": "WordLevel", "vocab": {"bee": 10**6}, "unk_token": "bee"}},
            "do not belong together",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_a_wrong_type_is_refused_with_its_key(case, name, changes, reason):
    if isinstance(changes, list) or not changes:
        (case / name).write_text(json.dumps(changes))
    else:
        change(case / name, **changes)
    if reason is None:  # what it was made for is not read
        CrossEncoder.from_pretrained(str(case))
    else:
        assert reason in refusal(case)


@pytest.mark.parametrize("name", ["model.safetensors", "2_Dense/model.safetensors"])
@pytest.mark.parametrize("how", ["cut", "empty", "missing", "header", "a directory"])
def test_damaged_weights_are_refused_with_their_file(case, name, how):
    file = case / name
    content = file.read_bytes()
    file.unlink()
    if how == "a directory":
        file.mkdir()
    elif how != "missing":
        file.write_bytes({"cut": content[:-4], "empty": b"", "header": b"\xff" * 8 + content[8:]}[how])
    message = refusal(case)
    if how in ("cut", "empty", "header"):
        assert f"{file}: is damaged" in message and "copy the file again" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json", "2_Dense/config.json"])
def test_a_missing_file_is_refused(case, name):
    (case / name).unlink()
    refusal(case)


def test_a_good_directory_gives_the_scores_that_it_gave(model, case):
    expected = scores_of(CrossEncoder.from_pretrained(str(model)))
    change(case / "config.json", attn_implementation="eager", auto_map={})
    change(case / "tokenizer_config.json", unknown=[1])
    torch.testing.assert_close(scores_of(CrossEncoder.from_pretrained(str(case))), expected, rtol=0, atol=0)


def test_a_tokenizer_class_is_known_with_and_without_fast(tmp_path):
    make_classifier(tmp_path, "bert", 1)
    for name in ("PreTrainedTokenizerFast", "TokenizersBackend", None):
        change(tmp_path / "tokenizer_config.json", tokenizer_class=name)
        CrossEncoder.from_pretrained(str(tmp_path))


@pytest.mark.parametrize("name", ["cls_token", "mask_token"])
def test_a_control_token_without_an_embedding_is_read_as_text(tmp_path, name):
    make_classifier(tmp_path, "roberta", 2)
    passages = ["rain [SEP] snow", "rain snow"]
    expected = CrossEncoder.from_pretrained(str(tmp_path)).rank("a bee", passages)
    change(tmp_path / "tokenizer_config.json", **{name: "[SEP]"})  # no word of this vocabulary: its id is beyond it
    assert CrossEncoder.from_pretrained(str(tmp_path)).rank("a bee", passages) == expected


def test_the_fuzz_finds_nothing_in_a_few_directories():
    counts = fuzz_models.main(num_cases=25, seed=0, children=False)
    assert counts.total() == 25 and not [name for name in counts if "FAILED" in name]
    assert sum(number for name, number in counts.items() if name.endswith("refused")) >= 5
