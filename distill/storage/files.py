"""Files as numbered lines, rows and columns: plain or gzipped text, JSON lines and CSV.

    form_of("passages.json")                                     # "jsonl"
    for place, line in numbered_lines("bm25.run.gz"): ...        # ("bm25.run.gz:7", b"q1 Q0 d7 1 2.5 bm25")
    for place, row in numbered_rows("lines.jsonl", "jsonl"): ...  # ("lines.jsonl:7", {"query": …})

All readers open files here, so they agree: a line ends with a line feed, or a carriage return and a line feed; a byte
order mark at the beginning is skipped; blank lines are skipped but counted; text is UTF-8. Damage raises InputError
with the file and, where there are lines, the line. So does a line, or a file once unpacked, that is too large: what
is in memory at a time is bounded.
"""

import csv
import functools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from distill.errors import InputError, refuse
from distill.storage.unpacking import unpacked

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DAMAGE = (OSError, EOFError, zlib.error)  # what reading a cut or damaged file raises; gzip.BadGzipFile is an OSError
MAX_LINE = 2**25  # bytes of a line, or of a CSV row: a line with the texts of a thousand long passages has 10 MB
BLOCK = 2**20  # bytes read at once
NO_TEXT = {  # how files of other kinds begin -> what they are, and the remedy
    b"%PDF": "a PDF: extract its text first, as `pdftotext FILE.pdf FILE.txt` does, and give the folder of these texts",
    b"PK\3\4": "a zip archive or an Office document: unpack it, or save the document as text or CSV",
    b"\xd0\xcf\x11\xe0": "an Office document: save it as text or CSV",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it, or pack it by gzip",
    b"\xfd7zX": "packed by xz: unpack it, or pack it by gzip",
}
TEXT = {bytes([code]) for code in (*b"\t\n\r", *range(32, 256))}  # what may follow in an id
BZIP2 = b"1AY&SY"  # how bzip2's files go on after BZh and a digit
MAX_ANSWERS = 2**27  # bytes of a file of permutations: the hundred thousand of RankGPT have 40 MB


def form_of(path: str) -> str:
    """Return how a file's content is laid out: "parquet", "jsonl", "csv" or "lines", by its content and its name.

    Raises InputError for a PDF and the like, and for a JSON array: there must be one row per line.
    """
    with open_bytes(path, unpack=False) as file:
        start = file.read(10)
    if path.endswith(".parquet") or (start[:4] == b"PAR1" and start[4:5] not in TEXT):  # an id may begin so
        return "parquet"
    if start[:4] in NO_TEXT:
        raise InputError(f"{path}: is {NO_TEXT[start[:4]]}")
    if start[:3] == b"BZh" and start[4:] == BZIP2:
        raise InputError(f"{path}: is packed by bzip2: unpack it, or pack it by gzip")
    name = path.removesuffix(".gz")
    if name.endswith(".csv"):
        return "csv"
    place, first = next(numbered_lines(path), ("", b""))
    first = first.strip()
    named_json = name.endswith((".jsonl", ".ndjson", ".json"))
    if first[:2] == b"[{" or (first[:1] == b"[" and named_json):
        raise InputError(f"{place}: is a JSON array: write one object per line, as `jq -c '.[]'` does")
    if named_json or (first[:1] == b"{" and _is_json(first)):
        return "jsonl"
    return "lines"


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def open_bytes(path: str, *, unpack: bool = True) -> BinaryIO:
    """Open a file for reading bytes, unpacked if its name ends with .gz or it begins as such files do.

    Raises InputError where it cannot be opened.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}): check the path and its permissions") from None
    is_packed = unpack and (file.read(2) == b"\x1f\x8b" or path.endswith(".gz"))
    file.seek(0)
    return unpacked(path, file) if is_packed else file


def is_longer(path: str, size: int) -> bool:
    """Whether a file has more bytes than `size`, unpacked if it is packed; a damaged one ends at the damage."""
    try:
        with open_bytes(path) as file:
            while size >= 0 and (read := file.read(min(size + 1, BLOCK))):
                size -= len(read)
    except DAMAGE:
        pass
    return size < 0


def numbered_lines(path: str, *, raw: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield ("path:number", line) of every line that is not blank, without its end; raw: of every line, with its end.

    Raises InputError, with the line, where the file is damaged.
    """
    number = 0
    try:
        with open_bytes(path) as file:
            for number, line in enumerate(iter(functools.partial(file.readline, MAX_LINE + 1), b""), start=1):
                if len(line) > MAX_LINE:
                    raise too_long(f"{path}:{number}")
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if raw:
                    yield f"{path}:{number}", line
                elif line.strip():
                    yield f"{path}:{number}", line.removesuffix(b"\n").removesuffix(b"\r")
    except DAMAGE as error:
        raise unreadable(f"{path}:{number + 1}", error) from None


def too_long(place: str) -> InputError:
    """Return the error for a line that is too long to be read."""
    return InputError(f"{place}: has more than {MAX_LINE / 1e6:.0f} MB: expected one query or passage a line")


def text_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yield ("path:number", line) like `numbered_lines`, as text; raises InputError if it is not UTF-8."""
    for place, line in numbered_lines(path):
        yield place, as_text(line, place)


def as_text(line: bytes, place: str) -> str:
    """Return bytes as text; raises InputError if they are not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable(place, error) from None


def unreadable(place: str, error: Exception) -> InputError:
    """Return the error for a line whose bytes cannot be read."""
    remedy = ""
    if isinstance(error, UnicodeDecodeError):
        older = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "WINDOWS-1252"
        remedy = f": `iconv -f {older} -t UTF-8` converts what other programs export"
    return InputError(f"{place}: cannot be read ({error}): expected UTF-8 text, plain or .gz{remedy}")


