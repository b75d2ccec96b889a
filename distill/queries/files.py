"""The files of generated queries: queries.tsv, origins.txt, rejected.tsv, card.md and results.json.

results = write_queries(directory, cfg, corpus, generated, prompts)
"""

from datetime import UTC, datetime
from pathlib import Path

from omegaconf import DictConfig

from distill.evaluation.results import write_results
from distill.queries.generation import Corpus, Generated, max_requests
from distill.queries.prompt import QueryPrompt
from distill.secrets import for_others
from distill.storage.quoting import to_markdown
from distill.storage.writing import write_text
from distill.teachers.data_card import request_lines


def write_queries(
    directory: Path, cfg: DictConfig, corpus: Corpus, generated: Generated, prompts: dict[str, QueryPrompt]
) -> dict[str, float]:
    """Write all files, results.json last, and return its numbers."""
    write_rejected(directory, generated)
    kept = generated.kept()
    rows = [*corpus.logged.queries.items(), *((one.query_id, one.query) for one in kept)]
    write_text(directory / "origins.txt", "".join(f"{one.query_id} 0 {one.doc_id} 1\n" for one in kept))
    write_text(directory / "queries.tsv", "".join(f"{query_id}\t{query}\n" for query_id, query in rows))
    write_text(directory / "card.md", query_card(cfg, corpus, generated, prompts))
    results = results_of(cfg, corpus, generated, [*prompts])
    write_results(directory / "results.json", results)
    return results


def write_rejected(directory: Path, generated: Generated) -> None:
    """Write the queries that are not kept, with their passages and the reasons."""
    rejected = [one for one in generated.candidates if one.reason is not None]
    lines = [f"{one.query_id}\t{one.query}\t{one.doc_id}\t{one.reason}\n" for one in rejected]
    write_text(directory / "rejected.tsv", "".join(lines))


def results_of(cfg: DictConfig, corpus: Corpus, generated: Generated, kinds: list[str]) -> dict[str, float]:
    """Return how many queries there are, of each type and for each reason, and what they cost."""
    logged, sampled, totals = corpus.logged, corpus.sampled, generated.totals
    num_kept = len(generated.kept())
    results: dict[str, float] = {"queries": num_kept + len(logged.queries), "generated": num_kept}
    if cfg.logged is not None:
        results |= {"logged": len(logged.queries), "logged/empty": len(logged.empty)}
        results |= {"logged/repeated": len(logged.repeated)}
    if corpus.round_trip is None:
        return results
    for kind in kinds:
        counts = generated.counts(kind)
        results |= {f"asked/{kind}": counts.total(), f"kept/{kind}": counts.pop("kept", 0)}
        results |= {f"rejected/{kind}/{reason}": number for reason, number in sorted(counts.items())}
    results |= {"passages": sampled.num_passages, "passages/sampled": len(sampled.texts)}
    results |= {"passages/too-short": len(sampled.too_short), "passages/near-duplicate": len(sampled.near)}
    return results | totals.results(cfg.teacher.llm)


def query_card(cfg: DictConfig, corpus: Corpus, generated: Generated, prompts: dict[str, QueryPrompt]) -> str:
    """Return the text of card.md: where the queries come from, how they were checked, and what was rejected."""
    lines = ["# Data card", "", f"- made: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, by the generate command"]
    lines += [f"- queries: {len(generated.kept()) + len(corpus.logged.queries)}, written for {cfg.passages}"]
    if cfg.logged is not None:
        logged = corpus.logged
        lines += [f"- logged queries: {len(logged.queries)} of {cfg.logged}; empty: {len(logged.empty)}; "]
        lines[-1] += f"repetitions: {len(logged.repeated)}"
    if corpus.round_trip is not None:
        lines += _generated_lines(cfg, corpus, generated, prompts)
    return for_others("\n".join(to_markdown(line, with_code=True) for line in lines) + "\n")


def _generated_lines(
    cfg: DictConfig, corpus: Corpus, generated: Generated, prompts: dict[str, QueryPrompt]
) -> list[str]:
    llm, sampled, round_trip = cfg.teacher.llm, corpus.sampled, corpus.round_trip
    assert round_trip is not None
    lines = [f"- written by: {llm.model} ({llm.engine})"]
    lines += [f"- prompt for {kind}: {prompt.digest}" for kind, prompt in prompts.items()]
    lines += [
        f"- passages: a sample of {len(sampled.texts)} of {sampled.num_passages}, at most {max_requests(cfg)}, seed "
        f"{cfg.seed}, one of each article; shorter than {cfg.min_words} words: {len(sampled.too_short)}; near to "
        f"another: {len(sampled.near)}"
    ]
    bm25 = f"BM25 (stemmer {round_trip.bm25.stemmer}, stop words {round_trip.bm25.stop_words})"
    lines += ["- round trip: none" if round_trip.depth is None else f"- round trip: top {round_trip.depth} of {bm25}"]
    if round_trip.model is not None:
        lines[-1] += f", then top {round_trip.model_depth} of {round_trip.model}"
    lines += [f"- repetitions: queries with {cfg.max_similarity:g} of their words in common are kept once"]
    for kind in prompts:
        counts = generated.counts(kind)
        total, kept = counts.total(), counts.pop("kept", 0)
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts.most_common())
        lines += [f"- {kind}: {kept} of {total} kept" + (f"; rejected: {reasons}" if reasons else "")]
    if generated.totals.shortened:
        lines += [f"- passages cut further, since they were too long: {generated.totals.shortened}"]
    return [*lines, *request_lines(generated.totals, llm)]
