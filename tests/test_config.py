"""Every configuration composes; what is wrong fails while it is composed or checked, before anything is loaded."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import typing

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from distill.config import checks, command_schema
from distill.config import schema as main_schema
from distill.config.checks import check_evaluate, check_train, check_values
from distill.config.command import refuse_flags, with_flags_first
from distill.config.composition import options_of, register_schemas
from distill.config.help import help_text
from distill.config.losses import LOSS_SCHEMAS
from distill.config.mistakes import check_options, mistake
from distill.config.overrides import all_quoted, quoted, unquoted
from distill.config.suites import split_suite
from distill.errors import InputError, exit_on_bad_input
from distill.losses import LOSSES
from distill.models.prompts import PROMPTS
from tests.helpers.commands import run
from tests.helpers.configuration import compose_config, composed_by_hydra
from tests.helpers.paths import ROOT

GROUPS = ("backbone", "loss", "data", "teacher", "task", "optimizer", "logger", "experiment")
OPTIONS = {
    group: [
        str(path.relative_to(ROOT / "conf" / group).with_suffix(""))
        for path in sorted((ROOT / "conf" / group).rglob("*.yaml"))
    ]
    for group in GROUPS
}
OTHERS = {group: options for group, options in OPTIONS.items() if group != "experiment"}
FAILURES = (HydraException, OmegaConfBaseException)
COMMANDS = (
    "train",
    "evaluate",
    "annotate",
    "judge",
    "journals",
    "cut",
    "generate",
    "split",
    "retrieve",
    "fuse",
    "join",
    "export",
    "serve",
    "report",
    "inspect",
    "verdict",
    "dashboards",
)


@pytest.fixture(autouse=True)
def schemas():
    register_schemas()


def commands_of(option: str) -> list[tuple[str, list[str]]]:
    """The commands at the head of an experiment's file that choose it: train or evaluate, and the overrides.

    Of the values that a sweep goes through, the first; without Hydra's own overrides.
    """
    text = (ROOT / "conf" / "experiment" / f"{option}.yaml").read_text()
    head = "".join(line[1:] for line in text.splitlines(keepends=True) if line.startswith("#"))
    commands = []
    for line in head.replace("\\\n", " ").splitlines():
        match = re.match(r" *python (train|evaluate)\.py (.*)", re.sub("   +.*", "", line.strip()))
        if match:
            words = [word for word in match[2].split() if "=" in word and not word.startswith("hydra")]
            firsts = [word if "[" in word else word.split(",")[0] for word in words]
            commands.append((match[1], firsts))
    return commands


@pytest.mark.parametrize("option", OPTIONS["experiment"])
def test_every_experiment_composes(option):
    choosing = [command for command, words in commands_of(option) if f"experiment={option}" in words]
    cfg = compose_config(choosing[0] if choosing else "train", f"experiment={option}")
    check_option(cfg, "experiment", option)


@pytest.mark.parametrize("number", range(max(map(len, OTHERS.values()))))
def test_every_other_option_composes(number):
    """One of each group at once, as far as there are: Hydra takes as long for a choice as for several."""
    chosen = {group: options[number] for group, options in OTHERS.items() if number < len(options)}
    # The sample sets a value of the optimizer, too
    more = {"data": "files"} if "optimizer" in chosen and "data" not in chosen else {}
    cfg = compose_config("train", *(f"{group}={option}" for group, option in (chosen | more).items()))
    for group, option in chosen.items():
        check_option(cfg, group, option)


def check_option(cfg, group: str, option: str) -> None:
    """Check that a configuration resolves, and has the values that the file of an option sets."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
    text = (ROOT / "conf" / group / f"{option}.yaml").read_text()
    package = "" if text.startswith("# @package _global_") else f"{group}."
    for key, value in values_of(text).items():
        assert OmegaConf.select(cfg, package + key) == value, key


def values_of(text: str) -> dict[str, object]:
    """The values that a file of conf/ sets itself, by key; without those that it takes from elsewhere."""
    values, waiting = {}, [("", yaml.load(text, Loader=get_yaml_loader()) or {})]
    while waiting:
        before, entries = waiting.pop()
        for key, value in entries.items():
            if before + key == "hydra":  # no part of a composed configuration
                continue
            if isinstance(value, dict):
                waiting.append((f"{before}{key}.", value))
            elif key != "defaults" and value != "???" and "${" not in str(value):
                values[before + key] = value
    return values


@pytest.mark.parametrize("option", OPTIONS["experiment"])
def test_every_experiment_opens_with_commands_that_are_sound(option):
    commands = commands_of(option)
    chosen = "comparison/bce" if option == "comparison/base" else option
    assert any(f"experiment={chosen}" in overrides for _, overrides in commands)
    for command, overrides in commands:
        # The files of own-corpus are the user's; those of real/ are put into collections/ and made from them
        missing = pytest.raises(InputError, match="is missing|no such")
        if option.startswith("real/"):
            missing = contextlib.suppress(InputError)
        with missing if option.startswith(("own-corpus", "real/")) else contextlib.nullcontext():
            (check_train if command == "train" else check_evaluate)(compose_config(command, *overrides))


