"""Small files of a run, which others may have sent: read in one piece, of a bounded size, with one line for damage.

text = read_small(path)                    # UTF-8
results = read_numbers(path)               # {"test/sample/nDCG@10": 0.71}, of results.json or latency.json
"""

import json
from pathlib import Path

from distill.errors import InputError
from distill.storage.json_numbers import is_finite

MAX_BYTES = 2**24  # a results.json has a hundred bytes for each number


def read_small(path: Path, most: int = MAX_BYTES) -> str:
    """Return the text of a file; raises InputError where it cannot be read, is no text, or has more bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise InputError(f"{path}:1: has more than {most} bytes: restore the file, or remove it")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: is not UTF-8 text ({error.reason}): restore the file, or remove it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): restore the file, or remove it") from None


def read_numbers(path: Path) -> dict[str, float]:
    """Read a JSON object of names and numbers; raises InputError with the line for anything else."""
    text = read_small(path)
    try:
        results = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: is not JSON ({error.msg}): restore the file, or remove it") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or depth
        raise InputError(f"{path}:1: is JSON that cannot be read ({error}): restore the file, or remove it") from None
    if not isinstance(results, dict):
        raise InputError(f"{path}:1: holds no object: expected metric names and numbers")
    for name, value in results.items():
        if not is_finite(value):
            line = text[: text.find(json.dumps(name))].count("\n") + 1
            raise InputError(f"{path}:{line}: {name} is {json.dumps(value)}: expected a finite number")
    return {name: float(value) for name, value in results.items()}
