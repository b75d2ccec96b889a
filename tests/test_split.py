"""Queries held out of training: near-duplicates by definition and by hand, and what may not be parted."""

import json
import random

import pytest

from distill.commands.split import check, split
from distill.config.checks import check_values
from distill.data import heldout
from distill.data.heldout import hold_out, number_of, together
from distill.data.near_duplicates import groups_of, jaccard, similar_pairs, trigrams, words
from distill.errors import InputError
from distill.sources.texts import read_queries
from tests.helpers.configuration import compose_config


def test_trigrams_and_their_similarity_are_those_worked_by_hand():
    assert trigrams("A bee!") == {" a ", " be", "bee", "ee "}
    assert words("To be, or NOT to be") == {"to", "be", "or", "not"}
    assert trigrams("ＢＥＥ") == trigrams("bee") and trigrams("蜜蜂跳舞") == {" 蜜蜂", "蜜蜂跳", "蜂跳舞", "跳舞 "}
    assert trigrams(" ?! ") == {" ?!", "?! "} and trigrams("a") == {" a "}
    # " be", "bee" of both; "ee ", and "ees", "es "
    assert jaccard(trigrams("bee"), trigrams("bees")) == 2 / 5


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.85, 1.0])
def test_all_similar_pairs_are_found_and_no_others(similarity):
    generator = random.Random(1)
    sets = [frozenset(generator.choices("abcdefghijkl", k=generator.randint(1, 12))) for _ in range(150)]
    sets = [*dict.fromkeys(sets)]
    by_definition = {
        (one, other)
        for other in range(len(sets))
        for one in range(other)
        if len(sets[one] & sets[other]) * 100 >= round(similarity * 100) * len(sets[one] | sets[other])
    }
    found = list(similar_pairs(sets, similarity))
    assert set(found) == by_definition and len(found) == len(by_definition)
    assert bool(found) == (similarity < 1)


def test_near_duplicates_are_typos_and_other_orders_not_other_questions():
    queries = {
        "a": "how do I reset my password",
        "b": "How do I reset my passwrd?",
        "c": "my password, how do i RESET",
        "d": "how do I change my address",
        "e": "what is the capital of France",
        "f": "what is the capital of Germany",
        "g": "密码怎么重置",
        "h": "密码怎么重置？",
    }
    assert groups_of(queries, 0.7) == [["a", "b", "c"], ["d"], ["e"], ["f"], ["g", "h"]]


def test_what_belongs_together_is_joined_over_passages_articles_and_wordings():
    queries = {f"q{n}": text for n, text in enumerate("red green blue white black blues rose grey".split())}
    origins = {"q0": {"d7#0": 1}, "q1": {"d7#12": 1}, "q2": {"d7#1": 0, "q3": 1}, "q3": {"d8": 1}, "q6": {"d8": 1}}
    assert together(queries, 1.0) == [[query_id] for query_id in queries]
    # q0 and q1 share an article, q3 and q6 a passage; a passage with the id of a query is another thing
    assert together(queries, 1.0, origins) == [["q0", "q1"], ["q2"], ["q3", "q6"], ["q4"], ["q5"], ["q7"]]
    # "blue" and "blues" have 3 of 6 trigrams in common, and d7 and d8 nearly the same words
    passages = {"d7#0": "a b c d e f g h", "d7#12": "x", "q3": "y", "d8": "H a b c d e f g"}
    assert together(queries, 0.5, origins, passages) == [["q0", "q1", "q3", "q6"], ["q2", "q5"], ["q4"], ["q7"]]


@pytest.mark.parametrize(("number", "share", "least", "expected"), [
    (1000, 0.1, 20, 100), (150, 0.1, 20, 20), (45, 0.1, 20, 15), (3, 0.1, 20, 1), (2, 0.1, 20, 1), (40, 0.5, 20, 20),
])  # fmt: skip
def test_the_number_held_out_leaves_most_for_training(number, share, least, expected):
    assert number_of(number, share, least) == expected


