"""The prompts of language models that score pairs, as texts and as the tokens around a pair.

    prompt = find_prompt(path, config, tokenizer, name=None)         # of a decoder's directory; None: it has none
    template = prompt_template(path, tokenizer, prompt.text)         # query and passage are tokenised by themselves

A prompt comes from a chat template with the roles `query` and `document`, as sentence-transformers reads it, or from
PROMPTS by its name. Query and passage are cut, the prompt around them is not.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.pairs import PairTemplate
from distill.errors import InputError
from distill.models.chat_template import TemplateRefusal, render_chat
from distill.models.json_files import COPY_AGAIN
from distill.models.text_options import PROMPTS_FILE, chat_template_options, read_prompts

T5_PROMPTS = ("monot5", "rankt5")
DECODER_PROMPTS = ("qwen3-reranker",)
PROBES = [("who is it?", "It is 5."), ("10 mm", '"quoted" words'), ("bees find home", "(bees) steer")]
MARKS = "Query7Mark", "Passage7Mark"


@dataclass(frozen=True)
class ScoringPrompt:
    """The prompt of a language model, and the tokens whose logits make up its score."""

    text: str  # with {query} and {passage}
    true: str
    false: str | None  # None: the score is the logit of `true`
    log_probability: bool = False  # the score is the log-probability of `true` among the two, not the log-odds
    chat_template: str | None = None  # that writes it, for models that are saved; None: the tokenizer's own does
    instructions: dict[str, Any] = field(default_factory=dict)  # of sentence-transformers, that the own one takes

    @property
    def whole_template(self) -> str | None:
        """A chat template that writes the prompt with its instruction; None: the tokenizer's own does, without any."""
        return _chat_template(self.text) if self.instructions.get("default_prompt_name") else self.chat_template


PROMPTS = {
    "monot5": ScoringPrompt("Query: {query} Document: {passage} Relevant:", "▁true", "▁false", log_probability=True),
    "rankt5": ScoringPrompt("Query: {query} Document: {passage}", "<extra_id_10>", None),
    # From the model cards of Qwen/Qwen3-Reranker-*, whose probability is the sigmoid of these log-odds
    "qwen3-reranker": ScoringPrompt(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
        "<Query>: {query}\n<Document>: {passage}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "yes",
        "no",
    ),
}


def find_prompt(path: Path, config: dict, tokenizer, name: str | None = None) -> ScoringPrompt | None:
    """Return the prompt of a decoder's directory: the one that is named, its chat template's, or that of its name.

    Raises InputError for a name that is not a decoder's prompt.
    """
    if name is None and (given := _chat_prompt(path, tokenizer)) is not None:
        return given
    name = prompt_name(path, config, DECODER_PROMPTS, name)
    if name is None:
        return None
    return replace(PROMPTS[name], chat_template=_chat_template(PROMPTS[name].text))


def name_of_prompt(text: str) -> str | None:
    """Return the name of a decoder's prompt; None for one without."""
    return next((name for name in DECODER_PROMPTS if PROMPTS[name].text == text), None)


def prompt_name(path: Path, config: dict, choices: tuple[str, ...], given: str | None) -> str | None:
    """Return the given one of the choices, or the one that is part of the directory's, the Hub's or the model's name.

    Raises InputError if the given one is unknown, or is for another kind of model.
    """
    if given is not None and given not in PROMPTS:
        raise InputError(f"prompt={given} is unknown: choose one of {', '.join(PROMPTS)}")
    if given is not None and given not in choices:
        known = " or ".join(f"prompt={choice}" for choice in choices)
        raise InputError(f"{path}: prompt={given} is for another kind of language model: set {known}, or leave it out")
    if given is not None:
        return given
    names = [path.name, str(config.get("_name_or_path", ""))]
    if path.parent.name == "snapshots":  # in the Hub's cache: models--OWNER--NAME/snapshots/COMMIT
        names.append(path.parent.parent.name)
    return next((choice for choice in choices for name in names if choice in name.lower()), None)


