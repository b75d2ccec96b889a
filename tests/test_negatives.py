"""Negatives chosen by the teacher's scores: worked by hand, in the lists of a run, and what is refused."""

import logging

import numpy as np
import pytest
from omegaconf import OmegaConf

from distill.config.checks import check_train
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.negatives import REPORT, Negatives
from distill.data.pairs import PairTemplate
from distill.data.teacher_lists import RankedLists
from distill.errors import InputError
from distill.models.parts import load_tokenizer
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from tests.helpers.configuration import compose_config, decoded_lists
from tests.helpers.training import run_train

NAN = float("nan")
DOC_IDS = ["a", "b", "c", "d", "e"]
# c and e are relevant, and c scores best of these; nothing is known of d
TARGETS = {
    "label": np.array([0, 0, 2, 0, 1]),
    "score": np.array([10.0, 7.7, 8.0, NAN, 3.0]),
    "rank": np.array([1.0, 3.0, 2.0, NAN, 4.0]),
}


def judge(targets=TARGETS, **rules) -> tuple[list, list, Negatives]:
    names = ("max_percent_of_positive", "margin", "max_score", "ranks")
    given = dict.fromkeys(names) | {"positive": "best", "false_negatives": "drop"} | rules
    negatives = Negatives(OmegaConf.create(given))
    labels = negatives.judge("q1", DOC_IDS, targets)
    kept = [doc_id for doc_id, label in zip(DOC_IDS, labels, strict=True) if not np.isnan(label)]
    return labels[~np.isnan(labels)].tolist(), kept, negatives


@pytest.mark.parametrize(
    "rules, kept",
    [
        ({"max_percent_of_positive": 0.95}, "cde"),  # 7.6 at most
        ({"max_percent_of_positive": 0.97}, "bcde"),  # 7.76
        ({"margin": 0.0}, "bcde"),
        ({"margin": 0.5}, "cde"),  # 7.5
        ({"max_score": 7.7}, "bcde"),  # that score itself is allowed
        ({"max_score": 7.0}, "cde"),
        ({"max_score": 9.0, "margin": 0.5}, "cde"),  # the stricter of two
        ({"margin": 0.0, "positive": "worst"}, "cde"),  # 3
        ({"max_percent_of_positive": 1.5, "positive": "median"}, "bcde"),  # 8.25
        ({"max_percent_of_positive": 1.3, "positive": "median"}, "cde"),  # 7.15
        ({"ranks": [2, 3]}, "bce"),  # relevant passages stay, and d has no rank
        ({"ranks": [1, 3], "margin": 0.0}, "bce"),
    ],
)
def test_the_negatives_that_are_left_by_hand(rules, kept):
    labels, left, _ = judge(**rules)
    assert left == list(kept) and labels == [dict(zip(DOC_IDS, TARGETS["label"], strict=True))[one] for one in kept]


def test_false_negatives_become_relevant_where_they_are_relabelled(caplog):
    caplog.set_level(logging.INFO)
    labels, left, negatives = judge(margin=0.5, ranks=[1, 2], false_negatives="relabel")
    assert labels == [1, 1, 2, 1] and left == list("abce")
    negatives.report("t.run")
    assert caplog.messages == [
        "t.run: 2 of 3 negatives score too high to be irrelevant: relabelled as relevant "
        "(first: passage a of query q1)",
        "t.run: 1 of 3 negatives are outside the ranks 1 to 2: left out",
    ]


def test_a_list_whose_relevant_passages_have_no_score_keeps_its_negatives(caplog):
    caplog.set_level(logging.INFO)
    unscored = TARGETS | {"score": np.array([10.0, 7.7, NAN, 1.0, NAN])}
    _, left, negatives = judge(unscored, margin=0.5)
    assert left == DOC_IDS and judge(unscored, margin=0.5, max_score=9.0)[1] == list("bcde")
    negatives.report("t.run")
    assert "t.run: scores no relevant passage of 1 lists, whose negatives all count" in caplog.text