def test_groups_are_drawn_whole_by_the_seed_whatever_their_order():
    groups = [[f"{size}-{n}-{i}" for i in range(size)] for size in (1, 2, 3) for n in range(30)]
    drawn = hold_out(groups, 18, seed=0)
    assert 15 < len(drawn) <= 18 and all(set(group) <= drawn or not set(group) & drawn for group in groups)
    assert hold_out([group[::-1] for group in reversed(groups)], 18, seed=0) == drawn != hold_out(groups, 18, seed=1)
    with pytest.raises(InputError, match="raise similarity"):
        hold_out([["a", "b", "c", "d"], ["e", "f", "g"]], 2, seed=0)
    with pytest.raises(InputError, match="others are left"):
        hold_out([["a"]], 1, seed=0)


@pytest.fixture
def files(tmp_path):
    nouns = [f"{letter}{n}{letter * 3}" for letter in "bcdfghjkl" for n in range(5)]  # no two are similar
    lines = [f"q{n}\twhere is {noun}\n" for n, noun in enumerate(nouns)] + ["e\t\n"]
    (tmp_path / "q.tsv").write_text("".join(lines))
    (tmp_path / "o.txt").write_text("".join(f"q{n} 0 d{n // 3}#{n % 3} 1\n" for n in range(30)))
    (tmp_path / "p.tsv").write_text("".join(f"d{n // 3}#{n % 3}\tabout {n} and {n * n}\n" for n in range(30)))
    return tmp_path


def configure(files, output="out", **more):
    overrides = [f"queries={files}/q.tsv", f"origins={files}/o.txt", f"output={files / output}"]
    return compose_config("split", *overrides, *(f"{key}={value}" for key, value in more.items()))


def test_the_command_writes_both_sides_and_counts_once_and_whole(files, monkeypatch, capsys, caplog):
    counts = split(configure(files, passages=files / "p.tsv"))
    sides = {name: read_queries(str(files / "out" / f"{name}.tsv")) for name in ("train", "heldout")}
    whole = read_queries(str(files / "q.tsv"))
    assert sides["train"].items() | sides["heldout"].items() == whole.items() and len(whole) == 45
    numbers = {int(query_id[1:]) for query_id in sides["heldout"]}
    assert 12 <= len(numbers) <= 15  # a third of 45, as 20 would be too many
    assert all({n, n + 1, n + 2} <= numbers or not {n, n + 1, n + 2} & numbers for n in range(0, 30, 3))
    expected = {"queries": 45, "train": 45 - len(numbers), "heldout": len(numbers), "groups": 25, "largest_group": 3}
    assert counts == expected == json.loads((files / "out" / "results.json").read_text())
    assert "largest group         3" in capsys.readouterr().out
    with pytest.raises(InputError, match="already exists"):
        split(configure(files))
    monkeypatch.setattr(heldout, "MOST", 0)  # fails after the configuration was accepted
    with pytest.raises(ZeroDivisionError):
        split(configure(files, "other"))
    assert not (files / "other").exists()


def test_only_logged_queries_have_no_origins(files):
    (files / "o.txt").write_text("")  # as `generate num_queries=0` leaves it
    assert split(configure(files, passages=files / "p.tsv"))["groups"] == 45


def test_wrong_files_and_keys_are_refused_in_one_line(files):
    (files / "o.txt").write_text("x 0 d1 1\n")
    with pytest.raises(InputError, match="names the passage of none of the 45 queries"):
        split(configure(files))
    (files / "o.txt").write_text("q1 0 d1 1\n")
    with pytest.raises(InputError, match="passage d1 is not in"):
        split(configure(files, passages=files / "p.tsv"))
    with pytest.raises(InputError, match="needs origins"):
        check(configure(files, passages=files / "p.tsv", origins="null"))
    for key, value in {"heldout": 0, "similarity": 1.2, "min_heldout": 0}.items():
        with pytest.raises(InputError, match=f"{key}={value}"):
            check_values(configure(files, **{key: value}))
