"""Differential fuzzing of the readers: one content, read as a small file and as a large one, plain, packed or parquet.

    python -m tests.fuzz_readers minutes=60 seed=0

Contents are drawn from a grammar of what people have, and then damaged. Both readers must give the same run or texts,
or the same error; whatever was written out must be read back unchanged. Prints how often each outcome was met, and the
content of a disagreement.
"""

import collections
import gzip
import json
import logging
import math
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import distill.data.token_store
import distill.sources.run_columns
import distill.sources.run_tables
from distill.data.tokens import Chunk, Encoder
from distill.errors import InputError
from distill.sources.fields import Fields
from distill.sources.run_files import write_run
from distill.sources.runs import cached_run, read_run
from distill.sources.texts import read_passages, read_queries

BLANKS = ["\xa0", "\u2028", "\x85", "\0", "\r", "\x1c", "\ufeff", "a" * 300, "", " ", "\t"]
WORDS = [*"bee sun ant ü 日本".split(), *BLANKS]
IDS = [*"q1 q2 7 d-1 D:1/x é 日".split(), "q 1", "", "\xa0q", "q\u2028", "\0", "x" * 2049, "x" * 2048, "\ufeffq1"]
NUMBERS = "1 2 0 -1 1.5 1e3 -0.0 .5 5. 1E-3 +2 3.0000000000000001".split()
ODD_NUMBERS = [*"nan inf 1_0 １ 0x10 1e999 1e-999 one 1d5 1f Infinity -nan 1,5 True".split(), "", "9" * 30, "9" * 5000]
ENDS = ["\n", "\n", "\n", "\n", "\r\n", "\r", "\n\n", " \n", "\t\n", "\n \n", "\u2028", ""]
VALUES = [None, 1, 2**60, 1.5, True, b"q1", ["q1"], "q1", float("nan"), {"a": 1}]


def main(minutes: float = math.inf, num_cases: float = math.inf, seed: int = 0) -> collections.Counter:
    """Fuzz for so many minutes or cases; return how often each outcome was met.

    Raises AssertionError with the content on which readers disagree.
    """
    rng, counts = random.Random(seed), collections.Counter()
    end = time.monotonic() + minutes * 60
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DISTILL_CACHE"] = f"{folder}/cache"
            while time.monotonic() < end and counts.total() < num_cases:
                shutil.rmtree(f"{folder}/cache", ignore_errors=True)
                kind = rng.choice([check_run, check_run, check_parquet_run, check_texts])
                counts[f"{kind.__name__}: {kind(rng, Path(folder))}"] += 1
    finally:
        logging.disable(logging.NOTSET)
    return counts


def check_run(rng: random.Random, folder: Path) -> str:
    """Compare both readers of a TREC run over plain and packed bytes."""
    distill.sources.run_tables.BLOCK_BYTES = rng.choice([1, 7, 50, 200, 2**24])
    set_block_rows(rng.choice([1, 3, 500_000]))
    separator = rng.choice([" ", "\t", "  ", " \t", "\xa0"])
    lines = []
    good, odd = rng.random() < 0.5, rng.random() < 0.3
    for _ in range(rng.randrange(0, 25)):
        query, doc = (rng.choice(IDS[:7] if good else IDS) for _ in range(2))
        doc += str(rng.randrange(30)) if rng.random() < 0.9 else ""
        rank, score = (rng.choice(NUMBERS if good or rng.random() < 0.9 else ODD_NUMBERS) for _ in range(2))
        columns = [query, "Q0", doc, rank, score, "tag"][: 6 if good or rng.random() < 0.98 else rng.randrange(7)]
        lines.append(separator.join(columns) + (rng.choice(ENDS) if odd else rng.choice(["\n", "\r\n"])))
    content = "".join(lines).encode("utf-8", "surrogatepass")
    return agree(folder, damaged(content, rng), rng, ".run")


def set_block_rows(rows: int) -> None:
    """Let blocks be so many rows long, read and written."""
    distill.sources.run_tables.BLOCK_ROWS = distill.sources.run_columns.BLOCK_ROWS = rows


