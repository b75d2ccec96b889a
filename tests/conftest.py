"""Fixtures: tiny real encoders of every family, a small collection in files, and a way to compose a configuration."""

import gc
import os
from pathlib import Path

gc.disable()  # until the tests begin: a million objects of imports would be looked through again and again

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

from tests.helpers.backbones import WORDS, make_backbone
from tests.helpers.paths import SHARED

settings.register_profile("distill", deadline=None)  # of an example: a busy machine misses any
settings.load_profile("distill")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int | None:
    """For `-n auto`, return one and a half times as many workers as cores: tests wait for the commands they start."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or config.option.numprocesses != "auto":
        return None  # xdist's own number
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def pytest_collection_modifyitems(items: list) -> None:
    """Start the slow tests first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not among what was imported: a seventh of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    """Let imports be garbage again: libraries would otherwise report leaks at the end."""
    gc.unfreeze()


@pytest.fixture
def shared() -> Path:
    """The folder of real test collections beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs the test collections beside the repository (../shared)")
    return SHARED


@pytest.fixture
def in_process(monkeypatch) -> None:
    """Tokenise in this process: another one takes a second to start."""
    import distill.data.token_store

    def encode(chunks, *arguments):
        encoder = distill.data.token_store.Encoder(*arguments)
        return (encoder(chunk) for chunk in chunks)

    monkeypatch.setattr(distill.data.token_store, "_encode_in_processes", encode)


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


@pytest.fixture
def serve():
    """Start chat endpoints, which end with the test."""
    from tests.helpers.chat_server import Server

    servers = []

    def start(**options) -> Server:
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for one in servers:
        one.closing.set()
        one.server.shutdown()
