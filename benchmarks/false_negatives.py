"""Hide labels of the bundled sample, so that it has false negatives, and see what data.negatives makes of them.

    python train.py task.run=null validation.run=null train.patience=null hydra.run.dir=outputs/base
    python -m benchmarks.false_negatives --backbone outputs/base/model      # three seeds, four minutes of one core

Of all relevant passages whose query has another one in the teacher's list, 10% lose their label. Labels by themselves
teach the sample's tiny encoder nothing in its few steps, so a student of the teacher's ranks (the first command) is
trained further on them. What is trained:

    all labels      nothing is hidden: what could be reached
    hidden          the hidden passages are negatives
    drop            data.negatives.false_negatives=drop
    relabel         data.negatives.false_negatives=relabel

Recall: the share of the hidden passages that the filter finds; precision: the share of what it finds that was hidden.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.composed import compose_config
from benchmarks.report import RESULTS, ROOT, environment, save
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run

SAMPLE = ROOT / "sample" / "train"
MIN_GRADE = 2  # as in conf/teacher/sample.yaml
RULES = {
    "all labels": [],
    "hidden": [],
    "drop": ["data.negatives.margin=0", "data.negatives.positive=POSITIVE"],
    "relabel": [
        *("data.negatives.margin=0", "data.negatives.positive=POSITIVE"),
        "data.negatives.false_negatives=relabel",
    ],
}
MEASURE = "test/sample/nDCG@10"


def main() -> None:
    """Train every variant with every seed, print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.1, help="of the labels that are hidden")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--positive", default="median", help="data.negatives.positive")
    parser.add_argument("--loss", default="lce")
    parser.add_argument("--backbone", type=Path, required=True, help="a student to train further")
    parser.add_argument("--ranks", default="null", help="data.negatives.ranks, as in [1,40]: harder negatives")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    result = environment(torch.device("cpu")) | {"share": options.share, "ranks": options.ranks, "rows": []}
    with TemporaryDirectory() as name:
        for seed in seeds:
            hidden, qrels = hide_labels(options.share, seed, Path(name) / f"{seed}.qrels")
            for variant in RULES:
                row = run(variant, seed, qrels, hidden, options, Path(name) / f"{variant.replace(' ', '-')}-{seed}")
                print(json.dumps(row), flush=True)
                result["rows"].append(row)
    print_means(result["rows"])
    print(save("false-negatives", result, options.output))


def hide_labels(share: float, seed: int, path: Path) -> tuple[set[tuple[str, str]], Path]:
    """Write the sample's labels without a share of them; return the hidden (query, passage) and the file."""
    qrels, teacher = read_qrels(str(SAMPLE / "qrels.txt.gz")), read_run(str(SAMPLE / "teacher.run.gz"))
    relevant = {
        query_id: {d for d, grade in judged.items() if grade >= MIN_GRADE} for query_id, judged in qrels.items()
    }
    known = [(q, d) for q in teacher for d in teacher[q].doc_ids if len(relevant[q]) > 1 and d in relevant[q]]
    order = np.random.default_rng(seed).permutation(len(known))
    hidden = {known[row] for row in order[: round(len(known) * share)]}
    lines = [
        f"{q} 0 {d} {MIN_GRADE}\n" for q, doc_ids in relevant.items() for d in sorted(doc_ids) if (q, d) not in hidden
    ]
    path.write_text("".join(lines))
    return hidden, path


def run(variant: str, seed: int, qrels: Path, hidden: set, options: argparse.Namespace, directory: Path) -> dict:
    """Train one variant; return its nDCG@10, with recall and precision of the filter."""
    from distill.config.checks import check_train
    from distill.data.negatives import REPORT
    from train import train

    overrides = [rule.replace("POSITIVE", options.positive) for rule in RULES[variant]]
    overrides += [] if variant == "all labels" else [f"teacher.qrels={qrels}"]
    overrides += [f"loss={options.loss}", "data.num_negatives=7", "data.depth=null", f"seed={seed}"]
    overrides += [
        f"backbone.name={options.backbone.resolve()}",
        "optimizer.lr=5e-4",
        f"train.max_steps={options.steps}",
    ]
    overrides += [f"data.negatives.ranks={options.ranks}"]
    cfg = compose_config("train", [*overrides, "validation.run=null", "train.patience=null"])
    check_train(cfg)
    train(cfg, directory)
    row = {"variant": variant, "seed": seed, "nDCG@10": json.loads((directory / "results.json").read_text())[MEASURE]}
    if (directory / REPORT).exists():
        with open(directory / REPORT, encoding="utf-8") as file:
            found = {(line["query_id"], line["doc_id"]) for line in csv.DictReader(file, delimiter="\t")}
        numbers = {"hidden": len(hidden), "found": len(found), "of them hidden": len(found & hidden)}
        row |= numbers | {"recall": len(found & hidden) / len(hidden), "precision": len(found & hidden) / len(found)}
    return row


def print_means(rows: list[dict]) -> None:
    """Print the mean over the seeds of each variant, with the standard deviation of nDCG@10."""
    for variant in RULES:
        chosen = [row for row in rows if row["variant"] == variant]
        values = [row["nDCG@10"] for row in chosen]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        shares = [
            f"{name} {statistics.fmean(row[name] for row in chosen):.3f}"
            for name in ("recall", "precision")
            if name in chosen[0]
        ]
        print(f"{variant:12}nDCG@10 {statistics.fmean(values):.4f} ± {spread:.4f}  {'  '.join(shares)}")


if __name__ == "__main__":
    main()