def test_every_experiment_has_a_mini():
    names = set(OPTIONS["experiment"])
    parts = {
        "sample-stage1",
        "own-corpus",
        *(n for n in names if n.startswith(("rank-distillm/", "real/"))),
    }  # of table1 and figure1
    objectives = {f"comparison/{name}" for name in ("base", *"bce hinge marginmse infonce ranknet adrmse".split())}
    whole = {name for name in names if not name.endswith("-mini")} - parts - objectives
    assert {f"{name}-mini" for name in whole} | {
        "stage1-mini",
        "comparison/grid-mini",
    } == names - whole - parts - objectives


@pytest.mark.parametrize(("backbone", "pairs"), [("electra-base", 32), ("minilm-l12", 64), ("ettin-17m", 64)])
def test_the_second_papers_grid_gives_each_backbone_its_pairs_a_step(backbone, pairs):
    sizes = {"bce": 2, "hinge": 2, "marginmse": 2, "infonce": 8}
    for objective, size in sizes.items():
        cfg = compose_config("train", f"experiment=comparison/{objective}", f"backbone={backbone}")
        assert cfg.train.batch_size * size == pairs
        assert cfg.optimizer.lr == (7e-6 if pairs == 64 else 1e-5) and cfg.optimizer.weight_decay == 0
    for objective in ("ranknet", "adrmse"):
        cfg = compose_config("train", f"experiment=comparison/{objective}", f"backbone={backbone}")
        assert cfg.train.batch_size == 1 and cfg.data.depth == cfg.teacher.depth == 50


def test_stage_2_of_rank_distillm_learns_with_either_loss():
    for loss in ("ranknet", "adrmse"):
        overrides = ["experiment=rank-distillm/stage2", "backbone.name=model", f"loss={loss}"]
        cfg = compose_config("train", *overrides)
        assert (
            cfg.loss.target == "rank" and cfg.teacher.name == "rankzephyr-colbertv2" and cfg.task.name == "trec-dl-2019"
        )


def test_the_default_configuration_is_sound():
    check_train(compose_config("train"))
    check_evaluate(compose_config("evaluate"))


@pytest.mark.parametrize("llm", ["http", "local", "cross-encoder"])
def test_every_teacher_to_ask_composes_and_is_sound(llm, collection):
    overrides = [
        *(f"{name}={collection[name]}" for name in ("passages", "queries")),
        f"run={collection['first_stage']}",
    ]
    check_values(compose_config("annotate", *overrides, f"llm@teacher.llm={llm}", "teacher.llm.model=m"))
    check_values(compose_config("retrieve", *overrides[:2], "output=f.run"))
    assert not OmegaConf.missing_keys(compose_config("dashboards"))


@pytest.mark.parametrize("backbone", "electra-base electra-large bert-base roberta-base deberta-v3-base minilm-l12 "
                         "modernbert-base ettin-17m ettin-32m ettin-68m ettin-150m tiny hf".split())  # fmt: skip
def test_the_papers_backbones_are_there(backbone):
    assert backbone in OPTIONS["backbone"]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_config_names_its_function_and_options(loss):
    cfg = compose_config("train", f"loss={loss}").loss
    assert cfg.name == loss
    options = set(cfg) - {"name", "target", "guided"}
    code = LOSSES[cfg.name].__code__
    assert options <= set(code.co_varnames[: code.co_argcount])


def test_conf_the_schemas_and_the_functions_name_the_same_losses():
    mixtures = [name for name in options_of("loss") if "parts" in compose_config("train", f"loss={name}").loss]
    assert mixtures == ["lce-kl", "lce-marginmse", "mixture", "ranknet-lce"]
    assert sorted([*LOSSES, "mixture"]) == sorted(LOSS_SCHEMAS)
    assert sorted(LOSSES) == [name for name in options_of("loss") if name not in mixtures]


@pytest.mark.parametrize(
    "override",
    ["loss=nope", "backbone=nope", "experiment=nope", "nope=1", "loss.alpha=1", "train.batch_sise=3",
     "data.depth=deep", "loss.reduction=[1]", "optimizer.lr=fast", "task.measures=nDCG@10"],
)  # fmt: skip
def test_a_wrong_key_group_or_type_fails_at_composition(override):
    with pytest.raises(FAILURES):
        compose_config("train", override)


