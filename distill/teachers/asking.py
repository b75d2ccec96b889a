"""Ask an LLM to rank all lists: estimate the cost, choose the engine, keep the journal, respect the limits.

estimate_requests(cfg, lists)                     # "50 queries, 450 requests, about 1.93 million tokens in and ..."
orders, flagged, totals = ask_llm(cfg, directory, lists)        # lists: {query id: (query, passages)}
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from omegaconf import DictConfig

from distill.config.overrides import as_override
from distill.progress import Progress
from distill.teachers.endpoint import HttpEngine
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows, estimate
from distill.teachers.orders import PackedOrders
from distill.teachers.prompt import read_prompt
from distill.teachers.shared_journal import SharedJournal, shared_path
from distill.teachers.sorting import SORTS, Sorting
from distill.teachers.totals import ENOUGH, Limits, Totals

log = logging.getLogger(__name__)

Lists = Mapping[str, tuple[str, list[str]]]  # query id -> query and passages, in the first stage's order


def estimate_requests(cfg: DictConfig, lists: Lists) -> str:
    """Return, in words, how many requests and tokens the lists will take, and their cost if prices are set."""
    llm = cfg.teacher.llm
    prompt = read_prompt(cfg.prompt, cfg.method)
    windows = windows_of(cfg)
    asked = ((query, texts) for query_id, first, query, texts in with_first(lists) if query_id == first)
    num_requests, tokens_in, tokens_out = estimate(asked, prompt, windows)
    if prompt.thinks:
        tokens_out = num_requests * llm.max_tokens
    at_most = "at most " if isinstance(windows, Sorting) and not windows.is_exact else ""
    requests = describe_requests(llm, num_requests, tokens_in, tokens_out, thinks=prompt.thinks)
    return f"{len(lists)} queries, {at_most}{requests}"


def describe_requests(llm: DictConfig, number: int, tokens_in: int, tokens_out: int, *, thinks: bool) -> str:
    """Return requests and tokens in words, and their cost if prices are set; thinks: tokens_out is the most."""
    cost = (tokens_in * llm.price_in + tokens_out * llm.price_out) / 1e6
    tokens = f"about {in_words(tokens_in)} tokens in and {'at most ' if thinks else ''}{in_words(tokens_out)} out"
    return f"{number} requests, {tokens}" + (f", cost {cost:.2f}" if cost else "")


def in_words(number: int) -> str:
    """Return a number of tokens as it is shown."""
    return f"{number / 1e6:.2f} million" if number >= 100_000 else f"{number:,}"


def windows_of(cfg: DictConfig) -> Windows | Sorting:
    """Return what goes into each request."""
    if cfg.method in SORTS:
        return Sorting.of(cfg)
    return Windows(cfg.method, cfg.window, cfg.stride, cfg.passes, cfg.shuffles)


def ask_llm(
    cfg: DictConfig, directory: Path, lists: Lists, *, is_finished: bool = False
) -> tuple[PackedOrders, dict[str, bool], Totals]:
    """Return the order of each list (places, best first), which lists are flagged, and the totals of all requests.

    No request is paid for twice: answers are kept in the journal, which a later call reads. is_finished: it has all
    of them, and nothing is requested. Raises InputError if max_cost is reached, and if too large a share of the windows
    gets no usable answer.
    """
    llm, windows = cfg.teacher.llm, windows_of(cfg)
    repeated, num_windows = dict[str, str](), 0
    for query_id, first, _, texts in with_first(lists):
        if query_id == first:
            num_windows += windows.num_windows(len(texts))
        else:
            repeated[query_id] = first
    engine = open_engine(llm, _answers_of(cfg))
    prompt = read_prompt(cfg.prompt, cfg.method)
    shared = open_shared(cfg, prompt.digest)
    orders, flagged = PackedOrders(), {}
    with (
        Journal(directory / "journal.jsonl") as journal,
        Progress(total=num_windows, desc="annotating", unit="window") as bar,
    ):
        limits = Limits(llm, cfg.max_unusable, num_windows)

        def show(totals: Totals) -> None:
            bar.set_postfix_str(totals.describe(limits.prices), refresh=False)
            bar.update(totals.windows - bar.n)

        if shared is not None:
            shared.add_missing(journal.answers)
        ranker = WindowRanker(
            engine, llm.model, journal, prompt, windows, cfg.tries, show, shared, is_finished=is_finished
        )
        try:
            for query_id, order, is_flagged, ranks in ranker.rank(lists, limits.allow, without=repeated):
                orders.add(query_id, order, ranks)
                flagged[query_id] = is_flagged
        finally:
            engine.close()
            if shared is not None:
                shared.close()
    totals, num_lists = ranker.totals, len(lists) - len(repeated)
    totals.failures, totals.adapted = engine.failures, engine.adapted
    log_totals(totals, llm, num_lists)
    is_whole = len(orders) == num_lists
    if is_whole:
        limits.num_windows = totals.windows  # a sorting may need fewer windows than it could
    limits.check_whole(
        totals,
        f"{totals.unanswered} of {totals.windows} windows got no usable answer, more than max_unusable="
        f"{cfg.max_unusable:g}; what came back: {totals.what_came_back()}",
        f"teacher.llm.max_cost={llm.max_cost}: reached after {len(orders)} of {num_lists} queries",
        as_override("resume", directory),
        is_whole=is_whole,
    )
    for query_id, first in repeated.items():
        orders.repeat(query_id, first)
        flagged[query_id] = flagged[first]
    return orders, flagged, totals


def with_first(lists: Lists) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield query id, id of the first query with the same text and passages, text and passages.

    Logged queries repeat themselves; requests for the same list at the same time would all be paid for.
    """
    first_with: dict[bytes, str] = {}
    for query_id, (query, texts) in lists.items():
        digest = hashlib.blake2b(json.dumps([query, texts]).encode(), digest_size=16).digest()
        yield query_id, first_with.setdefault(digest, query_id), query, texts


