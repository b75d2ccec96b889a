"""Work prepared in a thread: its order, its errors, and how much is prepared at once."""

import threading

import pytest

from distill.errors import InputError
from distill.evaluation.ahead import ahead


def test_items_come_in_their_order_from_another_thread():
    def prepare(item: int) -> tuple[int, bool]:
        return item, threading.current_thread() is threading.main_thread()

    with ahead(prepare, range(5)) as prepared:
        assert list(prepared) == [(item, False) for item in range(5)]
    with ahead(prepare, ()) as prepared:
        assert not list(prepared)


def test_the_next_item_is_prepared_while_the_current_one_is_used_and_no_more():
    begun = [threading.Event() for _ in range(4)]
    with ahead(lambda item: begun[item].set() or item, range(4)) as prepared:
        assert next(prepared) == 0
        assert begun[1].wait(60)  # it does not need another next()
        assert not begun[2].is_set() and not begun[3].is_set()
        assert list(prepared) == [1, 2, 3]


def test_an_error_is_raised_in_the_items_place():
    def prepare(item: int) -> int:
        if item == 1:
            raise InputError("a text is damaged")
        return item

    taken = []
    with pytest.raises(InputError, match="a text is damaged"), ahead(prepare, range(4)) as prepared:
        taken.extend(prepared)
    with pytest.raises(InputError, match="a text is damaged"), ahead(prepare, range(4)) as prepared:
        for item in prepared:
            taken.append(item)
    assert taken[-1] == 0


def test_the_thread_has_ended_when_the_work_stops_early():
    with pytest.raises(SystemExit), ahead(lambda item: item, range(100)) as prepared:
        for _ in prepared:
            raise SystemExit(130)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
