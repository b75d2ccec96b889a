"""Re-rankers of every form: trained with the head that they have, saved in their form, and opened by their library.

The table in docs/models.md names these forms, and a test compares the two.
"""

import json
import re

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.errors import InputError
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder
from distill.training.checkpoint import load_checkpoint
from distill.training.optim import make_optimizer, set_lr
from tests.helpers.backbones import WORDS, make_backbone, make_language_model
from tests.helpers.configuration import compose_config, resumed
from tests.helpers.models import make_classifier
from tests.helpers.paths import ROOT
from tests.test_decoders import RESUMED as DECODERS
from tests.test_opening_models import make_lightning_ir
from train import train

NATIVE = ["bert", "roberta", "xlm-roberta", "deberta-v2", "electra", "modernbert", "albert", "mpnet", "distilbert"]
FORMS = [*NATIVE, "classic", "modular", "ettin", "lightning-ir"]
PAIRS = [(" ".join(WORDS[:3]), " ".join(WORDS[start : start + size])) for start, size in ((0, 4), (2, 9), (5, 1))]
EXACT = {"rtol": 0, "atol": 0}
NEAR = {"rtol": 1e-5, "atol": 1e-5}
OPTIMIZER = OmegaConf.load(ROOT / "conf" / "optimizer" / "adamw.yaml")
OPTIMIZER.update(lr=1e-3, head_lr=1e-2, warmup=0, schedule="constant")


def make(form: str, path):
    """Write a re-ranker of the form, as its library does."""
    if form in NATIVE:
        make_classifier(path, form, 1)
    elif form == "lightning-ir":
        make_lightning_ir(path, linear_bias=True)
    else:
        _make_with_sentence_transformers(form, path)


def _make_with_sentence_transformers(form: str, path) -> None:
    library = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    if form == "classic":
        make_classifier(path.with_name("hf"), "bert", 1)
        theirs = library.CrossEncoder(str(path.with_name("hf")), activation_fn=nn.Sigmoid(), device="cpu")
    else:
        family, bias = ("modernbert", False) if form == "ettin" else ("bert", True)
        torch.manual_seed(1)
        norm = [LayerNorm(8)] if form == "ettin" else []
        inner = Dense(16, 8, bias=bias, activation_function=nn.GELU())
        last = Dense(8, 1, activation_function=nn.Identity(), module_output_name="scores")
        transformer = Transformer(str(make_backbone(path.with_name("encoder"), family)))
        modules = [transformer, Pooling(16, pooling_mode="cls"), inner, *norm, last]
        theirs = library.CrossEncoder(modules=modules, activation_fn=nn.Identity(), device="cpu")
        for module in modules[2:]:
            for parameter in module.parameters():
                nn.init.normal_(parameter)
    theirs.save_pretrained(str(path))


def theirs(form: str, path) -> torch.Tensor:
    """Score the pairs with the library that the form belongs to."""
    if form in NATIVE:
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
        tokenizer = AutoTokenizer.from_pretrained(path)
        with torch.no_grad():
            logits = [model(**tokenizer(*pair, return_tensors="pt")).logits for pair in PAIRS]
        return torch.cat(logits)[:, 0]
    if form == "lightning-ir" and not (path / "modules.json").is_file():
        return _by_hand(path)
    library = pytest.importorskip("sentence_transformers", minversion="6.2")
    return torch.from_numpy(library.CrossEncoder(str(path), device="cpu", local_files_only=True).predict(PAIRS))


@torch.no_grad()
def _by_hand(path) -> torch.Tensor:
    """Score with BERT and one linear layer: lightning-ir does not run with this version of transformers."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    weights = load_file(path / "model.safetensors")
    encoder = BertModel(BertConfig.from_pretrained(path)).eval()
    encoder.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("linear.")})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    states = [encoder(**tokenizer(*pair, return_tensors="pt")).last_hidden_state[:, 0] for pair in PAIRS]
    return (torch.cat(states) @ weights["linear.weight"].T + weights["linear.bias"])[:, 0]


def ours(model: CrossEncoder) -> torch.Tensor:
    return torch.from_numpy(model.predict(PAIRS))


def start(path, **options) -> CrossEncoder:
    return CrossEncoder.from_backbone(str(path), query_length=8, passage_length=20, **options).train()


def step(model: CrossEncoder, optimizer) -> dict[str, float]:
    """Train a step on one list, and return the largest gradient of each of the head's weights."""
    set_lr(optimizer, OPTIMIZER, 0, 10)
    batch = batch_of(model)
    (chunk,) = model.chunks(batch, 1000)
    scores = model(chunk)
    ((scores - torch.arange(float(len(scores)))) ** 2).sum().backward()
    head = {f"{name}.{key}": weight for name in ("projection", "head")
            for key, weight in model.get_submodule(name).named_parameters()}  # fmt: skip
    gradients = {name: weight.grad.abs().max().item() for name, weight in head.items()}
    optimizer.step()
    optimizer.zero_grad()
    return gradients


