"""A cross-encoder in PyTerrier pipelines; needs `pip install python-terrier`. No other module imports this one.

import pyterrier as pt
from distill.pyterrier import Reranker

pipeline = pt.terrier.Retriever(index, num_results=100) >> pt.text.get_text(index) >> Reranker("outputs/.../model")
pt.Experiment([pipeline], topics, qrels, ["ndcg_cut_10"])
"""

from typing import Literal

import pandas as pd
import pyterrier as pt
import torch

from distill.device import choose_device
from distill.errors import InputError
from distill.models.cross_encoder import MAX_TOKENS, CrossEncoder
from distill.models.interpolation import check_weight


class Reranker(pt.Transformer):
    """Re-ranks the passages of each query: takes frames with qid, query, docno and text, and sets score and rank.

    A model that reads the first stage's scores takes them from the column score, and so does interpolation.
    """

    def __init__(
        self,
        model: str | CrossEncoder,
        text_field: str = "text",
        max_tokens: int = MAX_TOKENS,
        precision: str | torch.dtype | None = None,
        device: str = "auto",
        interpolate: Literal["auto"] | float | None = None,
        base: str | None = None,
    ):
        """Take a model, or load one by directory, packaged model or Hub id onto a device.

        text_field: column of the passages' texts. max_tokens, precision: as in `CrossEncoder.rank`. interpolate: None;
        the model's share in its interpolation with the column score, from 0 to 1; or "auto", the share in the model's
        files. base: of adapters that were saved without their backbone, the backbone. Raises InputError if the model is
        not a cross-encoder, for a device or base beside an open model, and for a share that is missing or out of range.
        """
        super().__init__()
        if not isinstance(model, CrossEncoder):
            model = CrossEncoder.from_pretrained(str(model), base=base).to(choose_device(device))
        elif base is not None:
            raise InputError(f"base={base!r}: this model is open already, with its backbone: leave it out")
        elif device != "auto":
            where = f"this model is open already, on {model.device}"
            raise InputError(f"device={device}: {where}: leave it out, and move the model: model.to('{device}')")
        self.model = model
        self.text_field, self.max_tokens, self.precision = text_field, max_tokens, precision
        self.weight = None
        if isinstance(interpolate, str) and interpolate != "auto":
            raise InputError(f"interpolate={interpolate!r}: must be None, a number from 0 to 1, or 'auto'")
        if interpolate is not None:
            share = None if isinstance(interpolate, str) else interpolate
            self.weight = check_weight(share, self.model.interpolation)

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with new scores and ranks: queries in their order, each with its best passage first.

        Raises InputError for a row without a qid, and for a qid with two queries.
        """
        reads_scores = self.weight is not None or self.model.first_stage_score is not None
        columns = ["query", self.text_field, *(["score"] if reads_scores else [])]
        pt.validate.result_frame(inp, extra_columns=columns, context=self)
        _check_queries(inp)
        reranked = []
        for _, group in inp.groupby("qid", sort=False):
            query, *passages = map(_as_text, [group["query"].iloc[0], *group[self.text_field]])
            first_stage = group["score"].to_numpy() if reads_scores else None
            order, scores = self.model.rank(
                query, passages, self.max_tokens, self.precision, first_stage_scores=first_stage, weight=self.weight
            )
            ranks = [place + pt.model.FIRST_RANK for place in range(len(order))]
            reranked.append(group.iloc[order].assign(score=scores, rank=ranks))
        if not reranked:
            return inp.assign(score=pd.Series(dtype="float64"), rank=pd.Series(dtype="int64"))
        return pd.concat(reranked, ignore_index=True)

    def __repr__(self) -> str:
        return f"distill.pyterrier.Reranker({self.model.backbone.config.model_type}, text_field={self.text_field!r})"


def _check_queries(inp: pd.DataFrame) -> None:
    missing = inp["qid"].isna()
    if missing.any():  # groupby would leave them out
        raise InputError(f"qid: row {missing.argmax()} (from 0) has none: give each row the qid of its query")
    for qid, queries in inp["query"].map(_as_text).groupby(inp["qid"]).unique().items():
        if len(queries) > 1:
            raise InputError(
                f"qid={qid}: has two queries, {queries[0]!r} and {queries[1]!r}: give each a qid of its own"
            )


def _as_text(value) -> str:
    """Return a cell as a text, empty for a missing value (None, NaN)."""
    return "" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value)
