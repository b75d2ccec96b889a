"""The length of a training that follows from the number of its lists."""

import pytest

from distill.training.plan import Plan, plan_training, warn_of_few_lists
from tests.helpers.configuration import compose_config
from tests.helpers.training import run_train

OWN = ["experiment=own-corpus", "data.passages=p", "data.queries=q", "teacher.path=t", "teacher.first_stage=f"]


@pytest.mark.parametrize(
    ("num_lists", "batch_size", "num_steps", "passes"),
    [
        (10, 4, 50, "20.0"),  # 300 steps would be 120 passes: no more than 20
        (75, 4, 300, "16.0"),
        (300, 8, 300, "8.0"),
        (146, 4, 300, "8.2"),  # 300 * 4 / 146 * 146 / 4 is a little more than 300
        (1_500, 16, 300, "3.2"),
        (10_000, 16, 1_875, "3.0"),  # as before: 3 passes
    ],
)
def test_fewer_lists_are_passed_over_more_often_in_smaller_batches(num_lists, batch_size, num_steps, passes):
    plan = plan_training(compose_config("train", *OWN).train, num_lists)
    assert plan == Plan(num_lists, batch_size, num_steps)
    assert plan.describe() == f"{num_lists} lists: {num_steps} steps of {batch_size} lists, {passes} passes"


def test_what_is_given_counts():
    planned = lambda *more: plan_training(compose_config("train", *OWN, *more).train, 75)  # noqa: E731
    assert planned("train.max_epochs=3") == Plan(75, 4, 57)  # 75 * 3 / 4 = 56.25
    assert planned("train.max_epochs=3", "train.batch_size=16") == Plan(75, 16, 15)
    assert planned("train.max_steps=7") == Plan(75, 4, 7)
    assert planned("train.batch_size=2").num_steps == 300
    assert planned("train.max_epochs=1e-9") == Plan(75, 4, 1)  # at least one step
    default = compose_config("train", "data=files", "teacher=run").train  # conf/train.yaml itself plans nothing
    assert plan_training(default, 75) == Plan(75, 32, 8)


def test_few_lists_are_told_with_what_would_do(caplog):
    warn_of_few_lists(200)
    assert not caplog.records
    warn_of_few_lists(60)
    assert caplog.messages[0].startswith("60 lists are few to learn from: some 200 are enough to begin with, ")
    assert "num_queries=400" in caplog.messages[0]


def test_a_training_says_what_it_has_planned_before_it_begins(file_overrides, tmp_path, caplog):
    caplog.set_level("INFO")
    steps = ("train.max_steps", "train.max_epochs", "train.batch_size")
    overrides = [one for one in file_overrides if not one.startswith(steps)]
    left = ["train.batch_size=null", "train.max_steps=null", "train.max_epochs=null"]
    results = run_train(tmp_path / "run", *overrides, *left, "validation.run=null", "task.run=null")
    assert (results["train/lists"], results["train/steps"]) == (6, 30)  # 20 passes over 6 lists, 4 a step
    said = [message for message in caplog.messages if message.startswith("6 lists")]
    assert said[0].startswith("6 lists are few") and said[1] == "6 lists: 30 steps of 4 lists, 20.0 passes"
    assert "\n  batch_size: null\n" in (tmp_path / "run" / "config.yaml").read_text()  # as it was asked for
