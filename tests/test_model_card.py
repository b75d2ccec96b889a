"""Model cards: what the run says of itself, in a form that the Hub reads; and the use of each format."""

import pytest
from huggingface_hub import ModelCard

from distill.export.model_card import exported_card, make_card, write_card
from tests.helpers.configuration import compose_config

RESULTS = {
    "first_stage/mine/nDCG@10": 0.3,
    "teacher/mine/nDCG@10": 0.7123,
    "untrained/mine/nDCG@10": 0.1,
    "test/mine/nDCG@10": 0.65432,
    "test/mine/RR@10": 0.5,
    "test/suite-arithmetic-mean/nDCG@10": 0.4,
    "val/nDCG@10": 0.6,
    "train/steps": 120,
    "train/seconds": 3.5,
}


def test_a_card_says_what_the_model_was_made_of():
    cfg = compose_config(
        "train", "backbone=electra-base", "data=msmarco", "teacher=rankzephyr-colbertv2", "loss=adrmse",
        "data.depth=50", "data.num_queries=1000", "licence=cc-by-nc-4.0", "optimizer.lr=3e-5",
    )  # fmt: skip
    card = ModelCard(make_card(cfg, RESULTS, "python train.py loss=adrmse data.depth=50"))
    assert card.data.license == "cc-by-nc-4.0"
    assert card.data.base_model == "google/electra-base-discriminator"
    assert card.data.pipeline_tag == "text-ranking" and card.data.library_name == "sentence-transformers"
    assert {"loss:adrmse", "teacher:rankzephyr-colbertv2"} <= set(card.data.tags)
    values = {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert values[("mine", "nDCG@10")] == 0.65432 and values[("suite-arithmetic-mean", "nDCG@10")] == 0.4
    for line in (
        "| Data | msmarco (msmarco-passage), 1000 queries |",
        "| Loss | adrmse, learning from rank |",
        "| Depth | 50 |",
        "| Steps | 120 of 32 lists, AdamW with lr 3e-05 |",
        "| mine | nDCG@10 | 0.3000 | 0.7123 | 0.6543 |",
        "| mine | RR@10 |  |  | 0.5000 |",
        "python train.py loss=adrmse data.depth=50",
        "MS MARCO's terms (non-commercial research). This model: cc-by-nc-4.0.",
        "- The teacher's rankings: Schlatt et al., Rank-DistiLLM",
    ):
        assert line in card.text, line


def test_paths_of_this_machine_do_not_reach_the_card(tmp_path):
    passages = tmp_path / "secret" / "passages.tsv"
    cfg = compose_config(
        "train", "data=files", "teacher=run", f"data.passages={passages}", "data.queries=q.tsv",
        f"teacher.path={tmp_path}/secret/t.run", "backbone=hf", f"backbone.name={tmp_path}",
    )  # fmt: skip
    card = make_card(cfg, {"train/steps": 1}, "python train.py")
    assert "secret" not in card and str(tmp_path) not in card
    assert "| Data | files (passages.tsv) |" in card and "| Teacher | run (t.run) |" in card
    assert "## Measured" not in card and "No licence was chosen" in card
    assert ModelCard(card).data.base_model is None


@pytest.mark.parametrize(
    ("target", "library", "line"),
    [
        ("lightning-ir", "lightning-ir", "CrossEncoderModule("),
        ("transformers", "transformers", "AutoModelForSequenceClassification.from_pretrained("),
        ("onnx", "onnx", "onnxruntime.InferenceSession("),
        ("onnx-int8", "onnx", "onnxruntime.InferenceSession("),
        ("sentence-transformers", "sentence-transformers", 'CrossEncoder("MODEL")'),
    ],
)
def test_an_exported_card_differs_in_its_use_alone(tmp_path, target, library, line):
    write_card(tmp_path, compose_config("train"), RESULTS, "python train.py")
    first, card = sections((tmp_path / "README.md").read_text()), sections(exported_card(tmp_path, target))
    expected = dict(first)
    expected["front"] = first["front"].replace("library_name: sentence-transformers", f"library_name: {library}")
    if target == "onnx-int8":
        expected["Measured"] = "In float32, before the model was made int8:\n\n" + first["Measured"]
    assert card | {"Use": ""} == expected | {"Use": ""} and line in card["Use"]
    assert ("cuts a long pair as a whole" in card["Use"]) == (target != "lightning-ir")


def sections(card: str) -> dict[str, str]:
    """The text below each heading of a card, and before the first one."""
    front, *rest = card.split("\n## ")
    titles = [text.partition("\n")[0] for text in rest]
    return {"front": front} | {title: text.partition("\n")[2].strip() for title, text in zip(titles, rest, strict=True)}


def test_a_model_without_a_card_is_exported_without(tmp_path):
    assert exported_card(tmp_path, "onnx") is None


def test_without_tasks_or_a_command_their_sections_are_left_out(tmp_path):
    write_card(tmp_path, compose_config("train"), {"train/steps": 5}, None)
    card = (tmp_path / "README.md").read_text()
    assert "| Steps | 5 of 16 lists" in card and "## Measured" not in card and "## Train it again" not in card


def test_a_second_stage_names_the_encoder_of_the_first(tmp_path):
    write_card(tmp_path, compose_config("train", "backbone=electra-base"), {"train/steps": 5}, None)
    cfg = compose_config("train", "backbone=hf", f"backbone.name={tmp_path}")
    card = ModelCard(make_card(cfg, {"train/steps": 5}, None))
    assert card.data.base_model == "google/electra-base-discriminator"
    assert "| Encoder | google/electra-base-discriminator as trained before, cls pooling" in card.text
    (tmp_path / "README.md").write_text("---\nbase_model: [a: b: c\n---\n")
    assert f"| Encoder | {tmp_path.name}, cls pooling" in make_card(cfg, {"train/steps": 5}, None)


@pytest.mark.parametrize("target", ["lightning-ir", "onnx-int8"])
def test_the_card_of_an_upload_loads_from_the_hub(tmp_path, target):
    write_card(tmp_path, compose_config("train"), RESULTS, None)
    card = exported_card(tmp_path, target, "owner/name")
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "MODEL" not in code and '"owner/name"' in code and "VERSION" not in code
    if target.startswith("onnx"):
        assert "# 1.14 or newer" in code and "# 1.23 or newer" in exported_card(tmp_path, target, opset=23)
    assert ("snapshot_download(" in code) == target.startswith("onnx")
