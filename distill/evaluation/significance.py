"""Significance of differences in effectiveness, between two models per query and between several over many cells.

    per_query = {name: read_per_query(path)["nDCG@10"] for name, path in files.items()}
    tests = compare(per_query["bm25"], {"adrmse": per_query["adrmse"], "ranknet": per_query["ranknet"]})
    statistic, p, ranks = friedman(values)                 # values [N, k], larger is better
    p_values = nemenyi(values)

Two models are compared by a paired two-sided t-test over queries. Over many cells (a backbone on a data set, say), two
are compared by Wilcoxon's signed-rank test, three or more by Friedman's test and Nemenyi's post-hoc test: J. Demsar,
Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), sections 3.1.3 and 3.2. N cells, k
methods. Nemenyi's test, and the correction of several p-values, need requirements-report.txt; training's verdict needs
neither. Values may be means over seeds, and the mean of three equal values need not be that value: what differs by
rounding only is equal in every test.
"""

import csv
import importlib
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike

from distill.errors import InputError
from distill.storage.files import text_lines
from distill.storage.quoting import from_cell

ALPHA = 0.05  # of the verdict, and of what the diagram of critical differences joins
ROUNDING = 1e-9  # what differs by no more, as a share of the larger, differs by rounding
MIN_CELLS = 6  # below, Wilcoxon's two-sided p-value cannot be under 0.05


@dataclass
class PairedTest:
    """One method against the baseline; the p-values are those of the two-sided test."""

    name: str
    mean: float
    difference: float  # of the means, method less baseline; t has its sign
    t: float
    p: float
    p_bonferroni: float
    p_holm: float
    num_queries: int


def p_in_words(p: float) -> str:
    """Return a p-value in words, to two digits: p = 0.014, or p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def significance_in_words(p: float) -> str:
    """Return whether a difference is significant, and its p-value: "not significant: p = 0.21"."""
    return f"{'significant' if p < ALPHA else 'not significant'}: {p_in_words(p)}"


def read_per_query(path: str | Path) -> dict[str, dict[str, float]]:
    """Read the values per query that evaluate.py writes, into {measure: {query_id: value}}.

    Raises InputError for a missing file, a header without `query_id` or measures, and a bad line.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file: give the per-query CSV that evaluate.py writes")
    rows = ((place, _split(place, line)) for place, line in text_lines(str(path)))
    place, header = next(rows, (f"{path}:1", []))
    values: dict[str, dict[str, float]] = {name: {} for name in header[1:]}
    if header[:1] != ["query_id"] or not values or len(values) < len(header) - 1:
        raise InputError(f"{place}: header `{','.join(header)}`: expected `query_id,<measure>,...`, each measure once")
    for place, (cell, *columns) in rows:
        query_id = from_cell(cell)
        if len(columns) != len(values):
            raise InputError(f"{place}: {len(columns)} values instead of {len(values)}: expected one for each measure")
        for (name, by_query), column in zip(values.items(), columns, strict=True):
            if query_id in by_query:
                raise InputError(f"{place}: query {query_id} appears twice: keep one of the two lines")
            by_query[query_id] = _number(place, name, column)
    if not values[header[1]]:
        raise InputError(f"{place}: no query below the header: run evaluate.py on a task that has judged queries")
    return values


def _split(place: str, line: str) -> list[str]:
    try:
        return next(csv.reader([line]))
    except csv.Error as error:
        raise InputError(f"{place}: cannot be read ({error}): expected a line of CSV") from None


def _number(place: str, name: str, column: str) -> float:
    try:
        value = float(column)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}: {name} is {column!r}: expected a finite number")
    return value


def compare(baseline: dict[str, float], others: dict[str, dict[str, float]]) -> list[PairedTest]:
    """Test each of the others against the baseline, query by query, corrected for the number of others.

    Values that are those of the baseline but for rounding give t = 0, p = 1. A constant difference, which has no
    variance, gives t = ±inf and the p-value of the sign test, 2 · 0.5ⁿ for n queries. Raises InputError where the
    queries are not those of the baseline, and where there are fewer than two.
    """
    if len(baseline) < 2:
        raise InputError(f"baseline: a paired t-test needs two queries or more, not {len(baseline)}: evaluate more")
    tests = []
    for name, values in others.items():
        _check_queries(name, baseline, values)
        tests.append(_paired_t_test(subtract([values[query_id] for query_id in baseline], [*baseline.values()])))
    p_values = [p for _, p in tests]
    rows = zip(others.items(), tests, adjust(p_values, "bonferroni"), adjust(p_values, "holm"), strict=True)
    paired = []
    for (name, values), (t, p), p_bonferroni, p_holm in rows:
        mean = fmean(values.values())
        difference = float(subtract(mean, fmean(baseline.values())))
        paired.append(PairedTest(name, mean, difference, t, p, p_bonferroni, p_holm, len(baseline)))
    return paired


