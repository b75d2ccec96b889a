"""The critical-difference diagram of Nemenyi's test: methods at their average ranks, bars join those not apart.

draw_critical_difference(names, average_ranks, nemenyi(values), "objectives.svg")
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.evaluation.significance import ALPHA, require
from distill.storage.writing import write_whole

SUFFIXES = (".png", ".svg")


def draw_critical_difference(
    names: Sequence[str], average_ranks: np.ndarray, p_values: np.ndarray, path: str | Path
) -> None:
    """Draw the critical-difference diagram, as PNG or SVG by the path's suffix; bars join what is not significant.

    Raises InputError for another suffix and for a name that appears twice.
    """
    if Path(path).suffix not in SUFFIXES:
        raise InputError(f"{path}: no known kind of figure: let the name end in {' or '.join(SUFFIXES)}")
    if len(set(names)) < len(names):
        raise InputError(f"names={list(names)}: a name appears twice: give each method its own")
    matrix = require("pandas").DataFrame(p_values, index=list(names), columns=list(names))
    # Agg, and no pyplot: the figure needs no display and leaves the caller's backend alone
    figure = require("matplotlib.figure").Figure(figsize=(8, 1.5 + 0.25 * len(names)), layout="constrained")
    require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    require("scikit_posthocs").critical_difference_diagram(
        dict(zip(names, average_ranks, strict=True)),
        matrix,
        alpha=ALPHA,
        ax=figure.subplots(),
        label_fmt_left="{label} ({rank:.2f})",
        label_fmt_right="({rank:.2f}) {label}",
    )
    kind = Path(path).suffix[1:]
    write_whole(Path(path), lambda aside: figure.savefig(aside, format=kind, dpi=200))
