"""What all libraries in benchmarks/peers.py begin with: the same student, lists and test lists, in files.

    prepare(arguments, 0, directory)        # student/, student-lightning-ir/, lists.jsonl, test.jsonl, facts.json

The lists are those that train.py samples with the same configuration and seed, step by step. Texts are cut so that they
have only the tokens that our model reads of them: sentence-transformers would cut query and passage as one.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.composed import compose_config
from distill.config.overrides import as_override
from distill.errors import InputError

FOR_LIGHTNING_IR, REFUSED = "student-lightning-ir", "student-lightning-ir.txt"  # or why there is none
LIMITS = {"query": "query_length", "passage": "passage_length"}


def training_overrides(arguments, student: Path, seed: int, layout: str = "auto") -> list[str]:
    """Return the command line of train.py after its name."""
    overrides = ["backbone=hf", as_override("backbone.name", student), f"backbone.lr={arguments.lr}", "data=files"]
    overrides += [as_override(f"data.{name}", getattr(arguments, name)) for name in ("passages", "queries")]
    if arguments.loss == "lce":
        overrides += ["teacher=labels", as_override("teacher.first_stage", arguments.run)]
        overrides += [as_override("teacher.qrels", arguments.qrels), f"data.num_negatives={arguments.negatives}"]
    else:
        overrides += ["teacher=run", as_override("teacher.path", arguments.teacher), f"data.depth={arguments.depth}"]
        if arguments.run:
            overrides.append(as_override("teacher.first_stage", arguments.run))
    max_grad_norm = "null" if arguments.max_grad_norm is None else arguments.max_grad_norm
    return [
        *overrides,
        f"loss={arguments.loss}",
        f"model.query_length={arguments.query_length}",
        f"model.passage_length={arguments.passage_length}",
        f"model.layout={layout}",
        f"optimizer.head_lr={'null' if arguments.head_lr is None else arguments.head_lr}",
        f"optimizer.warmup={arguments.warmup}",
        f"optimizer.weight_decay={arguments.weight_decay}",
        f"optimizer.max_grad_norm={max_grad_norm}",
        f"train.batch_size={arguments.batch_size}",
        "train.max_epochs=null",
        f"train.max_steps={arguments.steps}",
        f"train.save_every={arguments.steps}",
        "train.log_every=1",
        f"train.precision={arguments.precision}",
        f"train.device={arguments.device}",
        f"seed={seed}",
    ]


def test_overrides(arguments) -> list[str]:
    """Return the part of evaluate.py's command line that names the test lists."""
    names = {"passages": "passages", "queries": "test_queries", "run": "test_run", "qrels": "test_qrels"}
    paths = [as_override(f"task.{key}", getattr(arguments, name)) for key, name in names.items()]
    return ["task=files", *paths, f"task.depth={arguments.test_depth}", f"task.measures=[{arguments.measures}]"]


def read_test(arguments, *, texts: bool = True):
    """Read the test lists and judgments."""
    from distill.evaluation.tasks import read_task

    return read_task(compose_config("evaluate", ["model=any", *test_overrides(arguments)]).task, texts=texts)


def prepare(arguments, seed: int, directory: Path) -> dict:
    """Write the student and the lists of a seed unless they are there, and return what is known of them."""
    facts = directory / "facts.json"
    if not facts.is_file():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        model = _write_student(arguments, seed, directory)
        train_cut, test_cut = TextCutter(model), TextCutter(model)
        known = _write_lines(directory / "lists.jsonl", training_lists(arguments, seed, directory, train_cut))
        known |= {"cuts_that_change_tokens": train_cut.num_changed}
        test = _write_lines(directory / "test.jsonl", test_lists(arguments, test_cut))
        test |= {"cuts_that_change_tokens": test_cut.num_changed}
        facts.write_text(json.dumps({"training": known, "test": test}))
    return json.loads(facts.read_text())


def _write_student(arguments, seed: int, directory: Path):
    from distill.export.formats import export
    from distill.models.cross_encoder import CrossEncoder

    torch.manual_seed(seed)
    lengths = {"query_length": arguments.query_length, "passage_length": arguments.passage_length}
    options = {"dropout": arguments.dropout, "num_layers": arguments.num_layers, "pooling": arguments.pooling}
    model = CrossEncoder.from_backbone(arguments.encoder, **lengths, **options)
    model.save_pretrained(directory / "student")
    try:
        export(model, directory / FOR_LIGHTNING_IR, "lightning-ir")
    except InputError as error:  # the others are compared without it
        (directory / REFUSED).write_text(str(error))
    return model


def training_lists(arguments, seed: int, directory: Path, cut: "TextCutter") -> Iterator[dict]:
    """Yield the lists of all steps, in train.py's order."""
    from distill.config.checks import check_train
    from distill.config.local_files import with_local_files
    from distill.data.lists import read_lists
    from distill.data.loader import BatchLoader
    from distill.data.pairs import PairTemplate
    from distill.models.parts import load_tokenizer
    from distill.sources.texts import read_passages, read_queries

    cfg = compose_config("train", training_overrides(arguments, directory / "student", seed))
    check_train(cfg)
    tokenizer = load_tokenizer(cfg.backbone.name)
    local = with_local_files(cfg)
    lists = read_lists(local, tokenizer)
    loader = BatchLoader(lists, PairTemplate.of(tokenizer), cfg)
    named = [
        (lists.query_id(index), [lists.passages.text_id(row) for row in rows], targets[cfg.loss.target])
        for step in range(arguments.steps)
        for index, rows, targets, _ in loader.samples(step)
    ]
    passages = read_passages(local.data.passages, {doc_id for _, doc_ids, _ in named for doc_id in doc_ids})
    queries = read_queries(local.data.queries)
    for query_id, doc_ids, target in named:
        yield _line(query_id, doc_ids, queries, passages, cut) | {"targets": target.tolist()}


def test_lists(arguments, cut: "TextCutter") -> Iterator[dict]:
    """Yield the lists to re-rank."""
    task = read_test(arguments)
    for query_id, ranked in task.run.items():
        yield _line(query_id, ranked.doc_ids, task.queries, task.passages, cut)


def _line(query_id: str, doc_ids: list[str], queries, passages, cut: "TextCutter") -> dict:
    texts = {"query": cut(queries[query_id], "query"), "passages": [cut(passages[each], "passage") for each in doc_ids]}
    return {"query_id": query_id, "doc_ids": doc_ids} | texts


def _write_lines(path: Path, lists: Iterator[dict]) -> dict:
    num_lists = num_pairs = 0
    with open(path, "w", encoding="utf-8") as file:
        for each in lists:
            num_lists, num_pairs = num_lists + 1, num_pairs + len(each["doc_ids"])
            file.write(json.dumps(each) + "\n")
    return {"lists": num_lists, "pairs": num_pairs}


class TextCutter:
    """Cuts texts behind the last token that a model reads of them.

    num_changed counts the cuts after which a text has other tokens: none with WordPiece, which is greedy from the left.
    """

    def __init__(self, model):
        """Take tokenizer and lengths from the model."""
        self.tokenizer = model.tokenizer
        self.limits = {kind: getattr(model, name) for kind, name in LIMITS.items()}
        self.num_changed = 0

    def __call__(self, text: str, kind: str) -> str:
        """Return the beginning of a query or passage."""
        limit = self.limits[kind]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if len(encoded["input_ids"]) <= limit:
            return text
        cut = text[: encoded["offset_mapping"][limit - 1][1]]
        again = self.tokenizer(cut, add_special_tokens=False, verbose=False)["input_ids"]
        self.num_changed += again != encoded["input_ids"][:limit]
        return cut
