"""Cross-encoders as teachers: an order of their own, or said where it is the first stage's."""

import json

import numpy as np
import pytest
import torch

from distill.errors import InputError
from distill.models.cross_encoder import CrossEncoder
from distill.models.saved import write_settings
from distill.sources.run_files import RankedList
from distill.sources.runs import read_run
from distill.sources.texts import read_passages, read_queries
from distill.teachers.ensemble import check_scores, score_lists
from distill.teachers.lists_to_rank import lists_to_rank
from distill.teachers.pointwise import mostly_tie
from tests.helpers.configuration import compose_config

IDENTITY = "torch.nn.modules.linear.Identity"


def save_model(directory, backbone, activation: str = IDENTITY, bias: float = 0.0, scale: float = 1.0):
    """Write a cross-encoder with an activation on its scores."""
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(str(backbone), query_length=3, passage_length=16)
    with torch.no_grad():
        model.head.bias.fill_(bias)
        model.head.weight.mul_(scale)
    model.save_pretrained(directory)
    file = directory / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"activation_fn": activation}))
    write_settings(model, directory)  # with the checksum of what the file now holds
    return directory


def rank(collection, *models):
    """Rank the small collection's lists with models, as `distill annotate` does."""
    run = read_run(str(collection["first_stage"]))
    passages = read_passages(str(collection["passages"]), {d for ranked in run.values() for d in ranked.doc_ids})
    overrides = ["passages=p", "queries=q", "run=r", "llm@teacher.llm=cross-encoder"]
    cfg = compose_config("annotate", *overrides, f'teacher.llm.model="{",".join(map(str, models))}"')
    return score_lists(run, read_queries(str(collection["queries"])), passages, cfg)


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.Sigmoid", "torch.nn.modules.activation.Tanh"])
def test_a_saturating_last_activation_is_left_out_when_teaching(collection, backbone, tmp_path, caplog, activation):
    caplog.set_level("INFO")
    plain, _ = rank(collection, save_model(tmp_path / "plain", backbone, bias=40.0))
    saturated = save_model(tmp_path / "saturated", backbone, activation, bias=40.0)
    model = CrossEncoder.from_pretrained(str(saturated))
    assert model.rank("a bee", ["trains follow rails", "snow"])[1] == [1.0, 1.0]  # as sentence-transformers scores
    ranking, notes = rank(collection, saturated)
    assert all(ranking[q].doc_ids == plain[q].doc_ids and min(ranking[q].scores) > 30 for q in plain)
    kind = activation.rsplit(".", 1)[1].lower()
    note = f"{saturated}: scores are taken before its final {kind}, which would make high scores equal"
    assert notes[0] == note and note in caplog.messages


def test_queries_that_a_teacher_does_not_read_to_their_end_are_noted(collection, backbone, tmp_path):
    model = save_model(tmp_path / "model", backbone)
    _, notes = rank(collection, model)
    assert notes == [f"{model}: 2 of 6 queries are longer than its 3 tokens and were truncated"]


def test_lists_of_one_passage_are_left_out_and_counted(collection, caplog):
    run = dict(read_run(str(collection["first_stage"])))
    run["q4"] = run["q4"].cut(1)
    passages = {doc_id: "a bee" for ranked in run.values() for doc_id in ranked.doc_ids}
    passages |= dict.fromkeys(run["q2"].doc_ids[1:], "")
    cfg = compose_config("annotate", "passages=p", "queries=q", "run=r")
    assert "q2" not in lists_to_rank(run, cfg, passages) and "q4" not in lists_to_rank(run, cfg, passages)
    assert "r: 2 of 6 queries have fewer than two passages to rank: left out (first: q2)" in caplog.messages
    with pytest.raises(InputError, match="r: no query has two non-empty passages"):
        lists_to_rank({"q4": run["q4"]}, cfg, passages)


def test_a_teacher_that_gives_every_passage_one_score_is_refused(collection, backbone, tmp_path):
    model = save_model(tmp_path / "model", backbone, bias=7.0, scale=0.0)
    with pytest.raises(
        InputError, match="gives all passages of every list the same score .query q0: 7., so it ranks nothing"
    ):
        rank(collection, save_model(tmp_path / "good", backbone), model)


def test_lists_in_which_most_scores_tie_are_counted_with_the_first(caplog):
    scored = {
        "q1": [4.0, 3.0, 2.0, 1.0],
        "q2": [1.0, 1.0, 1.0, 0.5],
        "q3": [1.0, 1.0, 1.0, 1.0],
        "q4": [1.0, 1.0, 0.5, 0.25],
    }
    scored = {q: RankedList.in_order(list("abcd"), np.array(scores)) for q, scores in scored.items()}
    note = (
        "MODEL: in 2 of 4 lists more than half of the passages share a score with another (in 1, all share one "
        "score): those passages tie, which teaches no order (first: query q2)"
    )
    assert check_scores(scored, "MODEL") == [note] == caplog.messages
    assert check_scores({"q1": scored["q1"], "q4": scored["q4"]}, "MODEL") == []


def test_a_teachers_score_that_is_no_number_is_refused():
    for score in (np.nan, np.inf):
        scored = {"q1": RankedList.in_order(["a", "b"], np.array([1.0, score]))}
        with pytest.raises(InputError, match="MODEL: gives a passage of query q1 a score that is not finite"):
            check_scores(scored, "MODEL")


def test_more_than_half_of_the_scores_must_tie():
    assert not mostly_tie([1.0, 1.0, 0.5, 0.2]) and mostly_tie([1.0, 1.0, 0.5]) and mostly_tie([2, 2, 1, 1])
    assert not mostly_tie([]) and mostly_tie([None, None, 1.0])
