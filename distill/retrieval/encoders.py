"""Retrieval with a dense or sparse encoder of sentence-transformers, by comparing every query with every passage.

    run = encoder_run("passages.tsv", queries, 100, "naver/splade-v3-distilbert", "sparse", 64, device)

Passages are encoded a block at a time and only each query's best are kept, so memory does not grow with the collection.
Nothing else here needs sentence-transformers. Q queries, N passages of a block, k passages kept.
"""

import itertools

import torch
from torch import Tensor

from distill.errors import InputError
from distill.progress import Progress
from distill.sources.fields import USUAL, Fields
from distill.sources.run_files import RankedList, Run
from distill.sources.texts import Texts, iterate_texts, refuse_duplicates

BLOCK = 4096  # passages encoded and compared at once


@torch.inference_mode()
def encoder_run(
    source: str,
    queries: Texts,
    depth: int,
    name: str,
    kind: str,
    batch_size: int,
    device: torch.device,
    fields: Fields = USUAL,
) -> Run:
    """Return the `depth` best passages of a source for each query, by the encoder's own similarity.

    kind: "dense" or "sparse". Passages of equal score keep the order of the source. Raises InputError where
    sentence-transformers or the encoder cannot be loaded, for a similarity that is not finite, and for whatever is
    wrong with the source.
    """
    refuse_duplicates(source, "passages", fields)  # first, since encoding takes hours
    encoder = _load(name, kind, device)
    options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_tensor": True}
    encoded_queries = encoder.encode_query(list(queries.values()), **options)
    best = torch.zeros(len(queries), 0)  # [Q, k] scores, descending
    rows = torch.zeros(len(queries), 0, dtype=torch.long)  # [Q, k] passages
    doc_ids: list[str] = []
    passages = iterate_texts(source, "passages", fields)
    with Progress(desc=f"encoding {source}", unit=" passages") as bar:
        while block := list(itertools.islice(passages, BLOCK)):
            encoded_passages = encoder.encode_document([text for _, text in block], **options)
            scores = encoder.similarity(encoded_queries, encoded_passages).float().cpu()  # [Q, N]
            places = torch.arange(len(doc_ids), len(doc_ids) + len(block)).expand_as(scores)
            _check_finite(scores, list(queries), [doc_id for doc_id, _ in block], name)
            best, rows = _keep(torch.cat([best, scores], 1), torch.cat([rows, places], 1), depth)
            doc_ids += [doc_id for doc_id, _ in block]
            bar.update(len(block))
    if not doc_ids:
        raise InputError(f"{source}: holds no passages: expected lines of `id<TAB>text` or JSON objects")
    return {
        query_id: RankedList.in_order([doc_ids[row] for row in kept], values.double().numpy())
        for query_id, values, kept in zip(queries, best, rows.tolist(), strict=True)
    }


def _load(name: str, kind: str, device: torch.device):
    try:
        from sentence_transformers import SentenceTransformer, SparseEncoder
    except ModuleNotFoundError:
        raise InputError(
            f"method={kind}: sentence-transformers is not installed: pip install sentence-transformers, or method=bm25"
        ) from None
    try:
        return (SentenceTransformer if kind == "dense" else SparseEncoder)(
            name, device=str(device), trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model={name}: cannot be loaded as a {kind} encoder ({reason})") from None


def _check_finite(scores: Tensor, query_ids: list[str], doc_ids: list[str], name: str) -> None:
    """Raise InputError for the first score [Q, N] that is not finite."""
    bad = (~scores.isfinite()).nonzero()[:1].tolist()
    if bad:
        query, passage = bad[0]
        raise InputError(
            f"model={name}: query {query_ids[query]} and passage {doc_ids[passage]} have a similarity of "
            f"{scores[query, passage].item()}: the encoder's weights are damaged: use another"
        )


def _keep(scores: Tensor, rows: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :depth]
    return scores.gather(1, order), rows.gather(1, order)