def batch_of(model: CrossEncoder):
    from distill.data.batch import make_batch

    return make_batch(["q"], [model.encode(*map(list, zip(*PAIRS, strict=True)))])


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_is_scored_trained_saved_opened_by_its_library_and_resumed(tmp_path, form):
    path, saved = tmp_path / "published", tmp_path / "saved"
    make(form, path)
    # 1. The score is that of its library
    torch.testing.assert_close(ours(CrossEncoder.from_pretrained(str(path))), theirs(form, path), **NEAR)

    # 2. A step of training changes all of the head, and starts from what was published
    torch.manual_seed(0)
    model = start(path, head="auto")
    published = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.testing.assert_close(ours(model), theirs(form, path), **NEAR)
    optimizer = make_optimizer(model, OPTIMIZER)
    assert all(step(model, optimizer).values())
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(one) for one in trained} == {id(one) for one in model.parameters() if one.requires_grad}
    head = {id(parameter) for name in ("head", "projection") for parameter in model.get_submodule(name).parameters()}
    peaks = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert {peaks[one] for one in head} == {1e-2} and {peaks[one] for one in peaks.keys() - head} == {1e-3}
    assert all(not torch.equal(model.state_dict()[name], published[name])
               for name in published if name.startswith(("head.", "projection.")))  # fmt: skip

    # 3. Saved in the form that it came in, it opens in its library, and here, with equal scores
    model.save_pretrained(saved)
    torch.testing.assert_close(theirs(form, saved), ours(model), **NEAR)
    again = CrossEncoder.from_pretrained(str(saved))
    torch.testing.assert_close(ours(again), ours(model), **EXACT)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert (again.query_length, again.passage_length) == (8, 20)
    if form != "lightning-ir":
        assert described(saved) == described(path)

    # 4. A checkpoint has all of it: what is resumed is what would have been, bit for bit
    checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
    torch.save(checkpoint, tmp_path / "last.pt")
    step(model, optimizer)
    resumed = start(path, head="auto")
    checkpoint = torch.load(tmp_path / "last.pt", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    optimizer = make_optimizer(resumed, OPTIMIZER)
    optimizer.load_state_dict(checkpoint["optimizer"])
    torch.set_rng_state(checkpoint["random"])
    step(resumed, optimizer)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def described(path) -> list:
    """What a directory says about its form: classes of its modules, with their sizes and activations."""
    config = json.loads((path / "config.json").read_text())
    file = path / "modules.json"
    modules = json.loads(file.read_text()) if file.is_file() else []
    rows = [] if modules[1:] else [config["architectures"], len(config.get("id2label", "a"))]
    modules = modules if modules[1:] else []
    for module in modules:
        inside = path / module["path"] / "config.json"
        settings = json.loads(inside.read_text()) if module["path"] else {}
        rows.append((module["type"], module["path"], settings.get("in_features"), settings.get("activation_function")))
    return rows


def test_two_labels_are_folded_into_their_log_odds_and_three_are_refused(tmp_path):
    model, tokenizer = make_classifier(tmp_path / "two", "roberta", 2)
    with torch.no_grad():
        logits = torch.cat([model(**tokenizer(*pair, return_tensors="pt")).logits for pair in PAIRS])
    folded = start(tmp_path / "two")
    torch.testing.assert_close(ours(folded), logits[:, 1] - logits[:, 0], **NEAR)
    folded.save_pretrained(tmp_path / "one")
    torch.testing.assert_close(theirs("roberta", tmp_path / "one"), ours(folded), **NEAR)
    opened = CrossEncoder.from_pretrained(str(tmp_path / "two"))  # only scored: the log-probability, also once saved
    opened.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(ours(CrossEncoder.from_pretrained(str(tmp_path / "saved"))), ours(opened), **EXACT)
    torch.testing.assert_close(ours(opened), logits.log_softmax(1)[:, 1], **NEAR)
    make_classifier(tmp_path / "three", "bert", 3)
    with pytest.raises(InputError, match="three: its head returns 3 scores: only one or two labels can be loaded"):
        start(tmp_path / "three")
    assert start(tmp_path / "three", head="linear").is_plain


def test_the_activation_of_a_score_is_kept_in_the_files_and_not_trained(tmp_path):
    make("classic", tmp_path / "st")
    model = start(tmp_path / "st")
    assert isinstance(model.activation, nn.Sigmoid)
    (chunk,) = model.eval().chunks(batch_of(model), 1000)
    probabilities = model(chunk)
    logits = model.train()(chunk)
    assert logits.min() < 0 and ((probabilities > 0) & (probabilities < 1)).all()
    torch.testing.assert_close(torch.sigmoid(start(tmp_path / "st", dropout=0.0)(chunk)), probabilities)
    model.save_pretrained(tmp_path / "again")
    assert isinstance(CrossEncoder.from_pretrained(str(tmp_path / "again")).activation, nn.Sigmoid)
    torch.testing.assert_close(theirs("classic", tmp_path / "again"), ours(model), **NEAR)


@pytest.mark.parametrize("family", NATIVE)
def test_a_new_native_head_opens_in_transformers(tmp_path, family):
    make_backbone(tmp_path / "encoder", family)
    torch.manual_seed(0)
    model = start(tmp_path / "encoder", head="native")
    optimizer = make_optimizer(model, OPTIMIZER)
    assert step(model, optimizer).keys() > {"head.weight", "head.bias"}  # layers before the last one, too
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(theirs(family, tmp_path / "saved"), ours(model), **NEAR)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification") and len(config["id2label"]) == 1
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.linear.Identity"}


def test_a_new_native_head_is_drawn_as_in_transformers_and_takes_the_pooler(tmp_path):
    make_backbone(tmp_path, "bert")
    pooler = load_file(tmp_path / "model.safetensors")["pooler.dense.weight"]
    torch.manual_seed(0)
    model = start(tmp_path, head="native")
    assert torch.equal(model.projection[0].weight, pooler)
    assert model.head.bias.abs().sum() == 0 and 0 < model.head.weight.abs().max() < 0.1
    torch.manual_seed(1)
    again = start(tmp_path, head="native")
    assert not torch.equal(again.head.weight, model.head.weight)
    torch.manual_seed(0)
    assert torch.equal(start(tmp_path, head="native").head.weight, model.head.weight)


def test_a_new_mlp_opens_in_sentence_transformers(tmp_path):
    make_backbone(tmp_path / "encoder", "modernbert")
    torch.manual_seed(0)
    model = start(tmp_path / "encoder", head="mlp", pooling="mean")
    assert all(step(model, make_optimizer(model, OPTIMIZER)).values())
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(theirs("modular", tmp_path / "saved"), ours(model), **NEAR)
    torch.testing.assert_close(ours(CrossEncoder.from_pretrained(str(tmp_path / "saved"))), ours(model), **EXACT)
    names = [row[0].rsplit(".", 1)[-1] for row in described(tmp_path / "saved")]
    assert names == ["Transformer", "Pooling", "Dense", "LayerNorm", "Dense"]


def test_what_is_kept_and_what_is_dropped_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    make("bert", tmp_path / "classifier")
    make_backbone(tmp_path / "encoder")
    for path, options, said in [
        ("classifier", {}, "pretrained weights, its own head, that of BertForSequenceClassification"),
        ("classifier", {"head": "linear"}, "its head is dropped, and a new one drawn; model.head=auto keeps it"),
        ("classifier", {"head": "native"}, "a new head, that of BertForSequenceClassification"),
        ("classifier", {"weights": "random"}, "its head is dropped"),
        ("encoder", {}, "pretrained weights, a new linear layer, since it has no head"),
        ("encoder", {"head": "mlp"}, "a new head, Linear, GELU, LayerNorm, Linear"),
    ]:
        caplog.clear()
        start(tmp_path / path, **options)
        assert said in caplog.text


def test_an_encoder_of_single_texts_has_no_head(tmp_path):
    library = pytest.importorskip("sentence_transformers", minversion="6.2")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules = [Transformer(str(make_backbone(tmp_path / "encoder"))), Pooling(16, pooling_mode="mean"), Dense(16, 4)]
    library.SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "st"))
    model = start(tmp_path / "st")
    assert model.is_plain and model.pooling == "cls"


