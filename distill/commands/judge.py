"""Let an LLM judge what rankings have at their top, where people have not: qrels for evaluate.py.

    python -m distill judge passages=P.tsv queries=heldout.tsv runs=[first.run,student.run,teacher.run] depth=10 \
        teacher.llm.base_url=URL teacher.llm.model=NAME
    python -m distill judge ... human=QRELS                     with Cohen's kappa, where people have judged some of it
    python -m distill judge ... teacher_name=MODEL              says whether the judge has also been the teacher
    python -m distill judge resume=outputs/judge/DATE/TIME      resume a stopped judge, with its configuration

Each passage gets a grade from 0 to 3 in a request of its own, in shuffled order. Writes qrels.txt (TREC), card.md and
results.json to its output directory, and every answer at once to journal.jsonl, from which it resumes.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from distill.config.composition import ROOT
from distill.config.overrides import as_override, field_overrides
from distill.errors import InputError
from distill.jobs import command_line, open_run, run_job, shown_path

log = logging.getLogger("judge")

WIDTH = 18  # of the names in what is printed


def judge(cfg: DictConfig, directory: Path) -> dict[str, float]:
    """Judge as configured, and return the numbers of results.json.

    Raises InputError for bad input, if max_cost is reached, and if too many answers are no grades.
    """
    # Imported here, so that --help and the first line of output do not wait for them
    from distill.config.local_files import with_local_files
    from distill.judging.files import is_same_model, write_judgments
    from distill.judging.judge import estimate
    from distill.judging.judge import judge as ask_judge
    from distill.judging.people import People
    from distill.judging.pool import read_pool
    from distill.sources.qrels import read_qrels
    from distill.teachers.journal import answered_before

    with open_run(cfg, directory):
        local, teacher = with_local_files(cfg), teacher_of(cfg)
        qrels = None if local.human is None else read_qrels(local.human)
        pool = read_pool(cfg, local)
        grading = cfg.human, cfg.min_grade, cfg.human_min_grade
        if qrels is not None:
            People.of(dict.fromkeys(pool.pairs, 0), qrels, *grading)  # raises its error before anything is paid for
        estimated = estimate(cfg, pool)
        if cfg.dry_run:
            print(estimated + answered_before(directory))
            return {}
        log.info("estimate: %s", estimated)
        judged = ask_judge(cfg, directory, pool)
        people = None if qrels is None else compared(judged.grades, qrels, *grading)
        results, lines = write_judgments(directory, cfg, pool, judged, people, teacher)
        print("\n".join(f"{name:{WIDTH}}  {text}" for name, text in lines))
        if results["unusable"]:
            log.warning("%d of %d passages have no grade, and are left out", results["unusable"], results["passages"])
        qrels_path = shown_path(directory / "qrels.txt")
        files = {"passages": cfg.passages, "queries": cfg.queries, "run": cfg.runs[0], "qrels": qrels_path}
        overrides = [as_override(f"task.{key}", value) for key, value in files.items()]
        overrides += field_overrides(cfg, "task.")
        log.info("next: %s", command_line("evaluate", "model=...", "task=files", *overrides))
        if teacher is not None and is_same_model(teacher, cfg.teacher.llm.model):
            log.warning("the judge is the teacher, %s: it judges its own ranking, and favours it", teacher)
        return results


def compared(grades, qrels, *grading):
    """Return the judge's grades beside those of people; None, and a warning, where none of theirs got a grade."""
    from distill.judging.people import People

    try:
        return People.of(grades, qrels, *grading)
    except InputError as error:  # what was paid for is kept
        log.warning("%s: the judge's answers on these are no grades, so that it is not compared with people", error)
        return None


def teacher_of(cfg: DictConfig) -> str | None:
    """Return the name of the model that taught the student, as given, or by its annotation's directory; else None."""
    if cfg.teacher_name is not None or cfg.annotation is None:
        return cfg.teacher_name
    from distill.config.resumable import read_saved

    llm = read_saved(Path(cfg.annotation)).get("teacher", {}).get("llm", {})
    if "model" not in llm:
        raise InputError(f"annotation={cfg.annotation}: its config.yaml names no model: give teacher_name")
    return llm["model"]


def check(cfg: DictConfig) -> None:
    """Check the configuration, before any of it is written; raises InputError."""
    from distill.teachers.endpoint_key import check_llm

    check_llm(cfg)
    if cfg.teacher.llm.engine == "cross-encoder":
        raise InputError("llm@teacher.llm=cross-encoder: it gives scores, no grades: choose http or local")


def describe(cfg: DictConfig) -> str:
    """Return the first line of output."""
    return f"judging the top {cfg.depth} of {', '.join(cfg.runs)} with {cfg.teacher.llm.model}"


@hydra.main(config_path=str(ROOT / "conf"), config_name="judge", version_base="1.3")
def run(cfg: DictConfig) -> float | None:
    """Judge once; bad input ends with a one-line message and exit status 2."""
    return run_job(cfg, describe, check, judge)