@pytest.mark.parametrize(
    "line", ["train:\n  batch_sise: 3", "optimiser:\n  lr: 1", "data:\n  depth: deep", "loss:\n  alpha: 2"]
)
def test_a_wrong_key_or_type_in_an_experiment_file_fails_at_composition(tmp_path, line):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{line}\n")
    with pytest.raises(FAILURES):
        compose_config("train", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrain:\n  batch_size: 3\n")
    assert compose_config("train", f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine").train.batch_size == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("+loss.alpha=1", "loss.alpha: no such key: see --help for the keys"),
        ("+train.nope=1", "train.nope: no such key"),
        ("+nope.nope=1", "nope: no such key"),
        ("~logger", "logger is missing: give it on the command line, as in logger=none; logger is one of none, wandb"),
        ("teacher=run", "teacher.path is missing: give it on the command line"),
        ("teacher=run teacher.path=nope.run", "teacher.path=nope.run: no such file"),
        ("data=files data.passages=a.tsv data.queries=b.tsv", "data.passages=a.tsv: no such file"),
        (
            "loss=marginmse teacher.scores=false",
            "the loss needs a score for every passage, but teacher=sample gives rank, label",
        ),
        (
            "loss=lce teacher.qrels=null",
            "the loss needs a label for every passage, but teacher=sample gives rank, score",
        ),
        ("loss=ranknet teacher.path=null", "the loss needs a rank for every passage, but teacher=sample gives label"),
        ("data.num_negatives=7", "data.num_negatives=7 draws negatives by label, but loss=ranknet"),
        ("data.depth=1", "data.depth=1: must be at least 2, since a list needs two passages"),
        (
            "train.max_epochs=2",
            "train.max_steps=80 and train.max_epochs=2.0: give only one, and set the other to null",
        ),
        ("train.patience=5", "train.patience=5 is below train.validate_every=20"),
        ("validation.run=null", "train.patience=60 needs a validation"),
        ("task.run=null task.untrained=true", "task.untrained=true needs task.run"),
        ("validation.qrels=null", "validation.qrels is missing"),
        ("task.measures=[]", "task.measures is empty"),
        ("train.batch_size=0", "train.batch_size=0: must be at least 1"),
        ("optimizer.lr=0", "optimizer.lr=0.0: must be above 0"),
        ("optimizer.schedule=step", "optimizer.schedule=step is unknown: choose one of constant, linear, cosine"),
        ("data.list_size=1", "data.list_size=1: must be at least 2, since a list needs two passages"),
        ("data.list_choice=best", "data.list_choice=best is unknown: choose one of random, stratified, quantiles, top"),
        (
            "data.list_size=4 train.learn_from=4",
            "train.learn_from=4 leaves nothing out of the 4 passages of lists with d",
        ),
        (
            "loss=lce data.num_negatives=7 train.learn_from=8",
            "of the 8 passages of lists with data.num_negatives=7: set",
        ),
        ("teacher.format=triples train.learn_from=2 data.depth=null", "of lists with teacher.format=triples: set"),
        ("loss=lce data.list_size=4 data.num_negatives=7", "data.list_size=4 and data.num_negatives=7 both say"),
        ("loss.implementation=cuda", "loss.implementation=cuda is unknown: choose one of auto, torch, triton"),
        ("train.precision=fp16", "train.precision=fp16 is unknown"),
        ("resume=nowhere", "resume=nowhere: no checkpoints/last.pt there"),
        ("optimizer.max_grad_norm=-1", "optimizer.max_grad_norm=-1.0: must be above 0"),
        ("optimizer.max_grad_norm=0", "optimizer.max_grad_norm=0.0: must be above 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: must be a finite number"),
        ("backbone.lr=inf", "backbone.lr=inf: must be a finite number"),
        ("optimizer.weight_decay=nan", "optimizer.weight_decay=nan: must be a finite number"),
        ("optimizer.eps=-1", "optimizer.eps=-1.0: must be above 0"),
        ("optimizer.betas=[0.9]", r"optimizer.betas=\[0.9\]: must have 2 values, not 1"),
        ("optimizer.betas=[0.9,1]", r"optimizer.betas=\[0.9, 1.0\]: 1.0: must be below 1"),
        ("optimizer.name=sgd", "optimizer.name=sgd is unknown: choose one of adamw, muon"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("data.subset_seed=-1", "data.subset_seed=-1: must be at least 0"),
        ("train.max_steps=null train.max_epochs=0", "train.max_epochs=0.0: must be above 0"),
        ("train.batch_size=3000000000", "train.batch_size=3000000000: must be at most 2147483647"),
        ("train.compile=maybe", "train.compile=maybe is unknown: choose one of auto, true, false"),
        ("model.dropout=1", "model.dropout=1.0: must be below 1"),
        ("teacher.min_grade=0", "teacher.min_grade=0: must be at least 1, since lower grades are not relevant"),
        ("loss.target=score", "loss.target=score is unknown: choose one of rank"),
        ("loss.name=lce", "loss.name=lce is unknown: choose one of ranknet"),
        ("validation.windows=0", "validation.windows=0: must be at least 1"),
        ("validation.depth=0", "validation.depth=0: must be at least 1"),
        (
            "task.window_stride=65",
            "task.window_stride=65 exceeds the window, model.passage_length=64: the tokens between",
        ),
        ("validation.window_stride=100 validation.windows=3", "validation.window_stride=100 exceeds the window"),
        ("task.means=[harmonic]", r"task.means=\['harmonic'\]: harmonic is unknown: choose one of arithmetic"),
        ("task=sample-suite +task.tasks.sample-val.depth=0", "task.tasks.sample-val.depth=0: must be at least 1"),
        ("task.bm25.stop_words=german", "task.bm25.stop_words=german is unknown: choose one of lucene, bm25s, none"),
        (
            "task=sample-suite +task.tasks.sample-val.bm25.stemmer=klingon",
            "task.tasks.sample-val.bm25.stemmer=klingon is unknown: choose one of porter, none, bigrams, auto, arabic",
        ),
        (
            "task=sample-suite +task.tasks.sample-val.bm25.stemer=none",
            "task.tasks.sample-val.bm25.stemer: did you mean task.tasks.sample-val.bm25.stemmer?",
        ),
        ("task=sample-suite +task.tasks.sample-val.bm25=none", "task.tasks.sample-val.bm25: "),
    ],
)
def test_a_broken_rule_is_answered_with_key_value_and_remedy(overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        check_train(compose_config("train", *overrides.split()))
    assert "\n" not in str(caught.value)


OWN = "of this suite has a value of its own"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            "task.depth=50",
            f"task.depth=50: sample-test-top20 {OWN}, 20, and would not follow: set task.tasks.sample-te",
        ),
        ("task.depth=null", f"task.depth=null: sample-test-top20 {OWN}, 20"),
        ("task.run=bm25", f"task.run=bm25: sample-test {OWN}"),
        ("task.run=null", "task.run=null: this suite's tasks have runs of their own: task=files measures nothing"),
        ("validation.run=null", "validation.run=null: this suite's .*: task@validation=files measures nothing"),
        ("validation.depth=50", f"validation.depth=50: sample-test-top20 {OWN}, 20"),
        ("task.depth=20", None),
        ("task.depth=50 task.tasks.sample-test-top20.depth=10", None),
        ("task.depth=50 ++task.tasks.sample-test-top20={depth:10}", None),
        ("task.run=bm25 task.runs=R/{task}.run.gz", None),
        ("task.bm25.stemmer=german", None),
        ("task.bm25.stemmer=german +task.tasks.sample-val.bm25.stemmer=none", None),
        ("task.bm25={k1:1.1} +task.tasks.sample-val.bm25.stemmer=none", None),
        ("task.interpolate=0.5", None),
        (
            "task.runs=R/{task}.run.gz task.tasks.sample-test.run=a.run",
            "task.tasks.sample-test.run=a.run and task.runs=R/{task}.run.gz, which replaces all tasks' runs",
        ),
    ],
)
def test_what_tasks_of_a_suite_would_not_follow_is_refused(monkeypatch, overrides, message):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: ["task=sample-suite", *overrides.split()])
    asked = [quoted(override) for override in overrides.split()]
    cfg = compose_config("train", "task=sample-suite", "task@validation=sample-suite", *asked)
    if message is None:
        return checks._check_reach(cfg.task, "task", may_measure_nothing=True)
    with pytest.raises(InputError, match=message):
        check_train(cfg)


