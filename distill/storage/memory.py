"""Memory that was freed, given back to the system: C's allocator keeps it, and so does pyarrow's.

give_back()                                     # after reading a large file, before something that lasts
"""

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back, as far as the C library can (glibc)."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pyarrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
