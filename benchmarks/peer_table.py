"""Means over seeds, paired tests and the printed table of benchmarks/peers.py.

summary = summarise(rows)                       # {"summary": [...], "tests": [...]}
print(format_table(first_stage, rows))
"""

import statistics

from distill.evaluation.significance import compare


def summarise(rows: list[dict]) -> dict:
    """Return means and standard deviations over seeds, and paired tests of the first contender against the others.

    A query's value is its mean over the seeds that all contenders have.
    """
    measured = [row for row in rows if "measures" in row]
    names = list(dict.fromkeys(row["name"] for row in measured))
    summary = []
    for name in names:
        own = [row for row in measured if row["name"] == name]
        entry = {"name": name, "seeds": [row["seed"] for row in own]}
        for key in own[0]["measures"]:
            values = [row["measures"][key] for row in own]
            deviation = statistics.stdev(values) if len(values) > 1 else None
            entry[key] = {"mean": statistics.fmean(values), "deviation": deviation}
        entry |= {key: statistics.fmean(row[key] for row in own) for key in ("seconds", "process_seconds")}
        summary.append(entry | {"peak_bytes": max(row["peak_bytes"] for row in own)})
    shared = set.intersection(*(set(entry["seeds"]) for entry in summary)) if summary else set()
    tests = []
    for key in measured[0]["measures"] if shared and len(names) > 1 else ():
        means = {}
        for name in names:
            columns = [row["per_query"][key] for row in measured if row["name"] == name and row["seed"] in shared]
            means[name] = {
                str(place): statistics.fmean(values) for place, values in enumerate(zip(*columns, strict=True))
            }
        first = means.pop(names[0])
        if len(first) > 1:
            tests += [{"measure": key, "baseline": names[0]} | vars(test) for test in compare(first, means)]
    return {"summary": summary, "tests": tests}


def describe(row: dict) -> str:
    """Return a line about a row."""
    if "left_out" in row:
        return f"{row['name']}, seed {row['seed']}: left out: {row['left_out']}"
    values = " ".join(f"{name} {value:.4f}" for name, value in row["measures"].items())
    return f"{row['name']}, seed {row['seed']}: {values}, {row['seconds']:.0f} s, {row['peak_bytes'] / 1e9:.2f} GB"


def format_table(first_stage: dict[str, float], rows: list[dict]) -> str:
    """Return the means over seeds, and the tests, as text."""
    summary = summarise(rows)
    measures = list(first_stage)
    lines = [
        f"{'':24}" + "".join(f"{name:>18}" for name in measures) + f"{'training':>12}{'process':>10}{'memory':>10}"
    ]
    lines.append(f"{'first stage':24}" + "".join(f"{first_stage[name]:18.4f}" for name in measures))
    for entry in summary["summary"]:
        cells = ""
        for name in measures:
            deviation = entry[name]["deviation"]
            cells += f"{entry[name]['mean']:.4f}{'' if deviation is None else f' ± {deviation:.4f}'}".rjust(18)
        times = f"{entry['seconds'] / 60:8.1f} min{entry['process_seconds'] / 60:6.1f} min"
        lines.append(f"{entry['name']:24}{cells}{times}{entry['peak_bytes'] / 1e9:7.2f} GB")
    lines += [describe(row) for row in rows if "left_out" in row]
    for test in summary["tests"]:
        names = f"{test['name']} - {test['baseline']}, {test['measure']}"
        lines.append(f"{names}: {test['difference']:+.4f}, p = {test['p_holm']:.3f}")
    return "\n".join(lines)
