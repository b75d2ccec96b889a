"""The way from a corpus to a verdict, stage after stage in one process; benchmarks/own_corpus.py has the long one."""

import json
import random

import pytest
from omegaconf import OmegaConf

from distill.commands import annotate, generate, judge
from distill.commands.cut import cut
from distill.commands.retrieve import retrieve
from distill.commands.split import split
from distill.commands.verdict import give_verdict
from evaluate import evaluate
from tests.helpers.backbones import WORDS
from tests.helpers.chat_server import GUARD
from tests.helpers.configuration import compose_config
from tests.helpers.training import run_train


class Recipe:
    """The stages of recipes/own-corpus.sh, each with the keys that it gives, below one directory."""

    def __init__(self, corpus, out, backbone, server):
        self.corpus, self.out, self.backbone = corpus, out, backbone
        llm = {"base_url": server.url, "model": "stand-in", "concurrency": 2, "timeout": GUARD, "retries": 1}
        self.llm = [*(f"teacher.llm.{key}={value}" for key, value in llm.items()), "journal=none"]
        self.passages = f"passages={out}/passages.jsonl"

    def run(self, command, name: str, place: str, *overrides: str):
        """Run a command that has a directory of its own."""
        cfg = compose_config(name, *overrides)
        OmegaConf.resolve(cfg.teacher)
        command.check(cfg)
        (self.out / place).mkdir(parents=True, exist_ok=True)
        return getattr(command, name)(cfg, self.out / place)

    def find_queries(self) -> dict[str, int]:
        """Cut, generate, split, retrieve."""
        fields = ["text_fields=[title,body]", "id_field=sku", "size=40", "overlap=10"]
        cut(compose_config("cut", f"passages={self.corpus}", f"output={self.out}/passages.jsonl", *fields))
        few = ["num_queries=30", "types=[keyword]", "min_words=5", "max_similarity=1"]
        self.run(generate, "generate", "queries", self.passages, *few, *self.llm)
        queries, origins = f"queries={self.out}/queries/queries.tsv", f"origins={self.out}/queries/origins.txt"
        counts = split(compose_config("split", queries, origins, f"output={self.out}/split", "min_heldout=8"))
        for part in ("train", "heldout"):
            texts = f"queries={self.out}/split/{part}.tsv"
            retrieve(compose_config("retrieve", self.passages, texts, "depth=8", f"output={self.out}/{part}.run"))
        return counts

    def rank(self, part: str, place: str, *more: str) -> dict[str, float]:
        """Annotate."""
        lists = [f"queries={self.out}/split/{part}.tsv", f"run={self.out}/{part}.run", "depth=8"]
        return self.run(annotate, "annotate", place, self.passages, *lists, *self.llm, *more)

    def train(self) -> dict[str, float]:
        """Train, as experiment=own-corpus does, with a few short steps."""
        given = [f"data.{self.passages}", f"data.queries={self.out}/split/train.tsv", "data.depth=null"]
        given += [f"teacher.path={self.out}/teacher/teacher.run", f"teacher.first_stage={self.out}/train.run"]
        small = ["model.passage_length=16", "model.query_length=8", "train.max_steps=6", "train.log_every=1"]
        start = ["experiment=own-corpus", "backbone=hf", f"backbone.name={self.backbone}"]
        return run_train(self.out / "student", *start, *given, *small)

    def judge(self) -> dict[str, float]:
        """Let an LLM grade the top of all rankings of the held-out queries."""
        rankings = f"runs=[{self.out}/heldout.run,{self.out}/heldout/run.txt,{self.out}/teacher-heldout/teacher.run]"
        pool = [f"queries={self.out}/split/heldout.tsv", rankings, "depth=8", f"annotation={self.out}/teacher"]
        return self.run(judge, "judge", "judge", self.passages, *pool, *self.llm)

    def evaluate(self, place: str, *more: str) -> dict[str, float]:
        """Compare with the teacher on the held-out queries."""
        given = [
            f"task.{self.passages}",
            f"task.queries={self.out}/split/heldout.tsv",
            f"task.run={self.out}/heldout.run",
        ]
        teacher = f"task.teacher={self.out}/teacher-heldout/teacher.run"
        (self.out / place).mkdir()
        model = f"model={self.out}/student/model"
        return evaluate(compose_config("evaluate", model, "task=files", *given, teacher, *more), self.out / place)


@pytest.fixture
def corpus(tmp_path):
    """Sixty articles with a title and a body, made of words that the test's encoder knows."""
    rng, path = random.Random(0), tmp_path / "articles.jsonl"
    rows = [
        {"sku": f"a{number}", "title": " ".join(rng.sample(WORDS, 2)), "body": " ".join(rng.choices(WORDS, k=12))}
        for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_way_from_a_corpus_to_a_verdict(corpus, backbone, serve, tmp_path, in_process, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    recipe = Recipe(corpus, out, backbone, serve())
    counts = recipe.find_queries()
    assert counts["heldout"] >= 8 and counts["train"] + counts["heldout"] == counts["queries"] >= 25
    assert (
        recipe.rank("train", "noise", "num_queries=5", "shuffles=2")["tau/shuffles"] == 1
    )  # the stand-in has its taste
    recipe.rank("train", "teacher")
    recipe.rank("heldout", "teacher-heldout")
    trained = recipe.train()
    assert (trained["train/lists"], trained["train/steps"]) == (counts["train"], 6)
    agreed = recipe.evaluate("heldout")
    found = give_verdict(compose_config("verdict", f"runs={out}"))
    student, first = (agreed[f"agreement/{row}/files/nDCG@10"] for row in ("student", "first_stage"))
    assert found["difference"] == pytest.approx(student - first) and found["queries"] == counts["heldout"]
    assert found["by"] == "agreement" and not found["better"]
    assert found["reasons"][0]["name"] == "few-queries"  # a planted failure
    assert found["reasons"][0]["text"].startswith(f"{counts['train']} training queries are too few: ")

    # The same by judgments, which are an LLM's
    assert recipe.judge()["judgments"] > counts["heldout"]
    judged = recipe.evaluate("judged", f"task.qrels={out}/judge/qrels.txt")
    found = give_verdict(compose_config("verdict", f"runs={out}"))
    assert found["by"] == "judgments by stand-in, which is also the teacher"
    student, first = (judged[f"{row}/files/nDCG@10"] for row in ("test", "first_stage"))
    assert found["difference"] == pytest.approx(student - first)
    assert found["reasons"][0]["name"] == "few-queries"

    # Another: a teacher that ranks passages by the place where they are shown
    noisy = Recipe(corpus, out, backbone, serve(script=["as shown"] * 1000))
    assert noisy.rank("train", "noise-2", "num_queries=5", "shuffles=2")["tau/shuffles"] == -1
    found = give_verdict(compose_config("verdict", f"runs={out}"))
    assert not found["better"] and found["reasons"][0]["name"] == "teacher-noise"
    assert "run=" in found["reasons"][0]["commands"][0] and "noise-2" in found["reasons"][0]["commands"][0]
