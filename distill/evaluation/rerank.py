"""Re-rank a run with a cross-encoder.

task = read_task(cfg.task)
student_run = TaskReranker(task, model).rerank(model, max_tokens=16384)
TaskReranker(task, model, once=True)            # tokenises the next queries while the current ones are scored
"""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from distill.cores import CoreWatch
from distill.data.batch import make_batch
from distill.data.pairs import cut
from distill.data.tokens import TokenStore, unknown_share, warn_of_cut_queries
from distill.data.tokens_as_needed import TokensAsNeeded
from distill.device import half_precision
from distill.distributed import Ranks
from distill.errors import InputError
from distill.evaluation.ahead import ahead
from distill.evaluation.tasks import Task
from distill.models.cross_encoder import CrossEncoder
from distill.models.parts import evaluating
from distill.progress import Progress
from distill.sources.run_files import RankedList, Run
from distill.sources.shards import starts_of_batches
from distill.sources.texts import warn_of_unknown

FEW_PAIRS = 2000  # up to this number, no progress bar is shown

Pair = tuple[np.ndarray, np.ndarray]  # tokens and token types


class TaskReranker:
    """Re-ranks one task's run any number of times, for which the tokens are kept; or once, in bounded memory."""

    def __init__(
        self,
        task: Task,
        model: CrossEncoder,
        *,
        judged_only: bool = False,
        ranks: Ranks | None = None,
        once: bool = False,
    ):
        """Tokenise the task's queries for the model, and its passages unless they are needed only once.

        judged_only leaves out queries without judgments. With several ranks, each re-ranks its share of the queries.
        """
        self.ranks = ranks or Ranks(0, 1, model.device)
        run = {q: ranked for q, ranked in task.run.items() if len(ranked) and (q in task.qrels or not judged_only)}
        self.query_ids = list(run)  # of all ranks
        self.run = {query_id: run[query_id] for query_id in self.query_ids[self.ranks.rank :: self.ranks.size]}
        queries = {query_id: task.queries[query_id] for query_id in self.run}
        self.queries = TokenStore.of(model.tokenizer, queries, model.query_length, "queries", model.template.query_text)
        self.cut_queries = [query_id for share in self.ranks.gather(self.queries.cut_ids()) for query_id in share]
        warn_of_cut_queries(self.cut_queries, len(self.query_ids), model.query_length, task.name)
        warn_of_unknown(unknown_share(self.queries, model.tokenizer), f"queries of {task.name}")
        self.name, form = task.name, model.template.passage_text
        # A long passage is split into windows of the model's length; its score is that of the best (MaxP, Dai & Callan
        # 2019)
        self.length, self.stride = model.passage_length, task.window_stride or max(model.passage_length // 2, 1)
        read = self.length + (task.windows - 1) * self.stride
        self.passages: TokenStore | TokensAsNeeded
        if once:
            self.passages = TokensAsNeeded(model.tokenizer, task.passages, read, form)
        else:
            self.passages = TokenStore.of(model.tokenizer, task.passages, read, "passages", form)
        self.is_looked_at = False  # for tokens that are unknown

    @torch.inference_mode()
    def rerank(
        self,
        model: CrossEncoder,
        max_tokens: int,
        precision: torch.dtype = torch.float32,
        exit_keep: int | None = None,
    ) -> Run:
        """Score every pair with the model and return the re-ranked run, with the queries of all ranks.

        Passages with equal scores keep their order. exit_keep: as in CrossEncoder.rank; not for passages of several
        windows. Raises InputError for a score that is not finite.
        """
        reranked: dict[str, RankedList] = {}
        num_pairs = sum(map(len, self.run.values()))
        shown = num_pairs > FEW_PAIRS and self.ranks.is_first
        with (
            evaluating(model),
            Progress(total=num_pairs, desc="re-ranking", unit="pair", leave=False, shown=shown) as bar,
            ahead(lambda query_ids: self._prepare(model, query_ids), self._groups()) as groups,
        ):
            cores = CoreWatch(model.device)
            for group in cores.without_waits(groups):
                query_ids = [query_id for query_id, _, _ in group]
                batch = make_batch(query_ids, [pairs for _, pairs, _ in group])
                with half_precision(model.device, precision):
                    scores = model.score(batch, max_tokens, exit_keep).cpu().double().numpy()  # [B, K]
                for (query_id, _, firsts), row in zip(group, scores, strict=True):
                    self._check_finite(query_id, row[: len(firsts)], firsts)
                    best = np.maximum.reduceat(row[: len(firsts)], np.flatnonzero(firsts))
                    reranked[query_id] = RankedList.by_score(self.run[query_id].doc_ids, best)
                bar.update(sum(len(self.run[query_id]) for query_id in query_ids))
                cores.look()
        of_all_ranks = {query_id: ranked for share in self.ranks.gather(reranked) for query_id, ranked in share.items()}
        return {query_id: of_all_ranks[query_id] for query_id in self.query_ids}

    def _prepare(self, model: CrossEncoder, query_ids: list[str]) -> list[tuple[str, list[Pair], list[bool]]]:
        """Return the queries of a group, each with what `_pairs` returns; at the first one, look for unknown tokens."""
        prepared = [(query_id, *self._pairs(model, query_id)) for query_id in query_ids]
        if not self.is_looked_at:
            self.is_looked_at = True
            warn_of_unknown(unknown_share(self.passages, model.tokenizer), f"passages of {self.name}")
        return prepared

    def _check_finite(self, query_id: str, scores: np.ndarray, firsts: list[bool]) -> None:
        """Raise InputError for the first score that is not finite: sorting would silently accept it."""
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            doc_id = self.run[query_id].doc_ids[sum(firsts[: bad[0] + 1]) - 1]
            raise InputError(
                f"query {query_id}, passage {doc_id}: the model's score is {scores[bad[0]]}, which cannot be ranked: "
                "its weights are damaged, or too large for the precision: use another checkpoint, or float32"
            )

    def _groups(self) -> Iterator[list[str]]:
        starts = starts_of_batches(map(len, self.run.values()))
        query_ids = iter(self.run)
        for start, end in zip(starts, [*starts[1:], len(self.run)][: len(starts)], strict=True):  # a rank may have none
            yield list(islice(query_ids, end - start))

    def _pairs(self, model: CrossEncoder, query_id: str) -> tuple[list[Pair], list[bool]]:
        """Return the pairs of a query, one for each window, and whether each starts a passage."""
        query, ranked = self.queries[self.queries.rows([query_id])[0]], self.run[query_id]
        pairs, firsts = [], []
        numbers = model.template.numbers(ranked.scores)  # the run is the first stage
        for tokens, number in zip(self.passages.of_ids(ranked.doc_ids), numbers, strict=True):
            for start in window_starts(len(tokens), self.length, self.stride):
                window = cut(tokens[start:], self.length, model.template.passage_end)
                pairs.append(model.template.join(query, window, number))
                firsts.append(start == 0)
        return pairs, firsts


def window_starts(num_tokens: int, length: int, stride: int) -> range:
    """Return the starts of a passage's windows: every `stride` tokens, until a window reaches the passage's end."""
    num_windows = 1 + math.ceil(max(num_tokens - length, 0) / stride)
    return range(0, num_windows * stride, stride)
