"""Rankings given as permutations of a list, as listwise LLMs answer: `[3] > [1] > [2]`.

    order, is_whole = parse_permutation("[3] > [1]", 3)                 # [2, 0, 1], False
    run = read_permuted_run("gpt3.5.json", first_stage, "bm25.jsonl")    # the first stage in the teacher's order

A file of permutations is a JSON array with one answer for each list of the first-stage run, in its order: the format in
which Sun et al. (RankGPT, 2023) published ChatGPT's rankings.
"""

import logging

import numpy as np

from distill.errors import InputError
from distill.sources.chains import find_ranking
from distill.sources.opening import open_source
from distill.sources.run_files import RankedList, Run
from distill.sources.thinking import answer_after_thinking

log = logging.getLogger(__name__)


def parse_permutation(answer: str, num_passages: int) -> tuple[list[int], bool]:
    """Return the order of passages that an answer gives, places from 0, and whether it was a whole permutation.

    Repeated numbers count once, numbers out of range are ignored, and passages that the answer does not name follow in
    their input order.
    """
    order, faults = mend_permutation(answer, num_passages)
    return order, not faults


def mend_permutation(answer: str, num_passages: int, *, is_cut: bool = False) -> tuple[list[int], set[str]]:
    """Return the order that `parse_permutation` gives, and what was wrong with the answer.

    The faults are "repeated", "out of range", "missing", or only "unusable" where there is no ranking
    (distill/sources/chains.py). What a reasoning model thinks names passages too, and is left out. is_cut: whether the
    answer got too long.
    """
    found = find_ranking(answer_after_thinking(answer), num_passages, is_cut=is_cut)
    numbers = [number - 1 for number in found or []]
    valid = [number for number in numbers if 0 <= number < num_passages]
    named = dict.fromkeys(valid)
    order = [*named, *(place for place in range(num_passages) if place not in named)]
    if not named:
        return order, {"unusable"}
    faults = {
        "repeated": len(named) < len(valid),
        "out of range": len(valid) < len(numbers),
        "missing": len(named) < num_passages,
    }
    return order, {fault for fault, is_so in faults.items() if is_so}


def read_permuted_run(path: str, first_stage: Run, first_stage_source: str) -> Run:
    """Return the first-stage run in the order of the answers; lists with an answer that names no passage are left out.

    Raises InputError for a file that is not an array of as many texts as the run has lists.
    """
    answers = [answer for _, answer in open_source(path, "permutations").rows()]
    if len(answers) != len(first_stage):
        raise InputError(
            f"{path}: {len(answers)} answers for the {len(first_stage)} lists of {first_stage_source}: use the file "
            "that these answers belong to"
        )
    run, num_repaired = {}, 0
    for query_id, answer in zip(first_stage, answers, strict=True):
        ranked = first_stage[query_id]
        order, faults = mend_permutation(answer, len(ranked))
        num_repaired += bool(faults)
        if "unusable" not in faults:
            scores = -np.arange(1.0, len(order) + 1)
            run[query_id] = RankedList.in_order([ranked.doc_ids[place] for place in order], scores)
    if not run:
        raise InputError(f"{path}: no answer names a passage: expected answers such as `[3] > [1] > [2]`")
    if num_repaired:
        log.warning(
            "%s: %d of %d answers were not whole permutations: repaired; %d that name no passage left out",
            *(path, num_repaired, len(answers), len(answers) - len(run)),
        )
    return run