def _check_queries(name: str, baseline: dict[str, float], values: dict[str, float]) -> None:
    missing = [query_id for query_id in baseline if query_id not in values]
    extra = [query_id for query_id in values if query_id not in baseline]
    if missing or extra:
        raise InputError(
            f"{name}: lacks {len(missing)} of the baseline's {len(baseline)} queries and has {len(extra)} more "
            f"(first: {(missing + extra)[0]}): evaluate both on the same queries"
        )


def subtract(values: ArrayLike, others: ArrayLike) -> np.ndarray:
    """Return values less others, 0 where they differ by rounding only."""
    values, others = np.asarray(values, np.float64), np.asarray(others, np.float64)
    differences = values - others
    return np.where(np.abs(differences) <= ROUNDING * np.maximum(np.abs(values), np.abs(others)), 0.0, differences)


def _paired_t_test(differences: np.ndarray) -> tuple[float, float]:
    if not differences.any():
        return 0.0, 1.0  # scipy divides 0 by 0
    if np.ptp(differences) <= ROUNDING * np.abs(differences).max():
        return math.copysign(math.inf, differences[0]), min(2 * 0.5 ** len(differences), 1.0)
    result = require("scipy.stats").ttest_1samp(differences, 0.0)
    return float(result.statistic), float(result.pvalue)


def adjust(p_values: Sequence[float], correction: str) -> list[float]:
    """Return p-values corrected for their number, by Holm's step-down or Bonferroni's method: "holm", "bonferroni"."""
    if len(p_values) < 2:  # the verdict of a training run, which must not wait for statsmodels
        return list(p_values)
    return require("statsmodels.stats.multitest").multipletests(p_values, method=correction)[1].tolist()


def wilcoxon(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the p-value of Wilcoxon's two-sided signed-rank test over cells; 1 where no cell differs.

    Differences of one size but for rounding share their rank.
    """
    differences = subtract(values, others)
    if not differences.any():
        return 1.0  # scipy divides 0 by 0
    [sizes] = _without_rounding(np.abs(differences)[None])
    return float(require("scipy.stats").wilcoxon(np.copysign(sizes, differences)).pvalue)


def _without_rounding(values: np.ndarray) -> np.ndarray:
    """Return values [N, k] in which those of a row that differ by rounding only are equal."""
    order = np.argsort(values, axis=1)
    in_order = np.take_along_axis(values, order, axis=1)
    for before, after in itertools.pairwise(in_order.T):  # views
        after[:] = np.where(subtract(after, before) == 0, before, after)
    result = np.empty_like(values)
    np.put_along_axis(result, order, in_order, axis=1)
    return result


def friedman(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return Friedman's chi-square (corrected for ties), its p-value and the average ranks [k], 1 = best.

    Larger values [N, k] are better; those that are equal but for rounding share their average rank. Raises InputError
    for fewer than two cells or three methods, and for values that are not finite.
    """
    values = _without_rounding(_check_values(values))
    stats = require("scipy.stats")
    average_ranks = stats.rankdata(-values, axis=1).mean(axis=0)  # [k]
    if (values == values[:, :1]).all():
        return 0.0, 1.0, average_ranks  # scipy's correction for ties divides 0 by 0
    result = stats.friedmanchisquare(*values.T)
    return float(result.statistic), float(result.pvalue), average_ranks


def nemenyi(values: np.ndarray) -> np.ndarray:
    """Return the p-values [k, k] of Nemenyi's test on values [N, k]; raises InputError as `friedman` does."""
    values = _without_rounding(_check_values(values))
    return require("scikit_posthocs").posthoc_nemenyi_friedman(values).to_numpy()


def critical_difference(k: int, N: int, alpha: float = ALPHA) -> float:
    """Return the difference of average ranks from which on Nemenyi's test is significant: q sqrt(k (k + 1) / (6 N)).

    q is the studentized range's upper quantile at infinite degrees of freedom, over sqrt(2). Raises InputError as
    `friedman` does.
    """
    assert 0 < alpha < 1
    _check_size(N, k)
    q = require("scipy.stats").studentized_range.ppf(1 - alpha, k, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(k * (k + 1) / (6 * N)))


def _check_values(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)  # [N, k]
    assert values.ndim == 2
    _check_size(*values.shape)
    cells, methods = np.nonzero(~np.isfinite(values))
    if len(cells):
        place = f"values[{cells[0]}, {methods[0]}]={values[cells[0], methods[0]]}"
        raise InputError(f"{place}: not a finite number: give every cell a value of every method")
    return values


def _check_size(num_cells: int, num_methods: int) -> None:
    if num_methods < 3:
        raise InputError(f"{num_methods} methods: Friedman's and Nemenyi's tests need three or more: compare two alone")
    if num_cells < 2:
        raise InputError(f"{num_cells} cells: Friedman's and Nemenyi's tests need two or more: evaluate on more")


def require(name: str) -> ModuleType:
    """Import what `import distill` shall not wait for; raises InputError where requirements-report.txt is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install -r requirements-report.txt") from None