def agree(folder: Path, content: bytes, rng: random.Random, suffix: str) -> str:
    """Write a content plain and packed; both readers of both files must say the same."""
    if rng.random() < 0.3:
        content = b"\xef\xbb\xbf" + content
    plain, packed = folder / f"a{suffix}", folder / f"b{suffix}.gz"
    plain.write_bytes(content)
    squeezed = gzip.compress(content, mtime=0)
    packed.write_bytes(damaged(squeezed, rng) if rng.random() < 0.2 else squeezed)
    outcomes = [
        outcome(lambda r=read, p=path: r(str(p)), path) for path in (plain, packed) for read in (small, cached_run)
    ]
    assert outcomes[0] == outcomes[1], (content, outcomes[:2])
    assert outcomes[2] == outcomes[3], (packed.read_bytes(), outcomes[2:])
    if packed.read_bytes() == squeezed:
        assert outcomes[0] == outcomes[2], (content, outcomes[::2])
    if outcomes[0][0] == "read":
        write_run(small(str(plain)), folder / "again.run", "a tag")
        again = outcome(lambda: small(str(folder / "again.run")), plain)
        assert [(q, ids, scores) for q, ids, scores, _ in again[1]] == [
            (q, ids, scores) for q, ids, scores, _ in outcomes[0][1]
        ], content
    return outcomes[0][0]


def small(path: str):
    """Read a run in memory."""
    return read_run(path)


def outcome(read, path: Path) -> tuple:
    """What a reader gives: ("read", lists) or ("refused", message without the path)."""
    try:
        run = read()
    except InputError as error:
        message = str(error).replace(str(path), "FILE")
        assert "\n" not in message and len(message) < 5000, message
        return "refused", message
    return "read", [(q, run[q].doc_ids, run[q].scores.tolist(), run[q].ranks.tolist()) for q in run]


def check_parquet_run(rng: random.Random, folder: Path) -> str:
    """Compare both readers of a parquet run with columns of any type."""
    size = rng.randrange(1, 20)
    set_block_rows(rng.choice([1, 3, 500_000]))
    columns: dict[str, pa.Array] = {}
    for name in rng.sample(["query_id", "qid", "doc_id", "docno", "score", "rank", "other"], rng.randrange(2, 7)):
        usual = IDS[:7] if "id" in name or name == "docno" else [1.5, 2.0, -3.0]
        values: list = [rng.choice(usual) for _ in range(size)]
        if "id" in name and rng.random() < 0.3:
            values = [rng.randrange(5) for _ in range(size)]
        if rng.random() < 0.15:
            values = [rng.choice([*IDS, *VALUES[:1]]) for _ in range(size)]
        elif rng.random() < 0.15:
            values = [rng.choice(VALUES)] * size
        columns[name] = pa.array(values)
        if pa.types.is_string(columns[name].type) and rng.random() < 0.3:
            columns[name] = columns[name].dictionary_encode()
    path = folder / "a.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=rng.choice([1, 5, 100]))
    if rng.random() < 0.2:
        path.write_bytes(damaged(path.read_bytes(), rng))
    outcomes = [outcome(lambda r=reader: r(str(path)), path) for reader in (small, cached_run)]
    assert outcomes[0] == outcomes[1], (columns, outcomes)
    return outcomes[0][0]


def check_texts(rng: random.Random, folder: Path) -> str:
    """Compare both readers of passages or queries in any format."""
    form = rng.choice([".tsv", ".jsonl", ".csv", ".json", ".txt", ".parquet"])
    kind, fields = rng.choice(["passages", "queries"]), Fields()
    rows, good = [], rng.random() < 0.5
    for number in range(rng.randrange(0, 15)):
        text_id = f"d{number}" if rng.random() < 0.9 else rng.choice(IDS[:7] if good else IDS)
        rows.append((text_id, " ".join(rng.choice(WORDS[:5] if good else WORDS) for _ in range(rng.randrange(4)))))
    if form == ".parquet":
        table = pa.table({"_id": [one for one, _ in rows], "text": [text or None for _, text in rows]})
        pq.write_table(table, folder / "t.parquet")
        content = (folder / "t.parquet").read_bytes()
    else:
        names = rng.choice([("_id", "text"), ("sku", "title", "body"), ("id", "title", "text")])
        if names[0] == "sku" and rng.random() < 0.9:
            fields = Fields("sku", ("title", "body"))
        lines = [header(form, names)] if form == ".csv" or rng.random() < 0.3 else []
        lines += [line_of(rng, form, names, *row) for row in rows]
        text = "".join(line + ("\n" if good else rng.choice(ENDS[:6])) for line in lines)
        content = text.encode("utf-8", "surrogatepass")
    content = content if good else damaged(content, rng)
    suffix = form if form == ".parquet" or rng.random() < 0.6 else f"{form}.gz"
    path = folder / f"t{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    read = read_queries if kind == "queries" else lambda source, fields: read_passages(source, Everything(), fields)
    in_memory = text_outcome(lambda: dict(read(str(path), fields)), path)
    on_disk = text_outcome(lambda: stored(str(path), kind, fields), path)
    assert in_memory == on_disk, (content, kind, fields, in_memory, on_disk)
    return in_memory[0]