def _chat_prompt(path: Path, tokenizer) -> ScoringPrompt | None:
    """Return the prompt of a chat template with the roles query and document, as sentence-transformers writes them."""
    if not tokenizer.chat_template:
        return None
    instructions = _instructions(path)
    instruction = instructions.get("prompts", {}).get(instructions.get("default_prompt_name"))
    messages = [{"role": role, "content": mark} for role, mark in zip(("query", "document"), MARKS, strict=True)]
    messages = ([{"role": "system", "content": instruction}] if instruction else []) + messages
    options = chat_template_options(path)
    try:
        text = render_chat(tokenizer, messages, path, **options)
    except TemplateRefusal:  # of a role that it does not know
        return None
    if [text.count(mark) for mark in MARKS] != [1, 1] or text.index(MARKS[0]) > text.index(MARKS[1]):
        return None
    text = text.replace("{", "{{").replace("}", "}}")
    text = text.replace(MARKS[0], "{query}").replace(MARKS[1], "{passage}")
    template = _chat_template(text) if options else None  # other libraries would render the own one without them
    return ScoringPrompt(text, "yes", "no", chat_template=template, instructions=instructions)


def _instructions(path: Path) -> dict[str, Any]:
    """Return the prompts of a sentence-transformers directory, and the name of the one that it takes by default."""
    file, config = path / PROMPTS_FILE, read_prompts(path)
    prompts = config.get("prompts") or {}
    for instruction in prompts.values():
        if instruction is not None and not isinstance(instruction, str):
            raise InputError(f"{file}: prompts holds {str(instruction)[:40]}: must be texts: {COPY_AGAIN}")
    return {"prompts": prompts, "default_prompt_name": config.get("default_prompt_name")}


def _chat_template(text: str) -> str:
    """Return a chat template that writes a prompt, from one message of the role query and one of the role document."""
    before, between, after = (json.dumps(part, ensure_ascii=False) for part in split_prompt(text))
    return (
        "{%- for message in messages %}"
        '{%- if message.role == "query" %}{{- ' + before + " + message.content + " + between + " }}"
        '{%- elif message.role == "document" %}{{- message.content + ' + after + " }}{%- endif %}"
        "{%- endfor %}"
    )


def split_prompt(text: str) -> tuple[str, str, str]:
    """Return the text before the query, between query and passage, and after the passage."""
    before, rest = text.split("{query}")
    between, after = rest.split("{passage}")
    return tuple(part.replace("{{", "{").replace("}}", "}") for part in (before, between, after))  # type: ignore


def prompt_template(path: Path, tokenizer, text: str) -> PairTemplate:
    """Return the tokens that a byte-level tokenizer puts around query and passage in a prompt.

    Such tokenizers merge a space with the following word, and a newline with the preceding punctuation: these belong
    to the texts. Raises InputError if other parts of the prompt are merged with the texts.
    """
    before, between, after = split_prompt(text)
    query_start, passage_start = (part.removeprefix(part.rstrip(" ")) for part in (before, between))
    query_end, passage_end = (part.removesuffix(part.lstrip()) for part in (between, after))
    between = between.removeprefix(query_end).removesuffix(passage_start)
    template = template_of_texts(tokenizer, before.rstrip(" "), between, after.lstrip(), [])
    template.query_text = f"{query_start}{{}}{query_end}"
    template.passage_text = f"{passage_start}{{}}{passage_end}"
    template.query_end, template.passage_end = (
        np.asarray(_ids(tokenizer, part), dtype=np.int32) for part in (query_end, passage_end)
    )
    check_seams(path, tokenizer, template, text, [])
    return template


def template_of_texts(tokenizer, before: str, between: str, after: str, end: list[int]) -> PairTemplate:
    """Return the tokens around query and passage from the texts there, and from the tokens at the end."""
    ids = [_ids(tokenizer, text) for text in (before, between, after)]
    ids[-1] = ids[-1] + end
    prefix, middle, suffix = (np.asarray(tokens, dtype=np.int32) for tokens in ids)
    return PairTemplate(prefix, middle, suffix, second_type=0, keeps_query=True)


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []


def check_seams(path: Path, tokenizer, template: PairTemplate, text: str, end: list[int]) -> None:
    """Raise InputError if tokenising query and passage separately does not give the tokens of the whole prompt."""
    for query, passage in PROBES:
        whole = _ids(tokenizer, text.format(query=query, passage=passage)) + end
        first, second = (np.asarray(_ids(tokenizer, form)) for form in template.texts(query, passage))
        if template.join(first, second)[0].tolist() != whole:
            raise InputError(
                f"{path}: its tokenizer merges words of the prompt with the texts: cannot be loaded exactly"
            )
