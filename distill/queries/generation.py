"""The steps of the generate command: sample passages, let an LLM write queries for them, keep those that pass.

    corpus = read_corpus(cfg, local)
    print(estimate(cfg, prompts, corpus))
    generated = generate(cfg, directory, prompts, corpus)

Queries are asked for in rounds, each of as many as are still missing of each type. What is kept depends only on the
answers and the seed: not on the order in which they arrive, nor on how often the command was stopped.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from distill.queries.answers import plain
from distill.queries.distinct import Distinct
from distill.queries.logged import Logged, read_logged
from distill.queries.prompt import QueryPrompt
from distill.queries.round_trip import RoundTrip
from distill.queries.sampling import Sampled, sample_passages
from distill.queries.writer import QueryWriter
from distill.retrieval.words import word_reader
from distill.sources.fields import Fields
from distill.sources.texts import iterate_texts
from distill.teachers.answer import num_tokens
from distill.teachers.asking import in_words
from distill.teachers.lengths import TOKENS_A_WORD
from distill.teachers.totals import Totals

log = logging.getLogger(__name__)

DUPLICATE, NEAR_DUPLICATE = "duplicate", "near-duplicate"
PASSAGES_A_QUERY = 3  # that are asked about at most, if max_passages is not set
Request = tuple[str, str]  # type and passage id


class Candidate(NamedTuple):
    """A query that an LLM has written, and why it is not kept; None if it is."""

    query_id: str
    kind: str
    doc_id: str
    query: str
    reason: str | None


@dataclass
class Corpus:
    """What queries are written from: sampled passages, logged queries, and the checks against the collection."""

    sampled: Sampled = field(default_factory=Sampled)
    logged: Logged = field(default_factory=Logged)
    round_trip: RoundTrip | None = None  # None: no query is written


@dataclass
class Generated:
    """All queries that were written, in the order of the requests, and the totals of the requests."""

    candidates: list[Candidate] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)

    def kept(self) -> list[Candidate]:
        """Return the queries that are kept."""
        return [one for one in self.candidates if one.reason is None]

    def counts(self, kind: str) -> Counter:
        """Return how often each reason rejected a query of a type; under "kept", how many were kept."""
        return Counter(one.reason or "kept" for one in self.candidates if one.kind == kind)


def max_requests(cfg: DictConfig) -> int:
    """Return how many passages are asked about at most."""
    return PASSAGES_A_QUERY * cfg.num_queries if cfg.max_passages is None else cfg.max_passages


def read_corpus(cfg: DictConfig, local: DictConfig) -> Corpus:
    """Read the log, if there is one, and sample passages, if queries are to be written; raises InputError.

    local: the configuration with local files.
    """
    logged = Logged() if cfg.logged is None else read_logged(local.logged, Fields.of(cfg, "queries"))
    if cfg.num_queries == 0:
        return Corpus(logged=logged)
    round_trip = RoundTrip.of(cfg, local)
    rows = iterate_texts(local.passages, "passages", round_trip.fields, unique=True)  # before anything is paid for
    sampled = sample_passages(rows, max_requests(cfg), cfg.seed, cfg.min_words, _distinct(cfg, round_trip))
    return Corpus(sampled, logged, round_trip)


def _distinct(cfg: DictConfig, round_trip: RoundTrip) -> Distinct:
    """Return an empty set of distinct texts, compared by the words that the first stage sees."""
    return Distinct(word_reader(round_trip.bm25.stemmer, round_trip.bm25.stop_words), cfg.max_similarity)


def estimate(cfg: DictConfig, prompts: dict[str, QueryPrompt], corpus: Corpus) -> str:
    """Return, in words, the requests and tokens that the queries will take, and their cost if prices are set."""
    plan, texts = Plan(cfg, [*prompts], [*corpus.sampled.texts]), corpus.sampled.texts
    rounds = [plan.next({}), plan.rest()]
    least, rest = ([(prompts[kind], texts[doc_id]) for kind, doc_id in requests] for requests in rounds)
    if not rest:
        return f"{cfg.num_queries} queries, {_price(cfg, least)}"
    return (
        f"{cfg.num_queries} queries, {_price(cfg, least)}, if all are kept; at most {_price(cfg, [*least, *rest])}, to "
        "replace those that are not"
    )


def _price(cfg: DictConfig, requests: list[tuple[QueryPrompt, str]]) -> str:
    llm = cfg.teacher.llm
    tokens_in = sum(num_tokens(prompt.fill(text)) for prompt, text in requests)
    tokens_out = sum(min(llm.max_tokens, round(prompt.max_query_words * TOKENS_A_WORD)) for prompt, _ in requests)
    cost = (tokens_in * llm.price_in + tokens_out * llm.price_out) / 1e6
    tokens = f"about {in_words(tokens_in)} tokens in and at most {in_words(tokens_out)} out"
    return f"{len(requests)} requests, {tokens}" + (f", cost {cost:.2f}" if cost else "")


class Plan:
    """Which passages are asked about, and for which type of query: none twice for the same type.

    Each type gets its share of the queries and of the requests. All passages are asked about once before any is asked
    about for another type.
    """

    def __init__(self, cfg: DictConfig, kinds: list[str], doc_ids: list[str]):
        """Take the types, and the passages in the order of the sample."""
        self.wanted, limits = shares(cfg.num_queries, kinds), shares(max_requests(cfg), kinds)
        self.queues = {
            kind: itertools.islice(_turns(doc_ids, kinds, place), limits[kind]) for place, kind in enumerate(kinds)
        }

    def next(self, kept: dict[str, int]) -> list[Request]:
        """Return the requests of a round, as many as queries are missing, the types in turn; kept: so far, by type."""
        missing = {kind: wanted - kept.get(kind, 0) for kind, wanted in self.wanted.items()}
        taken = [[*itertools.islice(self.queues[kind], number)] for kind, number in missing.items()]
        return [one for turn in itertools.zip_longest(*taken) for one in turn if one is not None]

    def rest(self) -> list[Request]:
        """Return all requests that are left."""
        return [one for queue in self.queues.values() for one in queue]


def _turns(doc_ids: list[str], kinds: list[str], number: int) -> Iterator[Request]:
    """Yield the passages that one of the types is for, turn after turn."""
    for turn in range(len(kinds)):
        for place, doc_id in enumerate(doc_ids):
            if (place + turn) % len(kinds) == number:
                yield kinds[number], doc_id


def shares(total: int, kinds: list[str]) -> dict[str, int]:
    """Return a number's share for each type; the first ones get one more where it cannot be divided."""
    return {kind: total // len(kinds) + (place < total % len(kinds)) for place, kind in enumerate(kinds)}


def generate(cfg: DictConfig, directory: Path, prompts: dict[str, QueryPrompt], corpus: Corpus) -> Generated:
    """Let an LLM write queries until enough are kept, or no passage is left; raises InputError like QueryWriter."""
    generated = Generated()
    if corpus.round_trip is None:
        return generated
    plan, kept = Plan(cfg, [*prompts], [*corpus.sampled.texts]), Counter[str]()
    chosen = Chosen(corpus, _distinct(cfg, corpus.round_trip))
    with QueryWriter(cfg, directory, prompts) as writer:
        while requests := plan.next(kept):
            written = writer.write([(kind, corpus.sampled.texts[doc_id]) for kind, doc_id in requests])
            candidates = [
                Candidate(chosen.new_id(), *request, *one) for request, one in zip(requests, written, strict=True)
            ]
            judged = chosen.judge(candidates)
            generated.candidates += judged
            kept.update(one.kind for one in judged if one.reason is None)
            log.info("%d of %d queries are kept", kept.total(), cfg.num_queries)
        generated.totals = writer.totals
    return generated


class Chosen:
    """The queries that are kept, logged ones among them, and whether another is worth keeping."""

    def __init__(self, corpus: Corpus, distinct: Distinct):
        """Begin with the logged queries."""
        assert corpus.round_trip is not None
        self.round_trip, self.distinct, self.logged = corpus.round_trip, distinct, corpus.logged.queries
        self.known: set[str] = set()
        self.numbers = itertools.count(1)
        for query_id, query in self.logged.items():
            self._add(query_id, query)

    def new_id(self) -> str:
        """Return the id of the next query that was written."""
        return next(name for number in self.numbers if (name := f"g{number}") not in self.logged)

    def judge(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return candidates with the reason why each is not kept, in their order; add those that are."""
        sound = [one for one in candidates if one.reason is None]
        faults = self.round_trip.faults(
            {one.query_id: one.query for one in sound}, {one.query_id: one.doc_id for one in sound}
        )
        judged = []
        for one in candidates:
            reason = one.reason or self._repeats(one.query) or faults[one.query_id]
            if reason is None:
                self._add(one.query_id, one.query)
            judged.append(one._replace(reason=reason))
        return judged

    def _repeats(self, query: str) -> str | None:
        if plain(query) in self.known:
            return DUPLICATE
        return NEAR_DUPLICATE if self.distinct.near(query) is not None else None

    def _add(self, query_id: str, query: str) -> None:
        self.known.add(plain(query))
        self.distinct.add(query_id, query)
