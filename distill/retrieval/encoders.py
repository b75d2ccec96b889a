"""Retrieval with a dense or sparse encoder of sentence-transformers, by comparing every query with every passage.

    run = encoder_run("passages.tsv", queries, 100, "naver/splade-v3-distilbert", "sparse", 64, device)
    run = encoder_run("passages.tsv", queries, 100, "BAAI/bge-small-en-v1.5", "dense", 64, device, vectors="float32")

    run = encoder_rerank("passages.tsv", queries, "bm25.run", 100, "BAAI/bge-small-en-v1.5", "dense", 64, device)

Passages are encoded a block at a time and only each query's best are kept, so memory does not grow with the collection.
The vectors of a dense encoder can be kept on disk (vectors.py), for later queries and for approximate search
(graphs.py). Nothing else here needs sentence-transformers. Q queries, N passages of a block, k passages kept.
"""

import hashlib
import itertools
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.device import choose_precision, half_precision, must_measure, num_weights, scoring_precision
from distill.errors import InputError
from distill.progress import Progress
from distill.retrieval.graphs import check_similarity, load_faiss, nearest
from distill.retrieval.vectors import BLOCK, Vectors, are_begun, open_vectors
from distill.sources.fields import USUAL, Fields
from distill.sources.run_files import RankedList, Run
from distill.sources.runs import read_run
from distill.sources.texts import (
    Texts,
    check_passages,
    iterate_texts,
    known_queries,
    read_passages,
    refuse_duplicates,
    warn_of_unknown,
)

log = logging.getLogger(__name__)

QUERIES = 8192  # compared with a block at once
WORDS = 128  # of a text with which precisions are compared
LOOKED_AT = 256  # texts in which unknown tokens are counted


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
    precision: str = "float32",
    *,
    vectors: str | None = None,
    index: str = "exact",
) -> Run:
    """Return the `depth` best passages of a source for each query, by the encoder's own similarity.

    kind: "dense" or "sparse". Passages of equal score keep the order of the source. vectors: "float32" or "float16",
    as which the passages' dense vectors are kept in the cache; None: they are not kept. index: "exact", or "hnsw" to
    compare a query only with the passages that faiss's graphs find, which needs vectors. precision: as in conf/; "auto"
    measures on a CPU, and keeps to the precision of vectors that are in the cache. Raises InputError where a
    library or the encoder cannot be loaded, for a similarity that is not finite, and for whatever is wrong with the
    source.
    """
    if index == "hnsw":
        load_faiss()
    refuse_duplicates(source, "passages", fields)  # first, since encoding takes hours
    encoder = _Encoder(name, kind, batch_size, device)
    encoder.choose_precision(precision, None if vectors is None or kind != "dense" else (source, fields, vectors))
    if index == "hnsw":
        check_similarity(encoder.model.similarity_fn_name)
    query_ids, encoded_queries = list(queries), encoder.encode(list(queries.values()), "query")
    id_of: Callable[[int], str]
    if vectors is None or kind != "dense":
        doc_ids: list[str] = []
        blocks, id_of = encoder.blocks(source, fields, doc_ids), doc_ids.__getitem__
    else:
        stored = encoder.stored(source, fields, vectors, query_ids, encoded_queries)
        if index == "hnsw":
            return _approximate_run(stored, encoder, query_ids, encoded_queries, depth)
        blocks, id_of = encoder.from_disk(stored, source), stored.id_of
    best, rows = _exact_search(blocks, id_of, encoder, query_ids, encoded_queries, depth)
    if not best.shape[1]:
        raise InputError(f"{source}: holds no passages: expected lines of `id<TAB>text` or JSON objects")
    return {
        query_id: RankedList.in_order([id_of(row) for row in kept], values.double().numpy())
        for query_id, values, kept in zip(query_ids, best, rows.tolist(), strict=True)
    }