@pytest.mark.parametrize(
    ("command", "given", "remedy"),
    [
        *(
            ("train", f"validation.{given}", "only a test measures that: give it to task")
            for given in ("untrained=true", "ideal=true", "interpolate=0.5", "means=[geometric]", "teacher=T.run")
        ),
        ("train", "validation.ideal=false", None),
        ("train", "task.ideal=true", None),
        ("evaluate", "task.untrained=true", "only a training has the student before it: leave it out"),
        ("evaluate", "task.untrained=false", None),
    ],
)
def test_what_would_not_be_measured_is_refused(monkeypatch, command, given, remedy):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: [given])
    suite = {"train": ["task@validation=sample-suite"], "evaluate": ["model=null", "task=sample"]}[command]
    cfg = compose_config(command, *suite, given)
    check = {"train": check_train, "evaluate": check_evaluate}[command]
    if remedy is None:
        return check(cfg)
    with pytest.raises(InputError, match=rf"^{given.partition('=')[0]}=.*: {remedy}$"):
        check(cfg)


def test_an_evaluation_does_not_hear_of_measuring_nothing(monkeypatch):
    overrides = ["model=null", "task=sample-suite", "task.run=null"]
    monkeypatch.setattr(checks, "command_overrides", lambda kind: overrides)
    with pytest.raises(InputError, match=f"task.run=null: sample-test {OWN}"):
        check_evaluate(compose_config("evaluate", *overrides))


def test_ids_of_a_collection_reach_both_tasks_of_nfcorpus():
    ids = {"passages": "beir/nfcorpus", "queries": "beir/nfcorpus/test", "qrels": "beir/nfcorpus/test"}
    cfg = compose_config("evaluate", "model=null", "task=real/nfcorpus", *(f"task.{key}={ids[key]}" for key in ids))
    parts = split_suite(cfg.task)
    assert len(parts) == 2 and all(part[key] == ids[key] for part in parts for key in ids)


@pytest.mark.parametrize("value", ["true", "false", "True", "auto"])
def test_compile_takes_true_false_and_auto(value):
    check_train(compose_config("train", f"train.compile={value}"))


# What may be any number or text: names, paths, ids, and what is parsed where it is used
FIELDS = "id_field query_id_field"
FREE_OF_RULES = {
    "Backbone": "name revision",
    "Data": f"name {FIELDS}",
    "Teacher": "name texts licence citation",
    "TaskConfig": f"name passages queries run qrels teacher measures fused corpus licence tasks {FIELDS}",
    "Sampling": "weights",
    "Train": "device",
    "Logger": "name project entity group job_type run_name tags",
    "TrainConfig": "loss licence",
    "Mixture": "name parts weights teachers",
    "DashboardsConfig": "entity project title test_metric val_metric group_by",
    "Cascade": "model",
    "EvaluateConfig": "model base device",
    "ReportConfig": "output title metrics labels baseline compare",
    "InspectConfig": f"model {FIELDS} output title measure",
    "CutConfig": "output id_field title_field tokenizer",
    "SplitConfig": f"output {FIELDS}",
    "GenerateConfig": f"round_trip_model journal {FIELDS}",
    "JudgeConfig": f"teacher_name prompt journal {FIELDS}",
    "RetrieveConfig": f"output model device {FIELDS}",
    "FuseConfig": "output measure",
    "JoinConfig": "output",
    "VerdictConfig": "output",
    "ExportConfig": "model base output",
    "ServeConfig": "model base host api_key_variable device",
    "Llm": "model api_key_variable base device",
    "JournalsConfig": "journal",
    "AnnotateConfig": f"{FIELDS} prompt journal",
}
NAMED = vars(main_schema) | vars(command_schema)
SCHEMAS = [*(kind for kind in NAMED.values() if dataclasses.is_dataclass(kind)), *LOSS_SCHEMAS.values()]


