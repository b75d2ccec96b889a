"""The papers' figures (published.yaml beside this file), and those of them that are printed below ours.

add_published(table)
tables, citations = read_published()
"""

from pathlib import Path

from omegaconf import OmegaConf

from distill.report.table import Cell, Table, TableRow

PATH = Path(__file__).with_name("published.yaml")


def read_published() -> tuple[list[Table], dict[str, str]]:
    """Return every published table, titled by paper and caption, and the papers' full citations by short one."""
    data = OmegaConf.to_container(OmegaConf.load(PATH))
    tables = []
    for entry in data["tables"]:
        source = f"{data['papers'][entry['paper']]['short']}, {entry['table']}"
        rows = []
        for row in entry["rows"]:
            values = zip(entry["columns"], row["values"], strict=True)
            cells = {name: Cell(value, decimals=entry["decimals"]) for name, value in values}
            rows.append(TableRow(row["name"], "published", cells, source=source))
        notes = [entry["note"]] if "note" in entry else []
        tables.append(Table(f"{source}: {entry['caption']}", entry["columns"], rows, notes))
    return tables, {paper["short"]: paper["citation"] for paper in data["papers"].values()}


def add_published(table: Table) -> None:
    """Put the published rows that share a column with the table below it, and name their papers in its notes."""
    tables, citations = read_published()
    used = set()
    for published in tables:
        shared = [name for name in published.columns if f"test/{name}" in table.columns]
        for row in published.rows if shared else []:
            cells = {f"test/{name}": row.cells[name] for name in shared}
            table.rows.append(TableRow(row.name, "published", cells, source=row.source))
            used.add(row.source.partition(", ")[0])
        if shared:
            table.notes += published.notes
    table.notes += [f"Published by {short}: {citations[short]}." for short in citations if short in used]
