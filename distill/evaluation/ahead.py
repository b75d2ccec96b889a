"""Prepare the next piece of work in a thread while the current one is done.

with ahead(tokenise, groups) as prepared:
    for tokens in prepared: score(tokens)
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


@contextlib.contextmanager
def ahead(prepare: Callable[[Item], Prepared], items: Iterable[Item]) -> Iterator[Iterator[Prepared]]:
    """Yield prepare(item) of each item, in their order; what it raises is raised here, in its place.

    One item at a time is prepared, and at most one that nobody has taken. The thread has ended after the `with` block.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:

        def in_order() -> Iterator[Prepared]:
            waiting: Future[Prepared] | None = None
            for item in items:
                taken, waiting = waiting, pool.submit(prepare, item)
                if taken is not None:
                    yield taken.result()
            if waiting is not None:
                yield waiting.result()

        yield in_order()