def _exact_search(
    blocks: Iterator[Tensor],
    id_of: Callable[[int], str],
    encoder: "_Encoder",
    query_ids: list[str],
    encoded_queries: Tensor,
    depth: int,
) -> tuple[Tensor, Tensor]:
    """Return the scores of each query's best passages, descending, and their rows, [Q, k] each."""
    num_queries, first = len(query_ids), 0
    best, rows = torch.zeros(num_queries, 0), torch.zeros(num_queries, 0, dtype=torch.long)
    for block in blocks:
        kept = []
        for start in range(0, num_queries, QUERIES):
            some = slice(start, start + QUERIES)
            scores = encoder.similarity(_some(encoded_queries, some), block)  # [Q, N]
            _check_finite(scores, query_ids[some], first, id_of, encoder.name)
            kept.append(_with_block(best[some], rows[some], scores, first, depth))
        best, rows = (torch.cat(parts) for parts in zip(*kept, strict=True))
        first += len(block)
    return best, rows


def _some(queries: Tensor, some: slice) -> Tensor:
    """Return some rows of a matrix, which may be sparse; all of them as they are."""
    if len(queries) <= QUERIES:
        return queries
    return queries.index_select(0, torch.arange(*some.indices(len(queries)), device=queries.device))


def _with_block(best: Tensor, rows: Tensor, scores: Tensor, first: int, depth: int) -> tuple[Tensor, Tensor]:
    """Return the best of those kept, [Q, k], and of a block's passages, whose rows count from `first`."""
    places = torch.arange(first, first + scores.shape[1]).expand_as(scores)
    if best.shape[1] < depth:
        return _keep(torch.cat([best, scores], 1), torch.cat([rows, places], 1), depth)
    gains = (scores.amax(1) > best[:, -1]).nonzero()[:, 0]  # soon only a few queries; an equal score comes too late
    if len(gains):
        candidates = torch.cat([best[gains], scores[gains]], 1), torch.cat([rows[gains], places[gains]], 1)
        best[gains], rows[gains] = _keep(*candidates, depth)
    return best, rows


def _approximate_run(
    stored: Vectors, encoder: "_Encoder", query_ids: list[str], encoded_queries: Tensor, depth: int
) -> Run:
    """Return each query's best passages among those that graphs find; their scores are those of an exact search."""
    found = nearest(stored, encoded_queries.cpu().numpy(), depth, encoder.model.similarity_fn_name)
    run = {}
    for place, (query_id, rows) in enumerate(zip(query_ids, found, strict=True)):
        rows = np.sort(rows[rows >= 0])  # passages of equal score keep the order of the source
        passages = torch.from_numpy(stored.of(rows)).to(encoder.device)
        scores = encoder.similarity(encoded_queries[place][None], passages)  # [1, K]
        best = scores[0].argsort(descending=True, stable=True)[:depth]
        doc_ids = [stored.id_of(row) for row in rows[best.numpy()].tolist()]
        run[query_id] = RankedList.in_order(doc_ids, scores[0][best].double().numpy())
    return run


