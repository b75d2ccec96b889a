"""Fixtures: tiny real encoders of every family, a small collection in files, and a way to compose a configuration."""

import os
from pathlib import Path

# Tiny tensors: a second thread costs more than it brings, and much more on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `python -m distill ...` in other directories
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)

import pytest
import torch

# Where there is no GPU, Triton interprets its kernels; it reads this when they are defined
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from hypothesis import settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

settings.register_profile("distill", deadline=None)  # of an example: a busy machine misses any
settings.load_profile("distill")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
FAMILIES = ["bert", "electra", "roberta", "modernbert", "deberta-v2"]
WORDS = "a bee finds its home by the sun and so does an ant but trains follow rails of iron through rain snow".split()
SPECIALS = {"roberta": ("<s>", "</s>", "<pad>", "<unk>", "<mask>")}
BERT_SPECIALS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


@pytest.fixture
def shared() -> Path:
    """The folder of real test collections beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs the test collections beside the repository (../shared)")
    return SHARED


def compose_config(name: str, *overrides: str):
    """Compose conf/NAME.yaml with command-line overrides, as the entry points do."""
    from hydra import compose, initialize_config_dir  # here: tests/gpu runs where there is no Hydra

    from distill.config.composition import register_schemas

    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def decoded_lists(cfg) -> list:
    """Read the training lists, with the ids of their queries and passages back in place of the rows."""
    from distill.data.lists import read_lists
    from distill.data.teacher_lists import TeacherList
    from distill.models.parts import load_tokenizer

    lists = read_lists(cfg, load_tokenizer(cfg.backbone.name))
    decoded = []
    for index in range(len(lists)):
        rows, targets = lists[index]
        doc_ids = [lists.passages.text_id(row) for row in rows]
        decoded.append(TeacherList(lists.query_id(index), doc_ids, targets))
    return decoded


def as_tuples(lists) -> list[tuple]:
    """What two equal lists agree in."""
    return [(one.query_id, one.doc_ids, one.target.tolist()) for one in lists]


def make_backbone(directory: Path, family: str = "bert", seed: int = 0, words: list[str] = WORDS) -> Path:
    """Write a two-layer encoder with a word-level tokenizer, as Hugging Face directories are."""
    cls, sep, pad, unk, mask = SPECIALS.get(family, BERT_SPECIALS)
    vocabulary = {word: index for index, word in enumerate([pad, unk, cls, sep, mask, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = f"{cls} $A {sep} {sep} $B {sep}" if family == "roberta" else f"{cls} $A {sep} $B:1 {sep}:1"
    specials = [(cls, vocabulary[cls]), (sep, vocabulary[sep])]
    tokenizer.post_processor = processors.TemplateProcessing(f"{cls} $A {sep}", pair, specials)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, mask_token=mask
    )
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": vocabulary[pad]}
    if family == "modernbert":
        sizes |= {"local_attention": 8, "global_attn_every_n_layers": 2}
        sizes |= {name: vocabulary[token] for name, token in (("cls_token_id", cls), ("sep_token_id", sep))}
        sizes |= {"bos_token_id": vocabulary[cls], "eos_token_id": vocabulary[sep]}
    if family == "electra":
        sizes |= {"embedding_size": 8}
    if family == "distilbert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # the usual 0.02 makes all scores nearly equal
    model.save_pretrained(directory)
    wrapped.save_pretrained(directory)
    return directory


def make_language_model(directory: Path, words: list[str] = WORDS) -> Path:
    """Write a two-layer causal language model with random weights and a word-level tokenizer."""
    make_backbone(directory, words=words)
    torch.manual_seed(0)
    size = len(AutoTokenizer.from_pretrained(directory))
    config = AutoConfig.for_model("llama", vocab_size=size, hidden_size=16, num_hidden_layers=2,
                                  num_attention_heads=2, intermediate_size=32, pad_token_id=0)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


@pytest.fixture
def device() -> torch.device:
    """Where kernels run: a GPU if there is one, else the interpreter on the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory) -> Path:
    """A tiny BERT directory."""
    return make_backbone(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def collection(tmp_path) -> dict[str, Path]:
    """Six queries with lists of ten, in files: passages, queries, first-stage run, teacher run, qrels."""
    generator = torch.Generator().manual_seed(0)

    def text(length: int) -> str:
        return " ".join(WORDS[index] for index in torch.randint(len(WORDS), (length,), generator=generator).tolist())

    paths = {name: tmp_path / f"{name}.txt" for name in ("first_stage", "teacher", "qrels")}
    paths |= {name: tmp_path / f"{name}.tsv" for name in ("passages", "queries")}
    paths["passages"].write_text("".join(f"d{i}\t{text(3 + i % 9)}\n" for i in range(30)))
    paths["queries"].write_text("".join(f"q{i}\t{text(2 + i % 3)}\n" for i in range(6)))
    lines = {name: [] for name in ("first_stage", "teacher", "qrels")}
    for query in range(6):
        doc_ids = torch.randperm(30, generator=generator)[:10].tolist()
        for name in ("first_stage", "teacher"):
            for rank, doc_id in enumerate(doc_ids, start=1):
                lines[name].append(f"q{query} Q0 d{doc_id} {rank} {20 - rank} {name}")
            doc_ids = sorted(doc_ids, key=lambda doc_id: (doc_id * 7) % 30)  # the teacher's taste
        lines["qrels"] += [f"q{query} 0 d{doc_id} {2 - place}" for place, doc_id in enumerate(doc_ids[:3])]
    for name, rows in lines.items():
        paths[name].write_text("\n".join(rows) + "\n")
    return paths


@pytest.fixture
def file_overrides(collection, backbone) -> list[str]:
    """Overrides that train on the small collection and validate and test on it, too."""
    task = ["passages", "queries", "qrels"]
    return [
        "backbone=hf",
        f"backbone.name={backbone}",
        "backbone.lr=1e-3",
        "data=files",
        f"data.passages={collection['passages']}",
        f"data.queries={collection['queries']}",
        "teacher=run",
        f"teacher.path={collection['teacher']}",
        f"teacher.first_stage={collection['first_stage']}",
        "teacher.scores=true",
        f"teacher.qrels={collection['qrels']}",
        "model.passage_length=16",
        "model.query_length=8",
        "train.batch_size=2",
        "train.max_epochs=null",
        "train.max_steps=6",
        "train.validate_every=2",
        "train.log_every=1",
        "optimizer.warmup=2",
        *(f"{key}.{name}={collection[name]}" for key in ("validation", "task") for name in task),
        *(f"{key}.run={collection['first_stage']}" for key in ("validation", "task")),
    ]
