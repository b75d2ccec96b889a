"""Ask an LLM to rank all lists: estimate the cost, choose the engine, keep the journal, respect max_cost.

estimate_requests(cfg, lists)                     # "50 queries, 450 requests, about 1.93 million tokens in and ..."
orders, flagged, totals = ask_llm(cfg, directory, lists)        # lists: {query id: (query, passages)}
"""

import logging
from pathlib import Path

from omegaconf import DictConfig

from distill.config.overrides import as_override
from distill.errors import InputError
from distill.progress import Progress
from distill.teachers.engines import HttpEngine, LocalEngine
from distill.teachers.journal import Journal
from distill.teachers.listwise import Totals, WindowRanker, Windows, estimate
from distill.teachers.prompt import read_prompt

log = logging.getLogger(__name__)

Lists = dict[str, tuple[str, list[str]]]  # query id -> query and passages, in the first stage's order


def estimate_requests(cfg: DictConfig, lists: Lists) -> str:
    """Return, in words, how many requests and tokens the lists will take, and their cost if prices are set."""
    llm = cfg.teacher.llm
    num_requests, tokens_in, tokens_out = estimate(lists, read_prompt(cfg.prompt, cfg.method), _windows(cfg))
    cost = (tokens_in * llm.price_in + tokens_out * llm.price_out) / 1e6
    tokens = f"about {_count(tokens_in)} tokens in and {_count(tokens_out)} out"
    return f"{len(lists)} queries, {num_requests} requests, {tokens}" + (f", cost {cost:.2f}" if cost else "")


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} million" if number >= 100_000 else f"{number:,}"


def _windows(cfg: DictConfig) -> Windows:
    return Windows(cfg.method, cfg.window, cfg.stride, cfg.passes)


def ask_llm(cfg: DictConfig, directory: Path, lists: Lists) -> tuple[dict[str, list[int]], dict[str, bool], Totals]:
    """Return the order of each list (places, best first), which lists are flagged, and the totals of all requests.

    No request is paid for twice: answers are kept in the journal, which a later call reads. Raises InputError if
    max_cost is reached.
    """
    llm, windows = cfg.teacher.llm, _windows(cfg)
    if llm.engine == "http":
        engine: HttpEngine | LocalEngine = HttpEngine(llm, cfg.method)
    else:
        from distill.device import choose_device  # imported here: an LLM over HTTP needs no torch

        engine = LocalEngine(llm, choose_device(llm.device), cfg.method)
    path = Path(cfg.journal) if cfg.journal else directory / "journal.jsonl"
    num_windows = sum(len(windows.of(len(passages))) for _, passages in lists.values())
    orders, flagged = {}, {}
    with Journal(path) as journal, Progress(total=num_windows, desc="annotating", unit="window") as bar:

        def spent(totals: Totals) -> float:
            return totals.cost(llm.price_in, llm.price_out)

        def show(totals: Totals) -> None:
            tokens = f"{totals.requests} requests, {_count(totals.tokens_in + totals.tokens_out)} tokens"
            bar.set_postfix_str(tokens + (f", cost {spent(totals):.2f}" if spent(totals) else ""), refresh=False)
            bar.update(totals.windows - bar.n)

        prompt = read_prompt(cfg.prompt, cfg.method)
        ranker = WindowRanker(engine, llm.model, journal, prompt, windows, cfg.tries, show)
        try:
            for query_id, order, is_flagged in ranker.rank(
                lists, allowed=lambda totals: llm.max_cost is None or spent(totals) < llm.max_cost
            ):
                orders[query_id], flagged[query_id] = order, is_flagged
        finally:
            engine.close()
    totals = ranker.totals
    totals.failures = engine.failures
    if len(orders) < len(lists):
        raise InputError(
            f"teacher.llm.max_cost={llm.max_cost}: reached after {len(orders)} of {len(lists)} queries, at "
            f"{spent(totals):.4f}: raise it and resume with {as_override('resume', directory)}"
        )
    log_totals(totals, len(lists))
    return orders, flagged, totals


def log_totals(totals: Totals, num_lists: int) -> None:
    """Log the totals, and warn about lists whose many equal scores leave them in the first stage's order."""
    log.info(
        "%d requests (%d answers were in the journal), %s tokens, %s",
        *(totals.requests, totals.journaled, _count(totals.tokens_in + totals.tokens_out)),
        ", ".join(f"{number} {kind}" for kind, number in totals.answers.items()),
    )
    if totals.tied:
        log.warning(
            "in %d of %d lists more than half of the passages share a score: those passages keep the first stage's "
            "order",
            *(totals.tied, num_lists),
        )
