"""Read a sweep back as a table: every run leaves its configuration and its results in files.

Run a sweep first: python train.py -m loss=ranknet,adrmse seed=0,1 hydra.sweep.dir=outputs/sweep
Run: python -m examples.sweep_table [DIRECTORY]             (`python -m distill report` does much more)

Prints a line for each loss, with the mean and the range over seeds:

    adrmse: 0.6647 (0.6641 to 0.6654), 2 run(s)
    ranknet: 0.6701 (0.6655 to 0.6747), 2 run(s)
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import yaml

values = defaultdict(list)  # loss -> nDCG@10 of its runs
directory = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/sweep")
for path in directory.glob("**/results.json"):
    config = yaml.safe_load(path.with_name("config.yaml").read_text(encoding="utf-8"))
    results = json.loads(path.read_text(encoding="utf-8"))
    values[config["loss"]["name"]].append(results["test/sample/nDCG@10"])
if not values:
    print(f"error: {directory}: no results.json there: run a sweep first", file=sys.stderr)
    sys.exit(2)
for name, found in sorted(values.items()):
    print(f"{name}: {fmean(found):.4f} ({min(found):.4f} to {max(found):.4f}), {len(found)} run(s)")