class Everything(set):
    """A set that holds every id."""

    def __contains__(self, _: object) -> bool:
        return True


def stored(source: str, kind: str, fields: Fields) -> dict[str, str]:
    """Read all texts through the store on disk; queries without text are not asked for."""
    store = distill.data.token_store.open_token_store(source, None, 0, kind, fields)
    texts = {store.text_id(row): bytes(store[row].astype("uint8")).decode() for row in range(len(store))}
    if kind == "queries":
        texts = {text_id: text for text_id, text in texts.items() if text}
        if not texts:
            raise InputError(f"{source}: holds no query with a text: expected lines of `id<TAB>text`")
    return texts


def text_outcome(read, path: Path) -> tuple:
    """What a reader of texts gives, in the shape of `outcome`."""
    try:
        return "read", sorted(read().items())
    except InputError as error:
        message = str(error).replace(str(path), "FILE")
        assert "\n" not in message and len(message) < 5000, message
        return "refused", message


def header(form: str, names: tuple[str, ...]) -> str:
    """Return a line with the names of the columns."""
    return (
        json.dumps({name: name for name in names})
        if form == ".jsonl"
        else ("," if form == ".csv" else "\t").join(names)
    )


def line_of(rng: random.Random, form: str, names: tuple[str, ...], text_id: str, text: str) -> str:
    """Return a line of a text, mostly in the format of its file."""
    if form in (".jsonl", ".json") or rng.random() < 0.02:
        row: dict = dict.fromkeys(names, text) | {names[0]: text_id}
        if rng.random() < 0.05:
            row[rng.choice(names)] = rng.choice([None, 7, 1.5, True, ["x"], {"a": 1}, "\ud800", 10**400])
        if rng.random() < 0.02:
            return "[" * rng.choice([3, 100_000]) + json.dumps(row)[:-1] + ', "x": ' + "1" * 5000 + "}"
        return json.dumps(row, ensure_ascii=rng.random() < 0.5)
    if form == ".csv":
        cells = [text_id, *[f'"{text}"' if rng.random() < 0.5 else text.replace("\n", " ")] * (len(names) - 1)]
        return ",".join(cells)
    return "\t".join([text_id, *[text.replace("\t", " ")] * (len(names) - 1 if rng.random() < 0.9 else 3)])


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the content as it is, mostly, or cut, with a byte changed, added or doubled."""
    if not content or rng.random() < 0.6:
        return content
    place = rng.randrange(len(content))
    byte = bytes([rng.choice([0, 9, 10, 13, 32, 34, 95, 0x85, 0xA0, 0xC2, 0xFF, rng.randrange(256)])])
    return rng.choice(
        [
            content[:place],
            content[:place] + byte + content[place + 1 :],
            content[:place] + byte + content[place:],
            content[:place] + content[place:] * 2,
            content[place:],
        ]
    )


class _Bytes(Encoder):
    """Stands for a tokenizer: the UTF-8 bytes of a text are its tokens, so that the store gives the text back."""

    def __init__(self, *_):
        self.dtype = np.dtype("uint16")

    def __call__(self, chunk):
        tokens = [np.frombuffer(text.encode(), np.uint8).astype(self.dtype) for _, text in chunk]
        ids = [text_id.encode() for text_id, _ in chunk]
        return Chunk(
            np.concatenate(tokens),
            np.array([len(part) for part in tokens], np.int64),
            np.frombuffer(b"".join(ids), np.uint8),
            np.array([len(one) for one in ids], np.int64),
            np.zeros(len(chunk), np.uint8),
        )


def _encode_here(texts, *_):
    return map(_Bytes(), texts)


def use_bytes_as_tokens() -> None:
    """Let stores be made in this process, of bytes: what is compared is what was read."""
    distill.data.token_store.portable = lambda _: "bytes"
    distill.data.token_store.token_type = lambda _: np.dtype("uint16")
    distill.data.token_store._encode_in_processes = _encode_here


if __name__ == "__main__":
    use_bytes_as_tokens()
    options = dict(argument.split("=") for argument in sys.argv[1:])
    outcomes = main(minutes=float(options.get("minutes", 1)), seed=int(options.get("seed", 0)))
    for name, number in sorted(outcomes.items()):
        print(f"{number:10} {name}")