def test_a_share_of_a_score_below_0_is_refused():
    below = TARGETS | {"score": TARGETS["score"] - 10}
    with pytest.raises(InputError, match=r"=0.95: the relevant passage of query q1 has the score -2, and a share of"):
        judge(below, max_percent_of_positive=0.95)
    assert judge(below, margin=0.5)[1] == list("cde")


def relevant_at(collection, place: int) -> None:
    """Judge the passage at this place of each of the teacher's lists relevant, and no other."""
    teacher = read_run(str(collection["teacher"]))
    lines = [f"{query_id} 0 {ranked.doc_ids[place]} 1\n" for query_id, ranked in teacher.items()]
    collection["qrels"].write_text("".join(lines))


@pytest.mark.parametrize("loss", ["lce", "ranknet-lce"])
def test_negatives_above_the_relevant_passage_are_left_out_where_labels_teach(file_overrides, collection, loss, caplog):
    caplog.set_level(logging.INFO)
    relevant_at(collection, 2)  # the scores of a list fall from 19 to 10, by 1
    cfg = compose_config("train", *file_overrides, f"loss={loss}", "data.negatives.margin=1.5")
    check_train(cfg)
    lists, whole = decoded_lists(cfg), read_run(str(collection["teacher"]))
    assert len(lists) == 6
    for one in lists:
        doc_ids = whole[one.query_id].doc_ids
        if loss == "lce":  # places 0, 1 and 3 are within the margin
            assert one.doc_ids == [doc_ids[2], *doc_ids[4:]] and one.target.tolist() == [1, *[0] * 6]
        else:  # RankNet learns from all passages
            assert one.doc_ids == doc_ids and one.targets["rank"].tolist() == [*range(1, 11)]
            np.testing.assert_array_equal(one.targets["label"], [NAN, NAN, 1, NAN, *[0] * 6])
    assert "18 of 54 negatives score too high to be irrelevant: left out (first: passage" in caplog.text


def test_a_refused_training_leaves_no_list_of_false_negatives(file_overrides, collection, tmp_path):
    relevant_at(collection, 2)
    queries = tmp_path / "twice.tsv"
    queries.write_text(2 * collection["queries"].read_text())
    with pytest.raises(InputError, match="appears twice"):
        run_train(tmp_path / "out", *file_overrides, "loss=lce", "data.negatives.margin=1.5", f"data.queries={queries}")
    assert not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("largest", [10, 250_000], ids=["on disk", "in memory"])
def test_false_negatives_are_listed_in_the_output_directory(file_overrides, collection, tmp_path, monkeypatch, largest):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("distill.data.teacher_lists.MAX_IN_MEMORY", largest)
    relevant_at(collection, 2)
    rules = ["loss=lce", "data.negatives.margin=1.5", "data.negatives.false_negatives=relabel"]
    cfg = compose_config("train", *file_overrides, *rules)
    whole = read_run(str(collection["teacher"]))
    expected = ["query_id\tdoc_id\trank\tscore\thighest_allowed\twhat_was_done"]
    for query_id, ranked in whole.items():  # the relevant passage scores 17
        for place in (0, 1, 3):
            row = (query_id, ranked.doc_ids[place], str(place + 1), str(19 - place), "15.5", "relabelled as relevant")
            expected.append("\t".join(row))
    for name in ("first", "second"):  # the second comes from the cache
        (tmp_path / name).mkdir()
        read_lists(cfg, load_tokenizer(cfg.backbone.name), report=tmp_path / name / REPORT)
        assert [path.name for path in (tmp_path / name).iterdir()] == [REPORT]
        assert (tmp_path / name / REPORT).read_text().splitlines() == expected
    plain = compose_config("train", *file_overrides, "loss=lce")
    read_lists(plain, load_tokenizer(cfg.backbone.name), report=tmp_path / "cache" / REPORT)
    assert not (tmp_path / "cache" / REPORT).exists()