def test_all_missing_keys_are_named_with_their_options():
    with pytest.raises(InputError) as caught:
        check_values(compose_config("export"))
    formats = "sentence-transformers, lightning-ir, transformers, bert, onnx, onnx-int8"
    assert str(caught.value) == (
        "model, format, output are missing: give them on the command line, as in model=VALUE "
        f"format=sentence-transformers output=VALUE; format is one of {formats}"
    )


def test_a_misspelt_command_is_answered_with_what_was_meant():
    process = run("-m", "distill", "anotate")
    assert (process.returncode, process.stderr) == (2, "error: anotate: did you mean annotate?\n")


def test_every_number_and_every_choice_has_a_rule_beside_its_field():
    without = {}
    for schema in SCHEMAS:
        types = typing.get_type_hints(schema)
        for field in dataclasses.fields(schema):
            kinds = {*(typing.get_args(types[field.name]) or (types[field.name],))} - {type(None), bool}
            if kinds and not any(map(dataclasses.is_dataclass, kinds)) and "rule" not in field.metadata:
                without.setdefault(schema.__name__, []).append(field.name)
    assert without == {name: names.split() for name, names in FREE_OF_RULES.items()}


def test_a_number_that_is_free_of_rules_is_none():
    for schema in SCHEMAS:
        types = typing.get_type_hints(schema)
        free = FREE_OF_RULES.get(schema.__name__, "").split()
        kinds = {name: types[name] for name in free if typing.get_origin(types[name]) is not dict}  # with its names
        assert not [name for name, kind in kinds.items() if {int, float} & {kind, *typing.get_args(kind)}]


def test_prompts_that_may_be_chosen_are_those_that_are_known():
    with pytest.raises(InputError) as caught:
        check_evaluate(compose_config("evaluate", "prompt=gpt"))
    assert str(caught.value) == f"prompt=gpt is unknown: choose one of {', '.join(PROMPTS)}"


def test_an_evaluation_without_a_run_is_refused():
    with pytest.raises(InputError, match="task.run is missing"):
        check_evaluate(compose_config("evaluate", "task=files"))


@pytest.mark.parametrize("entry_point", [["train.py"], ["evaluate.py"], ["-m", "distill", "report"]], ids=" ".join)
@pytest.mark.parametrize("option", [["--help"], ["--cfg", "job"]])
def test_help_and_the_composed_configuration_wait_for_nothing_large(entry_point, option):
    command = [sys.executable, "-X", "importtime", *entry_point, *option]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    imported = {line.rsplit("|")[-1].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    assert not {"torch", "transformers", "pyarrow", "pandas", "matplotlib", "wandb", "ir_datasets"} & imported


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train depth=50", "depth: did you mean data.depth?"),
        ("train data.dept=50", "data.dept: did you mean data.depth?"),
        ("train batch_sise=3", "batch_sise: did you mean train.batch_size?"),
        ("train trian.batch_size=3", "trian.batch_size: did you mean train.batch_size?"),
        ("train nope=1", "nope: no such key: see --help for the keys"),
        ("train loss.alpha=2 loss=adrmes", "loss=adrmes: did you mean loss=adrmse?"),
        ("train loss=adrmse loss.alhpa=2", "loss.alhpa: did you mean loss.alpha?"),
        ("train los=adrmse", "los: did you mean loss?"),
        (
            "train loss=nope",
            "loss=nope: no such option: choose one of adrmse, approxndcg, bce, bradleyterry, hinge, "
            "kl, lambda, lce, lce-kl, lce-marginmse, listmle, listnet, marginmse, mixture, mse, plistmle, ranknet, "
            "ranknet-lce",
        ),
        ("train task@validaton=sample", "task@validaton: did you mean task@validation?"),
        (
            "train experiment=comparison/adrmes",
            "experiment=comparison/adrmes: did you mean experiment=comparison/adrmse?",
        ),
        ("train hydra/launcher=proceses", "hydra/launcher=proceses: did you mean hydra/launcher=processes?"),
        ("train hydra.run.dri=x", "hydra.run.dri: did you mean hydra.run.dir?"),
        ("train -m optimizer.lr=interval(0,1) loss=glob(*) data.dept=1", "data.dept: did you mean data.depth?"),
        ("train data.depth=deep", "data.depth=deep: Value 'deep' of type 'str' could not be converted to Integer"),
        ("train seed=1,2", "seed=1,2: several values need -m, for a sweep; a list is written as in seed=[1,2]"),
        ("train -m seed=1,2 loss=ranknet,adrmes", "loss=adrmes: did you mean loss=adrmse?"),
        ("train -m data.dept=1,2", "data.dept: did you mean data.depth?"),
        ("train depth", "depth: cannot be read: write key=value, and quote special characters, as in 'key=\"a, b\"'"),
        ("train task.tasks.a.dept=3 task=sample-suite", "task.tasks.a.dept: did you mean task.tasks.a.depth?"),
        (
            "train task.tasks.sample-val.depth=3 task=sample-suite",
            "task.tasks.sample-val.depth: not set in this task yet: add it, as in +task.tasks.sample-val.depth=3",
        ),
        ("train teacher.llm.model=x", "teacher.llm.model: is a key of generate, annotate and judge, not of train"),
        ("train loger.mode=offline", "loger.mode: did you mean logger.mode?"),
        ("train optimizer.batch_size=8", "optimizer.batch_size: did you mean train.batch_size?"),
        ("train ~data.depth", "~data.depth: a key cannot be removed: set it to null, if --help says what null does"),
        ("train ~data", "~data: a group cannot be removed: choose one of its options: files, jsonl, msmarco, sample"),
        ("evaluate taks=sample", "taks: did you mean task?"),
        ("annotate teacher.llm.modle=m", "teacher.llm.modle: did you mean teacher.llm.model?"),
        ("annotate llm@teacher.llm=htpp", "llm@teacher.llm=htpp: did you mean llm@teacher.llm=http?"),
        ("report baslin=loss=ranknet", "baslin: did you mean baseline?"),
    ],
)
def test_what_hydra_refuses_is_answered_with_what_was_meant(command, message):
    name, *overrides = command.split()
    sweep = "-m" in overrides
    overrides = [quoted(one) for one in overrides if one != "-m"]
    assert mistake(HydraException("refused"), name, overrides, sweep) == message


