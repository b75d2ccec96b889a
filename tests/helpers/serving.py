"""A server without a socket, and a model whose scores its passages say."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from starlette.testclient import TestClient
from torch import nn

from distill.config.command_schema import ServeConfig
from distill.serving.app import make_app
from distill.serving.scoring import Scorer
from distill.serving.service import Service
from tests.helpers.configuration import compose_config

RECORDED = Path(__file__).parent.parent / "recorded"


class SaidScores:
    """Takes the place of a Scorer: `score 1.5` has the score 1.5, and each word is a token."""

    max_tokens = 50
    first = None

    def __init__(self, before: Callable[[], object] = lambda: None):
        """before: is called before a batch is scored."""
        self.before = before
        self.model = SimpleNamespace(
            describe=lambda: "says its scores",
            max_length=9,
            activation=nn.Identity(),
            calibration=None,
            interpolation=None,
        )

    def encode(self, asked):
        """Return a token for each word, the last one with the score."""
        texts = zip(asked.queries, asked.passages, strict=True)
        return [(np.array([*map(len, query.split()), *map(as_score, text.split())]), None) for query, text in texts]

    def score(self, lists):
        """Return the last token of each pair; raises ValueError for a score of 666."""
        self.before()
        scores = [np.array([float(tokens[-1]) for tokens, _ in pairs]) for pairs in lists]
        if any(666 in values for values in scores):
            raise ValueError("the number of the beast")
        return scores

    def list_scorer(self, asked):
        """Return nothing: each pair has a score of its own."""

    check, rank, returned, interpolation = Scorer.check, Scorer.rank, Scorer.returned, Scorer.interpolation

    def describe(self):
        """Return nothing that /info would add."""
        return {}


def as_score(word: str) -> float:
    """Return what a word says, 0 for one that is no number."""
    try:
        return float(word)
    except ValueError:
        return 0.0


def settings(**changes) -> ServeConfig:
    """The configuration of conf/serve.yaml, with changes."""
    cfg = compose_config("serve", "model=DIR", "names=[bees]")
    values = {key: value for key, value in cfg.items() if key != "hydra"}
    return ServeConfig(**(values | {"names": ["bees"]} | changes))


@contextlib.contextmanager
def serving(scorer=None, key: str | None = None, *, wait: bool = True, load=None, **changes) -> Iterator[TestClient]:
    """A client of a server with this scorer, or with what `load` returns; wait: until that is loaded."""
    service = Service(settings(**changes), load or (lambda cfg: scorer or SaidScores()))
    with TestClient(make_app(service, key), raise_server_exceptions=False) as client:
        client.service = service
        if wait:
            service.loading.join()
        yield client


def recorded() -> list[dict]:
    """The requests and answers of tests/recorded/, each with its file's name."""
    files = sorted(RECORDED.glob("*.json"))
    return [pair | {"server": file.stem} for file in files for pair in json.loads(file.read_text(encoding="utf-8"))]


def wait_until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds; raises AssertionError if it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)