def test_labels_that_are_hidden_in_the_sample_are_found_again(tmp_path):
    cfg = compose_config("train", "loss=lce-kl", "data.depth=null")
    qrels, teacher = read_qrels(cfg.teacher.qrels), read_run(cfg.teacher.path)
    relevant = {query_id: {d for d, grade in judged.items() if grade >= 2} for query_id, judged in qrels.items()}
    known = [(q, d) for q in teacher for d in teacher[q].doc_ids if len(relevant[q]) > 1 and d in relevant[q]]
    hidden = {known[row] for row in np.random.default_rng(0).permutation(len(known))[: len(known) // 10]}
    lines = [f"{q} 0 {d} 2\n" for q, doc_ids in relevant.items() for d in doc_ids if (q, d) not in hidden]
    cfg.teacher.qrels = str(tmp_path / "hidden.qrels")
    (tmp_path / "hidden.qrels").write_text("".join(lines))
    lists = list(RankedLists(cfg))
    for positive, recall, precision in [("best", 0.06, 1.0), ("median", 0.5, 0.98), ("worst", 0.95, 0.52)]:
        rules = compose_config("train", "data.negatives.margin=0", f"data.negatives.positive={positive}").data.negatives
        negatives = Negatives(rules)
        judged = [(one, negatives.judge(one.query_id, one.doc_ids, one.targets)) for one in lists]
        found = {
            (one.query_id, one.doc_ids[place]) for one, labels in judged for place in np.isnan(labels).nonzero()[0]
        }
        assert len(found & hidden) / len(hidden) == pytest.approx(recall, abs=0.03)
        assert len(found & hidden) / len(found) == pytest.approx(precision, abs=0.02)


def test_no_negative_is_drawn_that_the_rules_exclude(file_overrides, collection):
    relevant_at(collection, 2)
    overrides = ["loss=ranknet-lce", "data.negatives.margin=1.5", "data.num_negatives=9", "train.batch_size=6"]
    cfg = compose_config("train", *file_overrides, *overrides)
    tokenizer = load_tokenizer(cfg.backbone.name)
    batch = BatchLoader(read_lists(cfg, tokenizer), PairTemplate.of(tokenizer), cfg)[0]
    assert batch.targets["label"].tolist() == [[1, *[0] * 6]] * 6  # 6 of the 9 are left


def test_a_list_without_a_negative_left_is_left_out(file_overrides, collection):
    relevant_at(collection, 9)
    with pytest.raises(InputError, match="no training list is left"):
        decoded_lists(compose_config("train", *file_overrides, "loss=lce", "data.negatives.margin=0"))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("data.negatives.margin=1", "data.negatives.margin=1.0 is about negatives by label, but loss=ranknet has none"),
        ("loss=lce data.negatives.margin=1 teacher.scores=false", "data.negatives.margin=1.0 needs the"),
        ("loss=lce data.negatives.max_score=1 teacher=labels teacher.first_stage=F teacher.qrels=Q",
         "data.negatives.max_score=1.0 needs the teacher's scores: give teacher.path with teacher.scores=true"),
        ("loss=lce data.negatives.ranks=[5,2]", "data.negatives.ranks=[5, 2]: must go up"),
        ("loss=lce data.negatives.ranks=[5]", "data.negatives.ranks=[5]: must have 2 values, not 1"),
        ("loss=lce data.negatives.margin=-1", "data.negatives.margin=-1.0: must be at least 0"),
        ("loss=lce data.negatives.max_score=nan", "data.negatives.max_score=nan: must be a finite number"),
        ("loss=lce data.negatives.positive=mean", "data.negatives.positive=mean is unknown: choose one of best"),
        ("loss=lce data.negatives.false_negatives=keep", "data.negatives.false_negatives=keep is unknown"),
        ("loss=lce data.depth=null teacher.format=triples data.negatives.ranks=[1,2]", "triples have one negative"),
    ],
)  # fmt: skip
def test_rules_that_nothing_could_follow_are_refused(overrides, message):
    with pytest.raises(InputError) as error:
        check_train(compose_config("train", *overrides.split()))
    assert message in str(error.value)