LOGGERS = "choose one of none, wandb"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train logger=null", f"logger=null: {LOGGERS}"),
        ("train +logger=3", f"logger=3: {LOGGERS}"),
        ("train -m seed=1,2 logger=wandb,null", f"logger=null: {LOGGERS}"),
        ("train teacher=true data.dept=3", "teacher=true: choose one of hofstaetter-ensemble, jsonl, labels, "),
        ("train +teacher@teachers.second=null", "teacher@teachers.second=null: choose one of hofstaetter-ensemble, "),
        ("train optimizer=null", "optimizer=null: choose one of adamw, muon"),
        ("train loss=0.5", "loss=0.5: choose one of adrmse, approxndcg, "),
        ("train hydra/launcher=null", "hydra/launcher=null: choose one of processes, "),
        ("train hydra/help=null", "hydra/help=null: leave it out"),
        ("train experiment=null", "experiment=null: choose one of adrmse, .*; leave it out for none"),
        ("train task=null", "task=null: choose one of beir13, .*; task=files measures nothing"),
        ("train task@validation=null", "task@validation=null: .*; task@validation=files measures nothing"),
        ("evaluate task=null", r"task=null: choose one of beir13, .*, \.\.\.$"),
        ("report logger=null", "logger: no such key: see --help for the keys"),
        ("train ~logger=3", "~logger=3: a group cannot be removed: choose one of its options: none, wandb"),
    ],
)
def test_a_group_that_is_given_no_name_of_an_option_is_answered_with_its_options(command, message):
    name, *overrides = command.split()
    sweep = "-m" in overrides
    overrides = [one for one in overrides if one != "-m"]
    with pytest.raises(InputError, match=f"^{message}") as caught:
        check_options(name, overrides, sweep)
    assert "\n" not in str(caught.value)


def test_what_hydra_takes_for_a_group_is_left_to_it():
    taken = "seed=3 resume=null logger=none loss='null' loss={alpha:2} experiment=[] ~logger data.depth=null loss=[a"
    check_options("train", taken.split(), sweep=False)
    check_options("train", ["loss=ranknet,lce", "logger=glob(*)"], sweep=True)
    with pytest.raises(InputError, match="^logger=null: choose one of none, wandb$"):
        help_text("train", ["logger=null"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-m", "seed=1,2", "--cfg", "job"], "--multirun and --cfg: give only one of them"),
        (["--cfg=job", "-i", "all"], "--cfg and --info: give only one of them"),
        (["--resolve"], "--resolve: needs --cfg, as in --cfg job --resolve"),
        (["--cfg", "job", "--resolve"], None),
        (["-m", "--multirun"], None),
    ],
)
def test_flags_that_hydra_does_not_take_together_are_refused(flags, message):
    with pytest.raises(InputError, match=f"^{message}$") if message else contextlib.nullcontext():
        refuse_flags(flags)


