"""Mixtures of losses: sums by hand, one part as the loss itself, several teachers, two passes and several ranks."""

import json

import numpy as np
import pytest
import torch

from distill.config.checks import check_train
from distill.data.batch import split_lists
from distill.data.lists import read_lists
from distill.data.loader import BatchLoader
from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.export.model_card import make_card
from distill.losses import kl, lce, ranknet
from distill.losses.objective import Objective
from distill.models.cross_encoder import CrossEncoder
from distill.models.parts import load_tokenizer
from distill.retrieval.fused_teacher import with_fused_teacher
from distill.sources.qrels import read_qrels
from distill.sources.runs import read_run
from distill.targets import targets_of
from distill.training.backward import backward
from distill.training.checkpoint import load_checkpoint
from distill.training.state import TrainingState
from tests.helpers.backbones import make_backbone
from tests.helpers.batches import random_batch
from tests.helpers.configuration import compose_config, decoded_lists, resumed
from tests.helpers.training import run_train
from train import train

NAN = float("nan")
# Of one list: the main teacher lacks the last passage, which has a label; another teacher lacks the first
SCORES = torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64)
MASK = torch.ones(1, 3, dtype=torch.bool)
TARGETS = {
    "rank": torch.tensor([[1.0, 2.0, NAN]]),
    "label": torch.tensor([[0.0, 0.0, 1.0]]),
    "llm.score": torch.tensor([[NAN, 1.0, 3.0]]),
}
PARTS = {
    "order": {"name": "ranknet", "target": "rank", "reduction": "mean"},
    "contrast": {"name": "lce", "target": "label", "reduction": "mean"},
    "scores": {"name": "kl", "target": "score", "temperature": 2.0, "reduction": "sum"},
}
MIXTURE = {
    "name": "mixture",
    "parts": PARTS,
    "weights": {"order": 0.5, "contrast": [2.0, 1.0], "scores": 3},
    "teachers": {"scores": "llm"},
}


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


def test_a_mixture_by_hand():
    objective = Objective(MIXTURE)
    losses = objective(SCORES, TARGETS, MASK)
    # RankNet of passages 1 and 2; LCE of passage 3 against both; KL of passages 2 and 3 with scores 0, 1 and 1, 3
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-0.5))
    divergence = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    expected = [softplus(-2), float(np.log(1 + np.exp(1) + np.exp(-1))), divergence]
    np.testing.assert_allclose(losses, expected, rtol=1e-7)
    assert objective.count_terms(TARGETS, MASK).tolist() == [1, 1, 0]  # a pair, a passage, a sum that is not divided
    assert [objective.weights(step, 5) for step in (0, 2, 4)] == [[0.5, 2.0, 3.0], [0.5, 1.5, 3.0], [0.5, 1.0, 3.0]]
    total = objective.weigh(losses, objective.weights(2, 5))
    assert total.item() == pytest.approx(0.5 * expected[0] + 1.5 * expected[1] + 3 * expected[2], rel=1e-7)


def test_a_passage_that_a_teacher_lacks_gets_no_gradient_of_its_part():
    scores = SCORES.clone().requires_grad_()
    objective = Objective(MIXTURE)
    for part, missing in ((0, 2), (2, 0)):
        (gradient,) = torch.autograd.grad(objective(scores, TARGETS, MASK)[part], scores)
        assert gradient[0, missing] == 0 and (gradient[0, [1]] != 0).all() and gradient.isfinite().all()


def test_guided_lce_learns_from_labels_and_the_scores_of_its_teacher():
    guided = {"name": "lce", "target": "label", "guided": True, "reduction": "mean"}
    guide = torch.tensor([[4.0, 1.0, 3.0]])  # the first passage is above the relevant third
    targets = {"label": TARGETS["label"], "score": guide, "llm.score": TARGETS["llm.score"]}
    objective = Objective(guided)
    assert targets_of(guided) == ["label", "score"] and objective.count_terms(targets, MASK).tolist() == [1]
    assert objective(SCORES, targets, MASK).item() == pytest.approx(softplus(-1), rel=1e-7)
    mixture = {"parts": {"a": guided}, "weights": {"a": 1}, "teachers": {"a": "llm"}}
    assert targets_of(mixture) == ["llm.label", "llm.score"]


