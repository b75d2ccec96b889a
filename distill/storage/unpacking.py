"""Packed files, with a limit on what they unpack to: a few megabytes can hold terabytes of zeros.

file = unpacked(path, open(path, "rb"))           # a .gz file, read like a plain one
check_unpacked(path, packed_size, size)
"""

import gzip
import io
import os
from typing import BinaryIO, cast

from distill.errors import InputError

FREELY = 2**30  # bytes that any file may unpack to
MAX_RATIO = 200  # beyond that, to how many times its size; text reaches 3 to 10, runs 20, and a bomb of gzip 1000
BUFFER = 2**16


def unpacked(path: str, file: BinaryIO) -> BinaryIO:
    """Return the content of an open .gz file; reading raises InputError where it unpacks to too much."""
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path, file), BUFFER))


def check_unpacked(path: str, packed: int, size: int) -> None:
    """Raise InputError where a file of so many bytes unpacks to more than any that holds text."""
    if size > max(FREELY, MAX_RATIO * packed):
        raise InputError(
            f"{path}: unpacks to more than {MAX_RATIO} times its size, as hostile files do: if it should, "
            "write it as a plain file"
        )


class _Unpacked(io.RawIOBase):
    """The bytes of a .gz file, counted."""

    def __init__(self, path: str, file: BinaryIO):
        """Read from an open file, and close it in the end."""
        self.path, self.file, self.size = path, file, 0
        self.gzip = gzip.GzipFile(fileobj=file)
        self.packed = os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer) -> int:
        """Fill a buffer; raises InputError where the file unpacks to too much."""
        data = self.gzip.read(len(buffer))
        self.size += len(data)
        check_unpacked(self.path, self.packed, self.size)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file, too."""
        self.gzip.close()
        self.file.close()
        super().close()