def test_a_sweep_is_asked_for_before_or_behind_the_overrides():
    assert with_flags_first(["seed=0,1", "--cfg", "job", "-m", "loss=lce"]) == [
        "-m",
        "seed=0,1",
        "--cfg",
        "job",
        "loss=lce",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train:\n  batch_sise: 3", "train.batch_sise: did you mean train.batch_size?"),
        ("optimiser:\n  lr: 1", "optimiser: did you mean optimizer?"),
        ("data:\n  depth: deep", "data.depth: Value 'deep' of type 'str' could not be converted to Integer"),
        ("loss:\n  alpha: 2", "loss.alpha: no such key: see --help for the keys"),
        ("defaults:\n  - override /loss: adrmes", "loss=adrmes: did you mean loss=adrmse?"),
        ("train: [1", "while parsing a flow sequence in"),
    ],
)
def test_what_is_wrong_in_an_experiment_file_is_named_with_it(tmp_path, lines, message):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{lines}\n")
    overrides = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
    assert mistake(HydraException("refused"), "train", overrides).startswith(f"experiment=mine: {message}")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train.py depth=50", "depth: did you mean data.depth?"),
        ("evaluate.py +data.dpeth=50", "data: no such key: see --help for the keys"),
        ("train.py +data.dpeth=50", "data.dpeth: did you mean data.depth?"),
        ("-m distill report baslin=loss=ranknet", "baslin: did you mean baseline?"),
        ("train.py logger=null --help", f"logger=null: {LOGGERS}"),
        ("train.py -m logger=wandb,null", f"logger=null: {LOGGERS}"),
        ("evaluate.py hydra/launcher=3", "hydra/launcher=3: choose one of processes, ray-cluster, sequential, slurm"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(tmp_path, command, message):
    script, *rest = command.split()
    words = [script, *rest] if script == "-m" else [str(ROOT / script), *rest]
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {message}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_key_and_every_option(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = [line.strip() for line in help_text(name, []).splitlines()]
    explained = {}
    for line in lines:
        match = re.match(r"([\w.-]+)=(.{,42}?)  +(.+)", line)
        if match:
            explained[match[1]] = match[3]
    cfg = OmegaConf.to_container(compose_config(name), resolve=False)
    assert not [key for key in leaves(cfg) if key not in explained]
    for group in {"train": ("loss", "backbone", "teacher"), "annotate": ("llm",)}.get(name, ()):
        for option in options_of(group):
            assert any(re.match(rf"{re.escape(option)}  +\S", line) for line in lines), option


def leaves(node: dict, prefix: str = ""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_help_has_the_defaults_of_the_options_beside_it():
    assert re.search(r"loss.alpha=1.0 +steepness of the smooth ranks", help_text("train", ["loss=adrmse"]))
    with pytest.raises(InputError, match="depth: did you mean data.depth?"):
        help_text("train", ["depth=3"])


def test_help_shows_where_an_output_goes_and_sweeps_only_where_there_are_some():
    retrieve, report = help_text("retrieve", []), help_text("report", [])
    assert "output=outputs/retrieve/DATE/TIME/first_stage.run  TREC run" in retrieve
    assert re.search("output=outputs/report/DATE/TIME +where page", report)
    assert "hydra/launcher" not in retrieve + report and "hydra/launcher" in help_text("evaluate", [])


def test_a_value_with_an_equals_sign_and_a_list_of_models_are_quoted_for_hydra():
    assert quoted("baseline=loss=ranknet,data.depth=50") == "baseline='loss=ranknet,data.depth=50'"
    assert quoted("model=outputs/lr=1e-3/it's") == r"model='outputs/lr=1e-3/it\'s'"
    assert quoted("teacher.llm.model=DIR1,DIR2") == "teacher.llm.model='DIR1,DIR2'"
    assert quoted("labels=[a=b:A (ours),'c=d:(C)']") == r"labels=[a\=b:A \(ours\),'c=d:(C)']"
    for argument in (
        *("alpha=0.1", "baseline='a=b'", r"metrics=[a\=b]", "metrics=[test/*]", "--help", "loss=ranknet,adrmse"),
        *("x=sort(2,1,reverse=true)", "teacher.llm.model='A,B'", "--config-dir=a=b", "lr=${divide:4,2}"),
    ):
        assert quoted(argument) == argument
    for argument in ("baseline=loss=ranknet,it's", "labels=[a=b:A (ours),'c=d:(C)']", "alpha=0.1"):
        assert unquoted(quoted(argument)) == argument


def test_commas_are_a_sweep_over_llms_and_a_list_of_cross_encoders():
    model, choice = "teacher.llm.model=A,B", "llm@teacher.llm=cross-encoder"
    assert all_quoted([model, "depth=20,50"], is_sweep=True) == [model, "depth=20,50"]
    for others, is_sweep in (([], False), ([choice], False), ([choice], True)):
        assert all_quoted([*others, model], is_sweep=is_sweep) == [*others, "teacher.llm.model='A,B'"]


@pytest.mark.parametrize("value", ["x" * 5000 + ".run", "'a\0b.run'"], ids=["long", "NUL"])
def test_a_name_that_no_file_can_have_is_answered_with_one_line(value):
    sources = [f"task.{name}=conf/train.yaml" for name in ("passages", "queries", "qrels")]
    with pytest.raises(InputError, match="^task.run=.* no such file: check the path") as caught:
        check_evaluate(compose_config("evaluate", "task=files", *sources, f"task.run={value}"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("key", ["task.depth", "validation.depth"])
def test_a_depth_that_is_no_number_is_refused(key):
    with pytest.raises(InputError, match=rf"{key}=.'a': 1.: must be at least 1, auto, or null for all"):
        check_train(compose_config("train", f"{key}={{a:1}}"))


def test_a_variable_of_the_environment_that_is_not_there_is_one_line(capsys):
    with pytest.raises(SystemExit) as exit_, exit_on_bad_input(sweep=False):
        check_train(compose_config("train", "data.passages=${oc.env:NOT_THERE}"))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("error: ") and "Environment variable 'NOT_THERE' not found" in error and error.count("\n") == 1
    )


def test_an_empty_list_of_fields_is_refused():
    with pytest.raises(InputError, match="data.text_fields=.*: must name at least one field"):
        check_train(compose_config("train", "data.text_fields=[]"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["train"],
        ["train", "loss=adrmse", "data.depth=50", "experiment=figure1-mini", "+teacher@teachers.second=run"],
        ["train", "task@validation=nano-beir", "data=files", "data.passages='a, b.tsv'", "~loss.alpha", "loss=adrmse"],
        ["evaluate", "task=trec-dl", "model=null", "task.depth=20"],
        ["evaluate", "task=files", "model=null", "task.depth=20", "task={depth:5}"],
        ["annotate", "llm@teacher.llm=http", "teacher.llm.model=m", "+teacher.llm.extra_body={a:1}"],
    ],
)
def test_the_tests_compose_what_hydra_composes(overrides):
    def composed(compose):
        try:
            return compose(*overrides)
        except HydraException as error:
            return str(error)

    ours, theirs = composed(compose_config), composed(composed_by_hydra)
    assert ours == theirs and type(ours) is type(theirs)
    if not isinstance(ours, str):
        assert OmegaConf.is_struct(ours) == OmegaConf.is_struct(theirs) and compose_config(*overrides) is not ours


@pytest.mark.parametrize("override", ["latency_queries=5", "prompt=monot5", "base=DIR"])
def test_what_is_about_a_model_needs_one(monkeypatch, override):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: [override])
    sources = ["model=null", "task=files", "task.run=conf/train.yaml", "task.qrels=conf/train.yaml"]
    with pytest.raises(InputError, match=f"{override} needs model=DIR, which it is about"):
        check_evaluate(compose_config("evaluate", *sources, override))


IDLE = [
    ("model.lora.alpha=64", "changes nothing while model.lora.rank=null"),
    ("model.exit_weight=2", "changes nothing while model.exit_layer=null"),
    ("calibration.min_grade=2", "changes nothing while calibration.method=null"),
    ("sampling.temperature=3", "is about several data sets, but there is only one"),
    ("data.negatives.false_negatives=relabel", "changes nothing without a rule by score, such as data."),
    ("data.negatives.positive=median", "changes nothing without data.negatives.margin or data.negatives.max_percent_"),
    ("data.subset_seed=7", "changes nothing while data.num_queries=null"),
    ("data.list_choice=top", "chooses nothing while data.list_size=null"),
    ("teacher.fusion.method=z-score", "is about several runs, but teacher.path is not a list"),
    ("task.window_stride=4", "changes nothing while task.windows=1"),
    ("loss.mu=5 loss=lambda loss.weighting=lambdarank", "changes nothing with loss.weighting=lambdarank"),
    ("validation.window_stride=4", "changes nothing while validation.windows=1"),
]


@pytest.mark.parametrize(("override", "why"), IDLE)
def test_what_changes_nothing_without_another_key_is_refused(monkeypatch, override, why):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: override.split())
    key = re.escape(override.partition("=")[0])
    with pytest.raises(InputError, match=f"^{key}: {why}"):
        check_train(compose_config("train", *override.split()))
    monkeypatch.setattr(checks, "is_sweep", lambda: True)  # a grid may go over the other key
    check_train(compose_config("train", *override.split()))


@pytest.mark.parametrize(
    ("windows", "given", "why"),
    [
        ([1, 1], "task.window_stride", "task.windows=1"),
        ([2, 1], "task.window_stride", None),
        ([2, 1], "task.tasks.b.window_stride", "task.tasks.b.windows=1"),
        ([1, 2], "task.tasks.b.window_stride", None),
    ],
)
def test_a_stride_is_refused_where_no_passage_has_two_windows(monkeypatch, windows, given, why):
    tasks = {name: {"run": "run", "windows": number} for name, number in zip("ab", windows, strict=True)}
    task = compose_config("evaluate", "model=any", "task=files").task
    task.tasks = tasks
    monkeypatch.setattr(checks, "command_overrides", lambda kind: [f"{given}=4"])
    if why is None:
        checks._refuse_idle_stride(task, "task")
    else:
        with pytest.raises(InputError, match=f"^{given}: changes nothing while {why}: leave it out"):
            checks._refuse_idle_stride(task, "task")


def test_it_is_refused_of_a_data_set_beside_the_first(monkeypatch):
    more = ["data=files", "teacher=run", "+data@datasets.qa=files", "+teacher@datasets.qa.teacher=run"]
    for group in ("", "datasets.qa."):
        more += [f"{group}data.passages=sample/passages.tsv", f"{group}data.queries=sample/train/queries.tsv"]
        more += [f"{group}teacher.path=sample/train/teacher.run.gz"]
    override = "datasets.qa.data.list_choice=top"
    monkeypatch.setattr(checks, "command_overrides", lambda kind: [*more, override])
    with pytest.raises(InputError, match="^datasets.qa: datasets.qa.data.list_choice: chooses nothing while"):
        check_train(compose_config("train", *more, override))


def test_learning_from_all_of_a_list_is_refused(monkeypatch):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: [])
    with pytest.raises(InputError, match="train.learn_from=30 leaves nothing out of the 25 passages .* data.depth=25"):
        check_train(compose_config("train", "train.learn_from=30", "data.depth=25"))


def test_what_would_do_nothing_is_refused_where_the_command_line_gives_it(monkeypatch):
    monkeypatch.setattr(checks, "command_overrides", lambda kind: ["k=3", "bm25.k1=0.9", "depth=5"])
    checks.refuse_unused(["measure", "run"], "is not used")
    for keys, name in ((["k"], "k"), (["bm25"], "bm25.k1")):
        with pytest.raises(InputError, match=f"^{name}: is of method=rrf, not of z-score: leave it out$"):
            checks.refuse_unused(keys, "is of method=rrf, not of z-score")