@torch.inference_mode()
def encoder_rerank(
    source: str,
    queries: Texts,
    run_file: str,
    depth: int,
    name: str,
    kind: str,
    batch_size: int,
    device: torch.device,
    fields: Fields = USUAL,
    precision: str = "float32",
) -> Run:
    """Return each query's `depth` best passages of a run by the encoder's similarity; only these are encoded.

    Arguments and errors are those of `encoder_run`. Queries of the run without a text are left out and counted;
    passages of equal score keep their order in the run.
    """
    run = read_run(run_file)
    run = {query_id: run[query_id] for query_id in known_queries(run, run_file, queries, "the queries")}
    passages = read_passages(source, {doc_id for ranked in run.values() for doc_id in ranked.doc_ids}, fields)
    check_passages(run, run_file, passages, source)
    encoder = _Encoder(name, kind, batch_size, device)
    encoder.choose_precision(precision)
    encoded_queries = encoder.encode([queries[query_id] for query_id in run], "query")
    row_of = {doc_id: row for row, doc_id in enumerate(passages)}
    blocks = []
    with Progress(desc=f"encoding {source}", total=len(passages), unit=" passages") as bar:
        texts = iter(passages.values())
        while block := list(itertools.islice(texts, BLOCK)):
            blocks.append(encoder.encode(block, "document"))
            bar.update(len(block))
    encoded = torch.cat(blocks)  # [N, D], sparse where the encoder is
    reranked = {}
    for place, (query_id, ranked) in enumerate(run.items()):
        rows = torch.tensor([row_of[doc_id] for doc_id in ranked.doc_ids], device=encoded.device)
        scores = encoder.similarity(encoded_queries[place][None], encoded.index_select(0, rows))  # [1, K]
        _check_finite(scores, [query_id], 0, ranked.doc_ids.__getitem__, name)
        best = scores[0].argsort(descending=True, stable=True)[:depth]
        doc_ids = [ranked.doc_ids[index] for index in best]
        reranked[query_id] = RankedList.in_order(doc_ids, scores[0][best].double().numpy())
    return reranked


def _definition(tokenizer) -> str:
    """Return what a tokenizer is, without the truncation and padding that the texts before have left in it."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        return repr(tokenizer)
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return getattr(tokenizer, "truncation_side", "right") + copy.to_str()


class _Encoder:
    """An encoder of sentence-transformers with its own similarity; only its forward pass is in half precision."""

    def __init__(self, name: str, kind: str, batch_size: int, device: torch.device):
        self.name, self.model, self.batch_size = name, _load(name, kind, device), batch_size
        self.device, self.precision = device, torch.float32
        self.looked_at: set[str] = set()

    def choose_precision(self, name: str, kept: tuple[str, Fields, str] | None = None) -> None:
        """Set the precision of the forward pass; kept: source, fields and type of vectors that the cache may hold."""
        if not must_measure(name, self.device):
            self.precision = choose_precision(name, self.device)
            return
        for precision in (torch.float32, torch.bfloat16):
            if kept is not None and are_begun(kept[0], kept[1], self.state(precision), kept[2]):
                self.precision = precision
                return
        chosen = scoring_precision(name, self.device, num_weights(self.model), self._pass)
        log.info("%s", chosen.describe())
        self.precision = chosen.dtype

    def _pass(self, num_tokens: int) -> tuple[Callable[[], object], int]:
        """Return a forward pass over texts of some length, and about how many tokens it has."""
        texts = ["a " * WORDS] * math.ceil(num_tokens / WORDS)
        encode = self.model.encode_document
        return lambda: encode(texts, show_progress_bar=False, convert_to_tensor=True), WORDS * len(texts)

    def encode(self, texts: list[str], kind: str) -> Tensor:
        """Return the float32 vectors of queries or documents, on the device."""
        if kind not in self.looked_at:
            self.looked_at.add(kind)
            warn_of_unknown(self._unknown_share(texts[:LOOKED_AT]), "queries" if kind == "query" else "passages")
        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        with half_precision(self.device, self.precision):
            encoded = encode(texts, batch_size=self.batch_size, show_progress_bar=False, convert_to_tensor=True)
        return encoded.float()

    def _unknown_share(self, texts: list[str]) -> float:
        """Return the share of the texts' tokens that stand for what the tokenizer does not know."""
        tokenizer = getattr(self.model, "tokenizer", None)
        if tokenizer is None or getattr(tokenizer, "unk_token_id", None) is None:
            return 0.0
        found = tokenizer(texts, add_special_tokens=False, truncation=True)["input_ids"]
        return sum(ids.count(tokenizer.unk_token_id) for ids in found) / max(sum(map(len, found)), 1)

    def blocks(self, source: str, fields: Fields, doc_ids: list[str]) -> Iterator[Tensor]:
        """Encode all passages of a source, a block at a time; doc_ids: gets their ids."""
        passages = iterate_texts(source, "passages", fields)
        with Progress(desc=f"encoding {source}", unit=" passages") as bar:
            while block := list(itertools.islice(passages, BLOCK)):
                doc_ids += [doc_id for doc_id, _ in block]
                yield self.encode([text for _, text in block], "document")
                bar.update(len(block))

    def stored(self, source: str, fields: Fields, dtype: str, query_ids: list[str], encoded_queries: Tensor) -> Vectors:
        """Return the vectors of all passages of a source in the cache, encoded where they are not there yet."""

        def encode(doc_ids: list[str], texts: list[str]) -> np.ndarray:
            encoded = self.encode(texts, "document")
            if not encoded.isfinite().all():  # said before hours of it
                _check_finite(self.similarity(encoded_queries, encoded), query_ids, 0, doc_ids.__getitem__, self.name)
            return encoded.cpu().numpy()

        return open_vectors(source, fields, self.state(self.precision), dtype, encode)

    def from_disk(self, stored: Vectors, source: str) -> Iterator[Tensor]:
        """Read all vectors of a source, a block at a time."""
        with Progress(desc=f"comparing {source}", total=len(stored), unit=" passages") as bar:
            for block in stored.blocks():
                yield torch.from_numpy(block).to(self.device)
                bar.update(len(block))

    def state(self, precision: torch.dtype) -> dict:
        """Return what decides the vectors of passages: weights, modules, tokenizer, prompts, library, precision."""
        weights = 0
        for name, values in self.model.state_dict().items():
            weights = zlib.crc32(name.encode(), weights)
            weights = zlib.crc32(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), weights)
        words = _definition(getattr(self.model, "tokenizer", None))
        said = [repr(self.model), words, self.model.prompts, self.model.default_prompt_name, self.model.max_seq_length]
        return {
            "weights": weights,
            "settings": hashlib.sha256(json.dumps(said).encode()).hexdigest(),
            "precision": str(precision),
            "library": metadata.version("sentence-transformers"),
        }

    def similarity(self, queries: Tensor, passages: Tensor) -> Tensor:
        """Return the float32 similarities of queries and passages, on the CPU."""
        return self.model.similarity(queries, passages).float().cpu()


