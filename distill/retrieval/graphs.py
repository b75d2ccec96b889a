"""Graphs of passages' vectors (HNSW, by faiss), which find most of a query's nearest passages without comparing all.

    load_faiss(), check_similarity("cosine")                        # before hours of encoding
    rows = nearest(vectors, queries, 100, "cosine")                 # [Q, n], -1 where a graph finds fewer

Several parts of the vectors share a graph, which is in memory while it is built, and memory-mapped from then on. It
holds float16 copies of the vectors and is kept beside them. Q queries, N passages, D dimensions.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import InputError
from distill.progress import Progress
from distill.retrieval.vectors import PART, Vectors
from distill.storage.cache import REMEDY
from distill.storage.locking import locked_in_turn
from distill.storage.parts import is_whole, write_part

GRAPH = 8 * PART  # passages of a graph: in memory, it takes 0.6 GB with 384 dimensions
LINKS, BUILDING = 32, 100  # of a passage to others; how many passages are compared to find them
SEARCHED = 4  # times the depth: how many passages a search compares in each graph, at least BUILDING
SIMILARITIES = {"cosine": "METRIC_INNER_PRODUCT", "dot": "METRIC_INNER_PRODUCT", "euclidean": "METRIC_L2"}
FILE = "graph.faiss"


def load_faiss() -> Any:
    """Return the library; raises InputError where it is not installed."""
    logging.getLogger("faiss").setLevel(logging.WARNING)  # its import says what it tries
    try:
        import faiss
    except ImportError:
        raise InputError("index=hnsw: faiss is not installed: pip install faiss-cpu, or index=exact") from None
    return faiss


def check_similarity(similarity: str) -> None:
    """Raise InputError for an encoder's similarity that faiss has no graphs for."""
    if similarity not in SIMILARITIES:
        raise InputError(f"index=hnsw: the encoder compares by {similarity}, which graphs cannot: set index=exact")


def nearest(vectors: Vectors, queries: np.ndarray, depth: int, similarity: str) -> np.ndarray:
    """Return the rows of passages near each query, up to `depth` of each graph, [Q, n] int64, in no order.

    similarity: the encoder's.
    """
    faiss, found = load_faiss(), []
    queries = np.ascontiguousarray(queries, np.float32)
    parameters = faiss.SearchParametersHNSW(efSearch=max(SEARCHED * depth, BUILDING))
    for first in range(0, len(vectors), GRAPH):
        graph = faiss.read_index(str(_graph(vectors, first, similarity) / FILE), faiss.IO_FLAG_MMAP_IFC)
        _, rows = graph.search(queries, depth, params=parameters)
        found.append(np.where(rows < 0, -1, rows + first))
    return np.concatenate(found, axis=1)


def _graph(vectors: Vectors, first: int, similarity: str) -> Path:
    """Return the directory of the graph that begins with a row; it is built if it is missing or damaged."""
    directory = vectors.directory / f"{similarity}-{first // GRAPH:03d}"
    if not is_whole(directory):
        with locked_in_turn(vectors.directory.with_name(vectors.directory.name + ".lock"), REMEDY):
            if not is_whole(directory):
                write_part(directory, lambda new: _build(new / FILE, vectors, first, similarity))
    return directory


def _build(file: Path, vectors: Vectors, first: int, similarity: str) -> None:
    faiss, graph, last = load_faiss(), None, min(first + GRAPH, len(vectors))
    with Progress(desc="building a graph", total=last - first, unit=" passages") as bar:
        for block in vectors.blocks(first, last):
            if similarity == "cosine":
                faiss.normalize_L2(block)
            if graph is None:
                metric = getattr(faiss, SIMILARITIES[similarity])
                graph = faiss.IndexHNSWSQ(block.shape[1], faiss.ScalarQuantizer.QT_fp16, LINKS, metric)
                graph.hnsw.efConstruction = BUILDING
                graph.train(block)
            graph.add(block)
            bar.update(len(block))
    faiss.write_index(graph, str(file))
