"""What sentence-transformers does to texts before they are tokenised, as the files of a directory say.

    check_text_options(path, lambda: tokenizer)              # raises InputError for what would not be done here
    check_default_prompt(path)                               # the same for a default prompt, of a model that reads none
    options = chat_template_options(path)                    # {"add_generation_prompt": True}
    longest = longest_pair(path)                             # max_seq_length; None: not said

Scores equal those of the library that a model comes from, so an option that is not read here is refused.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.models.json_files import COPY_AGAIN, SENTENCE_TRANSFORMERS, read_count, read_object

FILE, PROMPTS_FILE = "sentence_bert_config.json", "config_sentence_transformers.json"
SCALARS = (str, bool, int, float, type(None))
NOT_VARIABLES = ("tokenizer", "messages", "name", "conversation", "conversations", "chat_template", "tokenize")


def check_text_options(path: Path, load: Callable[[], Any]) -> None:
    """Raise InputError for options of a directory that this library does not follow, whatever the model reads.

    load: returns the tokenizer, if it matters.
    """
    file = path / FILE
    others = [name for name, value in _processing(path).items() if value and name != "chat_template"]
    if others:
        raise InputError(
            f"{file}: processing_kwargs has {', '.join(others)}, which only sentence-transformers follows: remove it "
            "there, if the scores may change"
        )
    if read_options(path).get("do_lower_case") and _keeps_capitals(load()):
        raise InputError(
            f"{file}: do_lower_case=true, but the tokenizer keeps capitals: set it to false there, and train or score "
            "with lower-case texts"
        )


def _keeps_capitals(tokenizer) -> bool:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is None or normalizer.normalize_str("AÉ") != normalizer.normalize_str("aé")


def check_default_prompt(path: Path) -> None:
    """Raise InputError for a default prompt of a directory whose model reads plain pairs, without a chat template."""
    given = read_prompts(path)
    prompt = (given.get("prompts") or {}).get(given.get("default_prompt_name"))
    if prompt:
        raise InputError(
            f"{path / PROMPTS_FILE}: has a default prompt, {str(prompt)[:40]!r}, which sentence-transformers puts "
            "before each query: set default_prompt_name to null there, and put it into the queries"
        )


def read_options(path: Path) -> dict[str, Any]:
    """Return the options of a directory's first module; none where it has no such file."""
    return read_object(path / FILE) if (path / FILE).is_file() else {}


def read_prompts(path: Path) -> dict[str, Any]:
    """Return what a directory's file says of prompts, among other things; nothing where it has no such file."""
    return read_object(path / PROMPTS_FILE, SENTENCE_TRANSFORMERS) if (path / PROMPTS_FILE).is_file() else {}


def longest_pair(path: Path) -> int | None:
    """Return the length in tokens to which sentence-transformers cuts a pair, if the file says one."""
    return read_count(read_options(path), "max_seq_length", path / FILE, optional=True)


def chat_template_options(path: Path) -> dict[str, Any]:
    """Return the variables that a chat template gets; raises InputError for what cannot be one."""
    options = _processing(path).get("chat_template") or {}
    wrong = not isinstance(options, dict) or [
        name for name, value in options.items() if name in NOT_VARIABLES or not isinstance(value, SCALARS)
    ]
    if wrong:
        raise InputError(
            f"{path / FILE}: processing_kwargs.chat_template must hold variables of the template, as in "
            f'{{"add_generation_prompt": true}}: {COPY_AGAIN}'
        )
    return options


def _processing(path: Path) -> dict[str, Any]:
    given = read_options(path).get("processing_kwargs") or {}
    if not isinstance(given, dict):
        raise InputError(f"{path / FILE}: processing_kwargs must be an object: {COPY_AGAIN}")
    return given