def open_shared(cfg: DictConfig, prompt: str) -> SharedJournal | None:
    """Open the journal that is shared with other runs, and say how many answers it has; prompt: its digest."""
    path = shared_path(cfg, prompt)
    if path is None:
        return None
    shared = SharedJournal(path)
    if shared.answers:
        log.info("%s has %d answers of earlier annotations, which cost nothing", path, len(shared.answers))
    return shared


def _answers_of(cfg: DictConfig) -> str:
    """Return the method by which the engine answers: letters of sortings are text, or first tokens."""
    if cfg.method in SORTS:
        return "first-token" if cfg.by_logprobs else "listwise"
    return cfg.method


def open_engine(llm: DictConfig, method: str):
    """Return what answers requests: an endpoint, or a model on this machine; method: "listwise" for text."""
    if llm.engine == "http":
        return HttpEngine(llm, method)
    from distill.device import choose_device  # imported here: an LLM over HTTP needs no torch
    from distill.teachers.local import LocalEngine

    return LocalEngine(llm, choose_device(llm.device), method)


def log_totals(totals: Totals, llm: DictConfig, num_lists: int) -> None:
    """Log the totals, and warn about lists of which most scores are equal."""
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(totals.answers.items()))
    log.info("%s; answers: %s", totals.describe(llm), kinds or "none")
    if totals.unanswered:
        log.warning(
            "%d of %d windows keep their order, since they got no usable answer; what came back: %s",
            *(totals.unanswered, totals.windows, totals.what_came_back()),
        )
    if totals.consistency.num_windows >= ENOUGH and totals.consistency.mostly_as_shown:
        log.warning(
            "%d of %d answers leave the passages in the order shown: a model that only repeats it ranks nothing",
            *(totals.consistency.num_as_shown, totals.consistency.num_windows),
        )
    if totals.tied:
        log.warning(
            "in %d of %d lists more than half of the passages share a score: those tie, which teaches no order",
            *(totals.tied, num_lists),
        )
