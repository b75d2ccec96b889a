"""Fuzzing of model directories: damaged and hostile files, each directory opened in a child with limits.

    python -m tests.stress.fuzz_models minutes=60 seed=0

Good directories of every kind are written once. Of each case, one to three files are changed: a JSON value of another
type or size, a key removed, a file cut, emptied, overwritten, missing, a bit flipped. A child then opens the directory
and scores two pairs, with 1 GB more memory than it started with and 10 seconds of a core. It may refuse the directory
in one line or score; anything else (a traceback, a signal, no end, no memory) is printed with what was changed. "other
scores" counts directories that still open and score differently: a changed weight is not a malformed file.
"""

import collections
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from distill.export.formats import export
from distill.models.chat_template import TemplateRefusal, render_chat
from distill.models.cross_encoder import CrossEncoder
from distill.models.language_model import load_language_model
from tests.helpers.backbones import WORDS, make_backbone, make_language_model
from tests.helpers.models import make_classifier, make_model, without_checksums
from tests.stress.limited import fault, in_child

CHECKED = "model with checksums"  # whose scores no change may alter
PASSAGES = [" ".join(WORDS[:5]), "rain [SEP] snow"]
NUMBERS = [0, 1, -1, 2, 7, 10**3, 10**6, 10**9, 2**31, 10**12, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")]
TEXTS = ["", "x", "bert", "../../x", "/etc/passwd", "é\n\0", "x" * 5000, "{{ 'x' * 10**9 }}", "[SEP]", "(a+)+$", "None"]
VALUES = [None, True, False, [], {}, [1], ["x"], [[]], {"x": 1}, {"": None}, [None] * 3, *NUMBERS, *TEXTS]
KEYS = ["num_hidden_layers", "hidden_size", "vocab_size", "auto_map", "num_labels", "max_position_embeddings", "dtype"]
KEYS += ["architectures", "model_type", "tokenizer_class", "normalizer", "pre_tokenizer", "chat_template", "padding"]
KEYS += [
    "model_max_length",
    "quantization_config",
    "attn_implementation",
    "rope_parameters",
    "layer_types",
    "query_length",
]


def main(minutes: float = 1e9, num_cases: float = 1e9, seed: int = 0, *, children: bool = True) -> collections.Counter:
    """Fuzz for so many minutes or cases; return how often each outcome was met, by the kind of directory."""
    rng, counts = random.Random(seed), collections.Counter()
    end = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_directories(Path(folder) / "good")
        expected = {kind: scores(path) for kind, (path, scores) in kinds.items()}
        while time.monotonic() < end and counts.total() < num_cases:
            case = Path(folder) / "case"
            shutil.rmtree(case, ignore_errors=True)
            kind = rng.choice(list(kinds))
            path, scores = kinds[kind]
            shutil.copytree(path, case)
            changes = [change(case, rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
            opened = partial(in_this_process, partial(scores, case))
            outcome = in_child(opened) if children else opened()
            if isinstance(outcome, list):
                outcome = "the same scores" if outcome == expected[kind] else "other scores"
                is_noticed = kind == CHECKED and not any(one.startswith("distill.json") for one in changes)
                if is_noticed and outcome == "other scores":
                    print(f"{kind}: {'; '.join(changes)}\n{outcome}\n", flush=True)
                    outcome = f"FAILED {outcome}"
            elif outcome != "refused":
                print(f"{kind}: {'; '.join(changes)}\n{outcome}\n", flush=True)
                outcome = f"FAILED {outcome.strip().splitlines()[-1][:60]}"
            counts[f"{kind}: {outcome}"] += 1
    return counts


def make_directories(folder: Path) -> dict[str, tuple[Path, Callable[[Path], list[float]]]]:
    """Write a good directory of each kind; return it and the function that opens and scores."""
    model = make_model(folder / "bert", "bert")
    model.save_pretrained(folder / "checked")
    shutil.copytree(folder / "checked", folder / "model")
    without_checksums(folder / "model")  # else they would refuse what is to be met
    export(model, folder / "lightning", "lightning-ir")
    make_model(folder / "modern", "modernbert", "mean").save_pretrained(folder / "modernbert model")
    without_checksums(folder / "modernbert model")
    make_classifier(folder / "roberta", "roberta", 2)
    make_backbone(folder / "deberta", "deberta-v2")
    make_language_model(folder / "llama")
    tokenizer = json.loads((folder / "llama" / "tokenizer_config.json").read_text())
    tokenizer["chat_template"] = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (folder / "llama" / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shutil.copytree(folder / "llama", folder / "reranker")
    return {
        CHECKED: (folder / "checked", score_model),
        "model": (folder / "model", score_model),
        "model of ModernBERT": (folder / "modernbert model", score_model),
        "lightning-ir": (folder / "lightning", score_model),
        "classifier": (folder / "roberta", score_model),
        "backbone": (folder / "bert", score_backbone),
        "backbone, DeBERTa": (folder / "deberta", score_backbone),
        "local LLM": (folder / "llama", score_language_model),
    }


def score_model(path: Path) -> list[float]:
    """Open a cross-encoder and score."""
    return score(CrossEncoder.from_pretrained(str(path)))


def score_backbone(path: Path) -> list[float]:
    """Open a backbone, with the same new layer each time, and score."""
    torch.manual_seed(0)
    return score(CrossEncoder.from_backbone(str(path), query_length=8, passage_length=20).eval())


def score(model: CrossEncoder) -> list[float]:
    """Return the scores of PASSAGES, in their order."""
    ranked = dict(zip(*model.rank(" ".join(WORDS[:3]), PASSAGES), strict=True))
    return [ranked[index] for index in range(len(PASSAGES))]


def score_language_model(path: Path) -> list[float]:
    """Open a language model, render a prompt and return its last logits."""
    tokenizer, model = load_language_model(str(path), torch.float32, f"teacher.llm.model={path}")
    text = PASSAGES[0]
    if tokenizer.chat_template:
        with contextlib.suppress(TemplateRefusal):
            text = render_chat(tokenizer, [{"role": "user", "content": text}], path)
    encoded = tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        return model(input_ids=encoded["input_ids"]).logits[0, -1].tolist()


def in_this_process(opened: Callable[[], list[float]]) -> list[float] | str:
    """Return the scores, "refused" or a traceback."""
    try:
        return opened()
    except BaseException as error:
        return fault(error) or "refused"


def change(directory: Path, rng: random.Random) -> str:
    """Change one file of a directory; return what was done."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    if not files:
        return "nothing is left"
    file = rng.choice(files)
    name = str(file.relative_to(directory))
    if file.suffix == ".json" and rng.random() < 0.7:
        try:
            content = json.loads(file.read_text())
            what = change_json(content, rng)
        except (ValueError, RecursionError):
            return f"{name}: is no JSON already"
        if what is None or rng.random() < 0.03:
            content = rng.choice(VALUES)
            what = f"is {content!r:.60}"
        text = json.dumps(content)
        if rng.random() < 0.01:
            text, what = "[" * 100_000 + text, "is nested deeply"
        file.write_text(text)
        return f"{name}: {what}"
    content, place = file.read_bytes(), rng.randrange(file.stat().st_size + 1)
    ways: dict[str, Callable[[], object]] = {
        f"cut at {place}": lambda: file.write_bytes(content[:place]),
        f"bit of byte {place} flipped": lambda: file.write_bytes(flipped(content, place, rng.randrange(8))),
        "missing": file.unlink,
        "empty": lambda: file.write_bytes(b""),
        f"16 bytes from {place} overwritten": lambda: file.write_bytes(
            content[:place] + rng.randbytes(16) + content[place + 16 :]
        ),
        "a directory": lambda: (file.unlink(), file.mkdir()),
        "longer": lambda: file.write_bytes(content + rng.randbytes(rng.randrange(1, 99))),
        "another file": lambda: shutil.copyfile(other, file) if (other := rng.choice(files)) != file else None,
        "a link to nothing": lambda: (file.unlink(), file.symlink_to("nothing")),
    }
    what = rng.choice(list(ways))
    ways[what]()
    return f"{name}: {what}"


def change_json(content, rng: random.Random) -> str | None:
    """Change one value within a JSON object or list; return what was done, None if there is nothing to change."""
    part, where = content, ""
    while isinstance(part, dict | list) and part:
        key = rng.choice(list(part)) if isinstance(part, dict) else rng.randrange(len(part))
        where += f".{key}"
        inner = part[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            part = inner
            continue
        if isinstance(part, dict) and rng.random() < 0.15:
            key = rng.choice(KEYS)
            where += f" or {key}"
        elif rng.random() < 0.15:
            del part[key]
            return f"{where} removed"
        value = rng.choice([[value for value in VALUES if type(value) is type(inner)] or VALUES, VALUES])
        part[key] = rng.choice(value)
        return f"{where}={part[key]!r:.60}"
    return None


def flipped(content: bytes, place: int, bit: int) -> bytes:
    """Return the content with one bit of a byte flipped."""
    if place >= len(content):
        return content
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


if __name__ == "__main__":
    options = dict(argument.split("=") for argument in sys.argv[1:])
    torch.set_num_threads(1)
    outcomes = main(**{name: float(value) for name, value in options.items() if name != "seed"},
                    seed=int(options.get("seed", 0)))  # fmt: skip
    for name, number in sorted(outcomes.items()):
        print(f"{number:8} {name}")
    print(f"{outcomes.total():8} cases, {sum(n for name, n in outcomes.items() if 'FAILED' in name)} failed")