def test_a_kept_head_keeps_its_pooling(tmp_path):
    make_backbone(tmp_path / "encoder", "modernbert")
    first = start(tmp_path / "encoder", head="native", pooling="mean")
    first.save_pretrained(tmp_path / "mean")
    second = start(tmp_path / "mean")
    assert second.pooling == "mean"
    torch.testing.assert_close(ours(second), ours(first), **EXACT)
    torch.testing.assert_close(theirs("modernbert", tmp_path / "mean"), ours(first), **NEAR)
    make("bert", tmp_path / "cls")
    with pytest.raises(InputError, match="model.pooling=mean: the head of .*cls reads the first token's state"):
        start(tmp_path / "cls", pooling="mean")
    with pytest.raises(InputError, match="model.pooling=mean: the head of transformers reads the first token's state"):
        start(tmp_path / "cls", head="native", pooling="mean")


@pytest.mark.parametrize("form", ["bert", "ettin"])
def test_first_layers_and_another_dropout_are_taken_with_the_head(tmp_path, form):
    make(form, tmp_path / "published")
    model = start(tmp_path / "published", num_layers=1, dropout=0.0)
    assert model.backbone.config.num_hidden_layers == 1
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} <= {0.0}
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(theirs(form, tmp_path / "saved"), ours(model), **NEAR)