def numbered_rows(path: str, form: str, refused: Callable[[InputError], None] = refuse) -> Iterator[tuple[str, dict]]:
    """Yield (place, row) of every row of a "jsonl" or "csv" file, or of "columns" of TSV below a header.

    refused: gets the error of a row that cannot be read, and may return, to continue with the next. Raises InputError
    otherwise, and where the rest of the file cannot be read either.
    """
    if form == "jsonl":
        rows = _json_rows(path)
    elif form == "csv":
        rows = _csv_rows(path)
    else:
        rows = _tsv_rows(path)
    for place, read in rows:
        try:
            row = read()
        except InputError as error:
            refused(error)
            continue
        yield place, row


def _json_rows(path: str) -> Iterator[tuple[str, Callable[[], dict]]]:
    for place, line in numbered_lines(path):
        yield place, functools.partial(_json_row, line, place)


def _json_row(line: bytes, place: str) -> dict:
    return parse_object(as_text(line, place), place)


def _tsv_rows(path: str) -> Iterator[tuple[str, Callable[[], dict]]]:
    lines = numbered_lines(path)
    place, header = next(lines, ("", b""))
    names = unique_names(as_text(header, place).split("\t"), place)
    for place, line in lines:
        yield place, functools.partial(_tsv_row, names, line, place)


def _tsv_row(names: list[str], line: bytes, place: str) -> dict[str, str]:
    return _row(names, as_text(line, place).split("\t"), place)


def parse_object(line: str, place: str) -> dict:
    """Return the JSON object of a line; raises InputError for anything else, and for a duplicate key."""
    try:
        row = _decoder.decode(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}: is not a JSON object ({error.msg}): expected one per line") from None
    except RecursionError:
        raise InputError(f"{place}: is JSON that cannot be read: it is nested too deeply") from None
    except ValueError as error:  # a duplicate key, or a whole number of more than 4300 digits
        raise InputError(f"{place}: is JSON that cannot be read ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{place}: is not a JSON object: expected one per line, in braces")
    return row


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"`{next(key for key in keys if keys.count(key) > 1)}` appears twice: keep one of the two")
    return row


_decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)  # json.loads would build one for each line


def unique_names(names: list[str], place: str) -> list[str]:
    """Return the names of a header, stripped; raises InputError for a duplicate name."""
    names = [name.strip() for name in names]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InputError(f"{place}: two columns are called {name!r}: rename one of them")
    return names


def _row(names: list[str], cells: list[str], place: str) -> dict[str, str]:
    if len(cells) != len(names):
        raise InputError(
            f"{place}: {len(cells)} columns, but the header has {len(names)}: give each row a cell for each column"
        )
    return dict(zip(names, cells, strict=True))


def _csv_rows(path: str) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Yield how to read each row of a CSV file with a header.

    Cells are separated by commas, semicolons or tabs, whichever the header has most of, or as a line `sep=;` says,
    which Excel writes above the header.
    """
    first = next(text_lines(path), ("", ""))[1]
    said = re.fullmatch(r"sep=(.)", first.strip("\r\n"))
    delimiter = said[1] if said else max(",;\t", key=lambda candidate: _num_cells(first, candidate))
    row_bytes = 0
    fault: InputError | None = None  # of the bytes of a row

    def lines() -> Iterator[str]:
        nonlocal row_bytes, fault
        for place, line in numbered_lines(path, raw=True):
            row_bytes += len(line)  # of a row, which may span several lines
            if row_bytes > MAX_LINE:
                raise too_long(f"{path}:{number}")
            try:
                text = as_text(line, place)
            except InputError as error:  # of this row alone
                fault, text = fault or error, line.decode("utf-8", "surrogateescape")
            yield text

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    names, number = None, 1
    while True:
        place, row_bytes, fault = f"{path}:{number}", 0, None
        others_limit = csv.field_size_limit(MAX_LINE)  # set for the whole process, which others rely on
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{place}: is not CSV ({error}): correct the quotes of the row that begins here") from None
        finally:
            csv.field_size_limit(others_limit)
        number = reader.line_num + 1
        if cells is None:
            return
        if not any(cell.strip() for cell in cells) or (said and names is None and cells == ["sep=", ""]):
            continue
        if names is None:
            if fault is not None:
                raise fault
            names = unique_names(cells, place)
        elif fault is not None:
            yield place, functools.partial(refuse, fault)
        else:
            yield place, functools.partial(_row, names, cells, place)


def _num_cells(header: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=delimiter, strict=True), []))
    except csv.Error:
        return 0


def numbered_answers(path: str) -> Iterator[tuple[str, str]]:
    """Yield ("path: answer number", text) of a JSON array of texts; raises InputError for anything else."""
    try:
        with open_bytes(path) as file:
            content = file.read(MAX_ANSWERS + 1)
        if len(content) > MAX_ANSWERS:
            raise InputError(f"{path}: has more than {MAX_ANSWERS / 1e6:.0f} MB: expected an array of short answers")
        answers = json.loads(content.removeprefix(BYTE_ORDER_MARK).decode("utf-8"))
    except InputError:
        raise
    except (*DAMAGE, ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(
            f"{path}: is not JSON ({reason}): expected an array of answers such as `[3] > [1] > [2]`"
        ) from None
    if not isinstance(answers, list):
        raise InputError(f"{path}: is not a JSON array: expected one of answers such as `[3] > [1] > [2]`")
    for number, answer in enumerate(answers, start=1):
        place = f"{path}: answer {number}"
        if not isinstance(answer, str):
            raise InputError(f"{place} is not text: expected one such as `[3] > [1] > [2]`")
        yield place, answer
