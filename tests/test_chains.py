"""The ranking in an answer: after what the model thinks, among prose; a text without one is unusable."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.sources.chains import find_ranking
from distill.sources.permutations import mend_permutation
from distill.sources.thinking import answer_after_thinking

RANKING = "[6] > [5] > [4] > [3] > [2] > [1]"
BACKWARDS = [5, 4, 3, 2, 1, 0]
THOUGHT = "[1] is good, and the example says [1] > [2] > [3] > [4] > [5] > [6]."
THINKING = {
    "marks": f"<think>{THOUGHT}</think>{RANKING}",
    "only the closing mark": f"{THOUGHT}\n</think>\n{RANKING}",
    "thinking": f"<thinking>{THOUGHT}</thinking>{RANKING}",
    "reasoning": f"<reasoning>{THOUGHT}</reasoning>{RANKING}",
    "thought": f"<thought>{THOUGHT}</thought>{RANKING}",
    "upper case": f"<THINK>{THOUGHT}</THINK>{RANKING}",
    "square brackets": f"[THINK]{THOUGHT}[/THINK]{RANKING}",
    "triangles": f"◁think▷{THOUGHT}◁/think▷{RANKING}",
    "begin and end": f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>{RANKING}",
    "start and end": f"<|START_THINKING|>{THOUGHT}<|END_THINKING|>{RANKING}",
    "seed": f"<seed:think>{THOUGHT}</seed:think>{RANKING}",
    "channels": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{RANKING}",
    "channels without control tokens": f"analysis{THOUGHT}assistantfinal{RANKING}",
    "channels with spaces": f"analysis {THOUGHT} final {RANKING}",
    "channels with a format": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
    f"<|channel|>final <|constrain|>json<|message|>{RANKING}",
    "channels and a remark": f"analysisWe compare. {THOUGHT}assistantfinal{RANKING}\n\nThis is the final order.",
    "channels in lines": f"analysis\nThe final one is [1]. {THOUGHT}\nfinal\n{RANKING}",
    "twice": f"<think>{THOUGHT}</think><think>{THOUGHT}</think>{RANKING}",
    "one in another": f"<think>{THOUGHT}<think>{THOUGHT}</think>{THOUGHT}</think>{RANKING}",
    "different names": f"<thinking>{THOUGHT}</think>{RANKING}",
    "an answer's own marks": f"<think>{THOUGHT}</think><answer>{RANKING}</answer>",
}
ROWS = [(rank + 1, 6 - rank) for rank in range(6)]
WHOLE = {
    "citations before": f"Passages [1] and [2] say little, [3] says more.\n\n{RANKING}",
    "the incoming order before": f"The order given was [1] > [2] > [3] > [4] > [5] > [6]. Mine is:\n{RANKING}",
    "the prompt's example before": f"As in [2] > [3] > [1], here is my line:\n{RANKING}",
    "a remark after": f"{RANKING}\n\nI put [6] > [5] since it is newer; [1] is off topic.",
    "a shorter list after": f"{RANKING}. So the best two are:\n[6] > [5]",
    "numbers in prose": "The 6 passages of 2019 in order: 6 > 5 > 4 > 3 > 2 > 1",
    "Markdown": "**[6]** > **[5]** > **[4]** > **[3]** > **[2]** > **[1]**",
    "code": f"```\n{RANKING}\n```",
    "names": "Passage 6 > Passage 5 > Passage 4 > Passage 3 > Passage 2 > Passage 1",
    "other signs": "【6】≻【5】≻【4】≻【3】≻【2】≻【1】",
    "commas": "[6], [5], [4], [3], [2], [1]",
    "an array": "[6, 5, 4, 3, 2, 1]",
    "an array of strings": '["6", "5", "4", "3", "2", "1"]',
    "an object of strings": '{"ranking": ["6", "5", "4", "3", "2", "1"]}',
    "wrapped": "[6] > [5] > [4]\n[3] > [2] > [1]",
    "wrapped after a sign": "[6] > [5] > [4] >\n[3] > [2] > [1]",
    "in groups": "Highly relevant: [6] > [5]\nSomewhat relevant: [4] > [3]\nNot relevant: [2] > [1]",
    "an object": 'Sure:\n{"ranking": [6, 5, 4, 3, 2, 1]}',
    "lines": "[6]\n[5]\n[4]\n[3]\n[2]\n[1]",
    "lines before and after": f"[1]\n[2]\n{RANKING}\n[3]",
    "words between": "First [6], then [5], then [4], then [3], then [2], and [1].",
    "numbered": "\n".join(f"{rank}. Passage {number}" for rank, number in ROWS),
    "numbered with reasons": "Here:\n"
    + "\n".join(f"{rank}) [{number}]: 3 bees, [1] has none" for rank, number in ROWS),
    "ranks": "\n".join(f"Rank {rank}: Passage {number}" for rank, number in ROWS),
    "a table": "| Rank | Passage |\n|---|---|\n" + "\n".join(f"| {rank} | [{number}] |" for rank, number in ROWS),
    "a table by passage": "| Passage | Rank |\n|---|---|\n"
    + "\n".join(f"| {7 - r} | {r} |" for r, _ in reversed(ROWS)),
    "a listing": "\n".join(f"[{number}] bees and so on" for _, number in ROWS),
}
PARTS = [
    ("The 3 best of the 6 passages: 6 > 2 > 1", [5, 1, 0, 2, 3, 4]),
    ("[1] > [2] > [3] > [4] > [5] > [6] was given. Answer: [6] > [3]", [5, 2, 0, 1, 3, 4]),
    ("Top 2:\n1. Passage 6\n2. Passage 4\n", [5, 3, 0, 1, 2, 4]),
    ("[6] > [5] > [4] > [", [5, 4, 3, 0, 1, 2]),  # cut at teacher.llm.max_tokens
    ("[4]", [3, 0, 1, 2, 4, 5]),
    ("[4, 2]", [3, 1, 0, 2, 4, 5]),
    ("```json\n[4, 2]\n```", [3, 1, 0, 2, 4, 5]),
    ("<answer>[4] > [2]</answer>", [3, 1, 0, 2, 4, 5]),
]
UNUSABLE = [
    "I cannot rank these 6 passages.",
    "I cannot rank passages 1, 2, 3, 4, 5 and 6.",
    "I have read passages [1], [2], [3], [4], [5] and [6].",
    "I cannot write a line like [2] > [3] > [1] for these.",
    "Passage [3] answers it, [1] does too.",
    "From 2019 > 2018 on, 3.5 > 2.1 holds.",
    "1. Passage 1 is about bees\n2. Passage 2 is about ants\n3. Passage 3 is about nothing",
    "[1] bees\n[2] ants\n[3] bees\n[4] ants\n[5] bees\n[6] ants",
    "[6] rank 2\n[5] rank 1\n[4] rank 3\n[3] rank 4\n[2] rank 5\n[1] rank 6",
    "| Passage | Score |\n|---|---|\n| 1 | 3 |\n| 2 | 9 |",
    "[6] (0.9) > [5] (0.8)",
    "[2] the heat transfer properties of high-temperature air",  # this one and the next two by SmolLM2-135M
    "The passage that answers best first is: [1] a sensor for obtaining ablation rates",
    "The best theoretical method for calculating pressure on the surface of a wing",
    "6",
    "",
    f"<think>{THOUGHT}",
    f"analysis {THOUGHT}",
    f"<|channel|>analysis<|message|>{THOUGHT}<|end|>",
    f"analysisWe compare them. The final answer could be:\n{RANKING}\nBut wait, is 3 really",
    f"analysisWe compare.\nfinal answer: maybe {RANKING}",
]
ARRAYS = [
    ("[1, 2, 3, 4, 5]", 5),
    ("```json\n[1, 2, 3, 4, 5]\n```", 5),
    ('{"ranking": [1, 2, 3, 4, 5]}', 5),
    ('```json\n{"ranking": ["1", "2", "3"]}\n```', 3),
    ("```\n[1, 2]\n```", 2),
]
CUT = [
    "Okay, I have 6 passages to order. The line must have this form: [2] > [3] > [1]. Let's look at each passage in "
    "turn. Passage [1] says",
    "The order [5] > [4] > [6] > [2] is a start. Now",
    "Is it [3] > [1]?",
    "1. Passage 6\n2. Passage 4\nSo these two are",
    "[3] > [1] so",
]
REACHING_THE_END = [
    ("[6] > [5] > [4] > [", [5, 4, 3]),
    ("[6] > [5] > [4] > [1", [5, 4, 3]),
    ("[6] > [5] > [4]", [5, 4, 3]),
    ("[6] > [5] >\n[4] >", [5, 4, 3]),
    ("Passage 6 > Passage 5 > Passage 4 > Passage 3 > Pass", [5, 4, 3, 2]),
    ("Here:\n1. [6]: bees\n2. [5]: bees\n3. [4]: it te", [5, 4, 3]),
    (f"{RANKING}\n\nPassage [6] is first, since", BACKWARDS),
]


def test_a_hostile_answer_takes_linear_time():
    started = time.process_time()
    mend_permutation("[2] > [1] " + "=>" * 10_000 + " so [3] " + "->" * 10_000, 3)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", THINKING)
def test_what_a_model_thinks_is_left_out(name):
    assert mend_permutation(THINKING[name], 6) == (BACKWARDS, set())


@pytest.mark.parametrize("name", WHOLE)
def test_the_last_ranking_of_an_answer_counts(name):
    assert mend_permutation(WHOLE[name], 6) == (BACKWARDS, set())


@pytest.mark.parametrize(("answer", "order"), PARTS)
def test_part_of_a_ranking_counts_and_is_marked(answer, order):
    assert mend_permutation(answer, 6) == (order, {"missing"})


@pytest.mark.parametrize("answer", UNUSABLE)
def test_an_answer_without_a_ranking_is_unusable(answer):
    assert mend_permutation(answer, 6) == ([0, 1, 2, 3, 4, 5], {"unusable"})


@pytest.mark.parametrize(("answer", "count"), ARRAYS)
def test_an_array_that_is_all_of_an_answer_counts_also_in_the_incoming_order(answer, count):
    assert mend_permutation(answer, count) == (list(range(count)), set())


@pytest.mark.parametrize("answer", CUT)
def test_part_of_a_ranking_within_an_answer_that_was_cut_is_a_thought(answer):
    assert mend_permutation(answer, 6, is_cut=True) == ([0, 1, 2, 3, 4, 5], {"unusable"})


@pytest.mark.parametrize(("answer", "first"), REACHING_THE_END)
def test_a_ranking_that_was_cut_counts_as_far_as_it_goes(answer, first):
    order, faults = mend_permutation(answer, 6, is_cut=True)
    assert order[: len(first)] == first and faults == ({"missing"} if len(first) < 6 else set())


@pytest.mark.parametrize(
    "text",
    [
        "I think that <b>analysis</b> and thought help: [2] > [1]",
        "analysis of the passages: [2] is best.\n\n[2] > [1] > [3]",
        "analysis of final exam scores",
        "analysis: [2] > [1]",
    ],
)
def test_text_without_thoughts_is_kept(text):
    assert answer_after_thinking(text) == text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("analysisThe final line should be grade: 2? Let me think", ""),
        ("analysisThe final grade: 2? Let me think", ""),
        ("analysisIt is on topic. final grade: 2", "grade: 2"),
        ("analysisBoth are on topic. final B", "B"),
        ("analysisAs an assistant finally asked, I think", ""),
        ("analysisWe need a query.assistant\n\nfinal\n\nbee navigation", "bee navigation"),
    ],
)
def test_the_final_channel_without_control_tokens_is_no_word_of_a_thought(text, answer):
    assert answer_after_thinking(text) == answer


PIECES = [
    "[1]",
    "[2]",
    "[3]",
    " > ",
    ">",
    ", ",
    "\n",
    "1. ",
    "Passage 2",
    "| 1 | 2 |",
    "<think>",
    "</think>",
    "final",
    "9",
]


@given(
    answer=st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=60), count=st.integers(1, 9)
)
def test_any_answer_is_mended_to_a_permutation_and_marked_unless_it_names_each_passage_once(answer, count):
    order, faults = mend_permutation(answer, count)
    assert sorted(order) == list(range(count)) and faults <= {"repeated", "out of range", "missing", "unusable"}
    if faults == {"unusable"}:
        assert order == list(range(count))
    if not faults:  # the numbers of the ranking stand in the answer, in its order
        written = " ".join(re.findall(r"\d+", answer))
        assert " ".join(str(place + 1) for place in order) in written or "|" in answer


SENTENCES = [
    "Passage [{}] is about bees.",
    "I read all {} passages.",
    "See [{}] and [{}].",
    "Rank them?",
    "- {} of 9, 50%",
]


@given(data=st.data(), count=st.integers(3, 20))
def test_a_ranking_among_prose_and_thoughts_is_found_and_prose_by_itself_is_unusable(data, count):
    order = data.draw(st.permutations(range(count)))
    numbers = st.integers(1, count)
    prose = data.draw(st.lists(st.sampled_from(SENTENCES), max_size=4))
    lines = [sentence.format(data.draw(numbers), data.draw(numbers)) for sentence in prose]
    assert mend_permutation("\n".join(lines), count)[1] == {"unusable"}
    ranking = " > ".join(f"[{place + 1}]" for place in order)
    thought = f"<think>{' > '.join(f'[{n}]' for n in range(1, count + 1))}</think>" if data.draw(st.booleans()) else ""
    after = ["I hope this helps."] if data.draw(st.booleans()) else []
    assert mend_permutation("\n".join([thought, *lines, ranking, *after]), count) == (list(order), set())


def test_long_answers_are_read_in_time_that_grows_with_their_length():
    for piece in ("[1] > ", "<think>", "1. ", "| 1 ", "[", " "):
        find_ranking(piece * 20_000 + "x", 20)  # quadratic time would be minutes