def test_every_part_is_divided_by_its_own_terms_of_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    mask = torch.arange(6) < torch.tensor([6, 2, 5, 3])[:, None]
    targets = {
        "rank": torch.argsort(torch.randn(4, 6, generator=generator), dim=1).float() + 1,
        "label": (torch.randn(4, 6, generator=generator) > 0.5).float(),
        "llm.score": torch.randn(4, 6, generator=generator).masked_fill(torch.eye(4, 6).bool(), NAN),
    }
    objective = Objective(MIXTURE | {"weights": dict.fromkeys(PARTS, 1)})
    num_terms = objective.count_terms(targets, mask).clamp(min=1)
    halves = [slice(0, 1), slice(1, 4)]
    micro = sum(
        objective(scores[half], {name: values[half] for name, values in targets.items()}, mask[half]) for half in halves
    )
    known = mask & ~targets["llm.score"].isnan()
    whole = [
        ranknet(scores, targets["rank"], mask),
        lce(scores, targets["label"], mask),
        kl(scores, targets["llm.score"].nan_to_num(), known, temperature=2.0, reduction="sum"),
    ]
    torch.testing.assert_close(micro / num_terms, torch.stack(whole), rtol=1e-12, atol=1e-12)


def test_two_passes_give_the_gradient_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("distill.models.cross_encoder.MAX_CPU_TOKENS", 60)  # chunks, in one pass as well
    directory = str(make_backbone(tmp_path, "electra"))
    model = CrossEncoder.from_backbone(directory, query_length=8, passage_length=16, dropout=0.2).double().train()
    batch = random_batch(sizes=(9, 2, 13))
    width = torch.arange(batch.mask.shape[1])
    batch.targets |= {
        "label": (width == 1).float() * batch.mask,
        "llm.score": torch.where(width == 3, NAN, (width * 7 % 5).float()) * batch.mask,
    }
    objective = Objective(MIXTURE)
    num_terms = objective.count_terms(batch.targets, batch.mask).clamp(min=1)
    found = []
    for max_tokens in (10**6, 60):
        torch.manual_seed(0)
        model.zero_grad()
        losses = backward(model, batch, objective, num_terms, [0.5, 2.0, 3.0], max_tokens)
        found.append((losses, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (losses, one), (same, two) = found
    assert one.abs().max() > 1e-6
    torch.testing.assert_close(same, losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-12)


# Lists


def other_teacher(collection) -> str:
    """A second teacher's run: the ranking turned around, without its first passage, and without the query q5."""
    teacher = read_run(str(collection["teacher"]))
    path = collection["teacher"].with_name("llm.run")
    lines = [
        f"{query_id} Q0 {doc_id} 0 {place} llm\n"
        for query_id, ranked in teacher.items()
        if query_id != "q5"
        for place, doc_id in enumerate(ranked.doc_ids)
        if place
    ]
    path.write_text("".join(lines))
    return str(path)


def three_parts(collection) -> list[str]:
    return [
        "loss=ranknet-lce",
        "+loss@loss.parts.scores=kl",
        "+loss.weights.scores=0.5",
        "+loss.teachers.scores=llm",
        "+teacher@teachers.llm=run",
        f"teachers.llm.path={other_teacher(collection)}",
        "teachers.llm.scores=true",
    ]


def check_sides(lists, collection) -> None:
    """Check ranks, labels and the other teacher's scores of lists of ten; that of q3 has a passage more."""
    teacher, qrels = read_run(str(collection["teacher"])), read_qrels(str(collection["qrels"]))
    assert len(lists) == 6
    for one in lists:
        ranked = teacher[one.query_id].doc_ids
        more = [missing_passage(collection)] if one.query_id == "q3" else []
        assert one.doc_ids == ranked + more and list(one.targets) == ["rank", "label", "llm.score"]
        np.testing.assert_array_equal(one.targets["rank"], [*range(1, 11), *(NAN for _ in more)])
        judged = {doc_id: max(grade, 0) for doc_id, grade in qrels[one.query_id].items()}
        assert one.targets["label"].tolist() == [judged.get(doc_id, 0) for doc_id in one.doc_ids]
        scores = [NAN] * 10 if one.query_id == "q5" else [NAN, *range(1, 10)]
        np.testing.assert_array_equal(one.targets["llm.score"], [*scores, *(NAN for _ in more)])


def missing_passage(collection) -> str:
    """A passage that the teacher's list of q3 lacks."""
    ranked = read_run(str(collection["teacher"]))["q3"].doc_ids
    return next(f"d{number}" for number in range(30) if f"d{number}" not in ranked)


def judge_missing_passage(collection) -> None:
    with open(collection["qrels"], "a") as file:
        file.write(f"q3 0 {missing_passage(collection)} 1\n")


def test_a_list_has_what_several_teachers_say_side_by_side(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    judge_missing_passage(collection)
    check_sides(decoded_lists(compose_config("train", *file_overrides, *three_parts(collection))), collection)
    assert "llm.run: lacks 16 of the 61 passages of the training lists" in caplog.text


def test_a_relevant_passage_below_the_depth_has_a_label_and_no_place(file_overrides, collection):
    cfg = compose_config("train", *file_overrides, "loss=ranknet-lce", "data.depth=4", "data.negatives.margin=0")
    first_stage = read_run(str(collection["first_stage"]))
    num_added = 0
    for one in decoded_lists(cfg):
        top, ranks = set(first_stage[one.query_id].doc_ids[:4]), one.targets["rank"]
        added = [place for place, doc_id in enumerate(one.doc_ids) if doc_id not in top]
        assert added == list(range(4, len(one.doc_ids))) and ranks[:4].tolist() == [1, 2, 3, 4]
        assert np.isnan(ranks[4:]).all() and (one.targets["label"][4:] > 0).all()
        num_added += len(added)
    assert num_added > 0


def test_lists_of_several_targets_come_from_the_cache_as_from_memory(
    file_overrides, collection, monkeypatch, tmp_path, in_process
):
    judge_missing_passage(collection)
    monkeypatch.setattr("distill.data.teacher_lists.MAX_IN_MEMORY", 0)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    overrides = [*file_overrides, *three_parts(collection)]
    for _ in range(2):
        check_sides(decoded_lists(compose_config("train", *overrides)), collection)
    llm = tmp_path / "llm.run"
    llm.write_text(llm.read_text().replace(" llm\n", " other\n").replace(" 9 ", " 9.5 "))
    lists = decoded_lists(compose_config("train", *overrides))  # of a file that has changed
    assert lists[0].targets["llm.score"].tolist()[-1] == 9.5


def test_labels_beside_scores_keep_lists_that_have_none(file_overrides, collection, caplog):
    caplog.set_level("INFO")
    kept = [line for line in collection["qrels"].read_text().splitlines() if not line.startswith("q2 ")]
    collection["qrels"].write_text("\n".join(kept) + "\n")
    assert len(decoded_lists(compose_config("train", *file_overrides, "loss=lce-kl"))) == 6
    assert "1 of 6 lists lack a relevant or an irrelevant passage, and teach nothing by labels" in caplog.text
    assert len(decoded_lists(compose_config("train", *file_overrides, "loss=lce-kl", "data.num_negatives=3"))) == 5


def test_guided_lce_has_the_teachers_lists_with_labels_and_scores(file_overrides, collection):
    judge_missing_passage(collection)
    cfg = compose_config("train", *file_overrides, "loss=lce", "loss.guided=true")
    check_train(cfg)
    lists, teacher = decoded_lists(cfg), read_run(str(collection["teacher"]))
    for one in lists:
        more = [missing_passage(collection)] if one.query_id == "q3" else []
        assert one.doc_ids == teacher[one.query_id].doc_ids + more and list(one.targets) == ["label", "score"]
        expected = [*teacher[one.query_id].scores, *(NAN for _ in more)]
        np.testing.assert_array_equal(one.targets["score"], expected)
    assert len(lists) == 6


def test_drawn_passages_keep_all_their_targets(file_overrides):
    cfg = compose_config("train", *file_overrides, "loss=ranknet-lce", "data.num_negatives=3", "train.batch_size=6")
    tokenizer = load_tokenizer(cfg.backbone.name)
    lists = read_lists(cfg, tokenizer)
    batch = BatchLoader(lists, PairTemplate.of(tokenizer), cfg)[0]
    assert batch.mask.shape == (6, 4) and ((batch.targets["label"] > 0).sum(dim=1) == 1).all()
    assert batch.targets["rank"].sort(dim=1).values.tolist() == [[1, 2, 3, 4]] * 6


def test_the_shares_of_two_ranks_have_the_gradient_of_the_whole_step(file_overrides, collection):
    overrides = [*file_overrides, *three_parts(collection), "train.batch_size=5"]
    cfg = compose_config("train", *overrides)
    model = CrossEncoder.from_backbone(cfg.backbone.name, query_length=8, passage_length=16).double().eval()
    lists, objective = read_lists(cfg, model.tokenizer), Objective(cfg.loss)

    def step(num_ranks: int) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        shares = [BatchLoader(lists, model.template, cfg, rank, num_ranks)[0] for rank in range(num_ranks)]
        num_terms = sum(objective.count_terms(share.targets, share.mask) for share in shares).clamp(min=1)
        micro_batches = [micro_batch for share in shares for micro_batch in split_lists(share, 10**6)]
        losses = [backward(model, each, objective, num_terms, [1.0, 0.5, 0.5], 10**6) for each in micro_batches]
        return sum(losses), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    expected, gradient = step(1)
    assert expected.min() > 0 and gradient.abs().max() > 1e-6
    for num_ranks in (2, 6):  # with six, one has no list
        losses, same = step(num_ranks)
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-12)


MIXED = "loss=mixture +loss@loss.parts.a=lce +loss@loss.parts.b=kl"
LLM = "+teacher@teachers.llm=run teachers.llm.path=sample/train/teacher.run.gz"


@pytest.mark.parametrize(
    "overrides, message",
    [
        ("loss=mixture", "loss.parts is empty: name the losses to add up"),
        (MIXED, "loss.weights.a is missing: give the part a weight"),
        (f"{MIXED} +loss.weights={{a:1,b:1,c:1}}", "loss.weights.c: no part of the loss has this name"),
        (f"{MIXED} +loss.weights={{a:0,b:[0,0]}}", "loss.weights are all 0"),
        (f"{MIXED} +loss.weights={{a:1,b:-1}}", "loss.weights.b=-1: must be a number from 0 on, or two of them"),
        (f"{MIXED} +loss.weights={{a:1,b:[1,2,3]}}", "loss.weights.b=[1, 2, 3]: must be a number from 0 on"),
        (f"{MIXED} +loss.weights={{a:1,b:nan}}", "loss.weights.b=nan: must be a number from 0 on"),
        ("loss=lce-kl loss.parts.kl.temperature=0", "loss.parts.kl.temperature=0.0: must be above 0"),
        ("loss=lce-kl teacher.scores=false", "loss.parts.kl needs a score for every passage, but teacher=sample gives"),
        ("loss=lce-kl +loss.teachers.kl=llm", "loss.teachers.kl=llm: no such teacher: there are none beside `teacher`"),
        ("loss=lce-kl +loss.teachers.lk=llm", "loss.teachers.lk: no part of the loss has this name"),
        (f"loss=lce-kl +loss.teachers.kl=llm {LLM}", "loss.parts.kl needs a score for every passage, but teachers.llm"),
        (f"loss=lce-kl {LLM}", "teachers.llm: loss=lce-kl does not learn from this teacher: name"),
        (f"loss=ranknet {LLM}", "teachers.llm: loss=ranknet does not learn from this teacher: only a mixture"),
        (f"loss=lce-kl +loss.teachers.kl=llm {LLM} teachers.llm.format=triples", "only the main teacher can"),
        ("loss=lce-kl +loss@loss.parts.more=ranknet-lce", "loss.parts.more: must be a loss with all of its keys"),
        ("loss=mixture +loss.parts.a={name:lce} +loss.weights.a=1", "loss.parts.a: must be a loss"),
        (
            "loss=mixture +loss@loss.parts.a=ranknet +loss@loss.parts.b=kl +loss.weights={a:1,b:1}"
            " data.num_negatives=7",
            "data.num_negatives=7 draws negatives by label, but loss=mixture learns from teacher ranks and scores",
        ),
    ],
)  # fmt: skip
def test_a_wrong_mixture_is_answered_with_one_line(overrides, message):
    cfg = compose_config("train", *overrides.split())
    with pytest.raises(InputError) as error:
        check_train(cfg)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_another_teacher_may_be_the_fusion_of_several(file_overrides, collection, monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    several = f"teachers.llm.path=[{collection['teacher']},{collection['first_stage']}]"
    cfg = compose_config("train", *file_overrides, *three_parts(collection), several, "teachers.llm.fusion.k=0")
    check_train(cfg)
    lists = decoded_lists(with_fused_teacher(cfg))
    teacher, first_stage = read_run(str(collection["teacher"])), read_run(str(collection["first_stage"]))
    for one in lists:
        runs = (teacher[one.query_id].doc_ids, first_stage[one.query_id].doc_ids)
        expected = [sum(1 / (1 + run.index(doc_id)) for run in runs) for doc_id in one.doc_ids]
        np.testing.assert_allclose(one.targets["llm.score"], expected, rtol=1e-6)
    with pytest.raises(
        InputError, match=r"teachers.llm.fusion.weights=\[1.0\]: must have one value for each run of teachers"
    ):
        check_train(
            compose_config(
                "train", *file_overrides, *three_parts(collection), several, "teachers.llm.fusion.weights=[1]"
            )
        )


def test_a_teacher_that_knows_no_passage_is_refused(file_overrides, collection):
    overrides = [*file_overrides, *three_parts(collection)]
    path = collection["teacher"].with_name("llm.run")
    path.write_text("q77 Q0 d1 1 1.0 llm\nq77 Q0 d2 2 0.5 llm\n")
    with pytest.raises(InputError, match=r"teachers.llm.path=.*llm.run: ranks no passage of the lists in .*teacher"):
        decoded_lists(compose_config("train", *overrides))


def test_the_card_names_parts_weights_and_teachers(file_overrides, collection):
    overrides = [*file_overrides, *three_parts(collection), "loss.weights.lce=[1.0,0.0]", "teachers.llm.licence=MIT"]
    card = make_card(compose_config("train", *overrides), {"train/steps": 5}, None)
    assert "It learned a slower teacher's ranks and scores and from labels." in card
    assert "1 × ranknet learning from rank, 1 to 0 × lce learning from label, 0.5 × kl learning from llm" in card
    assert "run (teacher.txt), run (llm.run)" in card and "The teacher's rankings: MIT." in card


# Training


def weights_of(directory) -> dict[str, torch.Tensor]:
    return load_checkpoint(directory / "checkpoints" / "last.pt")["model"]


def losses_of(directory, name: str = "train/loss") -> list[float]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if "train/loss" in row]


@pytest.mark.parametrize("loss, more", [("lce", ["data.num_negatives=3"]), ("ranknet", ["train.max_tokens=100"])])
def test_a_mixture_of_one_part_trains_as_the_loss_itself(file_overrides, tmp_path, loss, more):
    part = ["loss=mixture", f"+loss@loss.parts.part={loss}", "+loss.weights.part=1"]
    quick = ["train.max_steps=3", "train.validate_every=3", *more]
    for name, overrides in {"itself": [f"loss={loss}"], "part": part}.items():
        run_train(tmp_path / name, *file_overrides, *quick, *overrides)
    assert (
        losses_of(tmp_path / "itself")
        == losses_of(tmp_path / "part")
        == losses_of(tmp_path / "part", "train/loss/part")
    )
    expected = weights_of(tmp_path / "itself")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(tmp_path / "part").items())


def test_a_stopped_and_resumed_mixture_ends_with_the_same_weights_and_lines(
    file_overrides, collection, tmp_path, monkeypatch
):
    overrides = [*file_overrides, *three_parts(collection), "loss.weights.lce=[1.0,0.0]", "train.log_every=2"]
    overrides += ["train.validate_every=6", "train.save_every=3"]
    run_train(tmp_path / "whole", *overrides)
    names = ("train/loss", *(f"train/loss/{part}" for part in ("ranknet", "lce", "scores")))
    lines = [losses_of(tmp_path / "whole", name) for name in names]
    assert all(len(of_part) == 3 and min(of_part) > 0 for of_part in lines)
    note = TrainingState.note
    monkeypatch.setattr(TrainingState, "note", lambda self, *args: note(self, *args) if self.step < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_train(tmp_path / "stopped", *overrides)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "stopped" / "checkpoints" / "last.pt")["step"] == 3  # between two lines
    cfg = resumed(tmp_path / "stopped")
    check_train(cfg)
    train(cfg, tmp_path / "stopped")
    assert [losses_of(tmp_path / "stopped", name) for name in names] == lines
    expected = weights_of(tmp_path / "whole")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(tmp_path / "stopped").items())