def _load(name: str, kind: str, device: torch.device):
    try:
        from sentence_transformers import SentenceTransformer, SparseEncoder
    except ModuleNotFoundError:
        raise InputError(
            f"method={kind}: sentence-transformers is not installed: pip install sentence-transformers, or method=bm25"
        ) from None
    for path in Path(name).rglob("pytorch_model*.bin") if os.path.isdir(name) else ():
        if not any(path.parent.glob("*.safetensors")):
            raise InputError(f"{path}: is a pickle, which is never opened: save the model again as safetensors")
    try:
        return (SentenceTransformer if kind == "dense" else SparseEncoder)(
            name,
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model={name}: cannot be loaded as a {kind} encoder ({reason})") from None


def _check_finite(scores: Tensor, query_ids: list[str], first: int, id_of: Callable[[int], str], name: str) -> None:
    """Raise InputError for the first score [Q, N] that is not finite; first: the row of the first passage."""
    bad = (~scores.isfinite()).nonzero()[:1].tolist()
    if bad:
        query, passage = bad[0]
        raise InputError(
            f"model={name}: query {query_ids[query]} and passage {id_of(first + passage)} have a similarity of "
            f"{scores[query, passage].item()}: the encoder's weights are damaged: use another"
        )


def _keep(scores: Tensor, rows: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Return the best scores [Q, k], descending, and their rows; of equal scores, the first come first."""
    width = scores.shape[1]
    bits = (scores + 0.0).view(torch.int32).long()  # without -0.0
    # Whole numbers in the order of score, then place: all different, so that the k largest are not a matter of chance
    keys = (torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 31) + torch.arange(width - 1, -1, -1)
    order = keys.topk(min(depth, width), dim=1).indices
    return scores.gather(1, order), rows.gather(1, order)