def test_a_first_stage_score_needs_modules(tmp_path):
    make("bert", tmp_path)
    with pytest.raises(InputError, match="model.first_stage_score=min-max: other libraries would open"):
        start(tmp_path, first_stage_score="min-max")


def test_a_decoder_is_read_by_its_last_token_so_that_its_scores_differ(tmp_path):
    model = start(make_language_model(tmp_path / "llama"))
    assert model.pooling == "last" and len(set(ours(model).tolist())) == len(PAIRS)


@pytest.mark.parametrize("form", ["roberta", "ettin"])
def test_a_run_on_a_published_re_ranker_resumes_bit_for_bit(file_overrides, tmp_path, form):
    make(form, tmp_path / "published")
    options = [f"backbone.name={tmp_path / 'published'}", "optimizer.schedule=constant", "optimizer.head_lr=1e-2"]
    options += ["train.validate_every=2", "train.patience=null"]
    for name, steps in (("straight", 4), ("stopped", 2)):
        train(compose_config("train", *file_overrides, *options, f"train.max_steps={steps}"), tmp_path / name)
    train(resumed(tmp_path / "stopped", "train.max_steps=4"), tmp_path / "stopped")
    files = (tmp_path / name / "checkpoints" / "last.pt" for name in ("straight", "stopped"))
    straight, stopped = map(load_checkpoint, files)
    assert straight["model"].keys() == stopped["model"].keys() and any("projection" in key for key in straight["model"])
    assert all(torch.equal(weight, stopped["model"][name]) for name, weight in straight["model"].items())
    assert described(tmp_path / "stopped" / "model") == described(tmp_path / "published")
    card = (tmp_path / "stopped" / "model" / "README.md").read_text()
    assert {"roberta": ", the head of RobertaForSequenceClassification |", "ettin": ", cls pooling, Dense, LayerNorm, "
            "Dense |"}[form] in card  # fmt: skip


def test_a_run_of_before_there_were_heads_resumes_with_the_layer_that_it_had(file_overrides, tmp_path):
    make("bert", tmp_path / "published")
    options = [f"backbone.name={tmp_path / 'published'}", "train.max_steps=2", "train.patience=null"]
    train(compose_config("train", *file_overrides, *options, "model.head=linear"), tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("  head: linear\n", ""))
    cfg = resumed(tmp_path / "run", "train.max_steps=3")
    assert cfg.model.head == "linear"
    train(cfg, tmp_path / "run")
    file.write_text(file.read_text().replace("  head: linear\n", ""))
    with pytest.raises(InputError, match="model.head=auto: the run's checkpoint has another head: set model.head=lin"):
        train(resumed(tmp_path / "run", "train.max_steps=4", "model.head=auto"), tmp_path / "run")


def test_the_page_on_models_names_these_forms():
    page = (ROOT / "docs" / "models.md").read_text()
    trained = "(?:all of the head|its linear layer|the difference of its answers' rows)"
    rows = re.findall(rf"^\| .*\(`([\w-]+)`\).* \| equal \| {trained} \| .* \| bit for bit \|$", page, re.M)
    assert rows == [*FORMS, *DECODERS]


def test_exports_hold_the_head_or_are_refused(tmp_path):
    make("bert", tmp_path / "bert")
    make("ettin", tmp_path / "ettin")
    native, modules = (CrossEncoder.from_pretrained(str(tmp_path / form)) for form in ("bert", "ettin"))
    export(native, tmp_path / "transformers", "transformers")
    torch.testing.assert_close(theirs("bert", tmp_path / "transformers"), ours(native), **NEAR)
    export(modules, tmp_path / "modules", "sentence-transformers")
    torch.testing.assert_close(theirs("ettin", tmp_path / "modules"), ours(modules), **NEAR)
    for model, format in ((native, "lightning-ir"), (modules, "lightning-ir"), (modules, "transformers")):
        with pytest.raises(InputError, match=f"{format}: only an encoder with one linear layer.* can be exported"):
            export(model, tmp_path / "refused", format)
    assert not (tmp_path / "refused").exists()
