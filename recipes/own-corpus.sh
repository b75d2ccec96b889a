#!/usr/bin/env bash
# From your corpus to a small, fast re-ranker: first stage, teacher, student, evaluation, report, export.
#
#   PASSAGES=P.tsv QUERIES=TRAIN.tsv TEST_QUERIES=TEST.tsv QRELS=QRELS.txt \
#       LLM_URL=http://localhost:8000/v1 LLM=NAME recipes/own-corpus.sh
#
# Run it from the repository, with the environment active. Finished steps are skipped when you run it again, and the one
# that was stopped resumes: no answer that arrived is ever requested again. DRY=1 stops after the estimate of what the
# LLM costs. Steps 5 and 6 need
#   pip install -r requirements-report.txt onnx onnxscript onnxruntime -c constraints.txt
# No LLM at hand? `python -m examples.llm_server` stands in for one, so that you can try every step.
# docs/your-own-corpus.md explains each step.
set -euo pipefail
cd "$(dirname "$0")/.."

# ---------------------------------------------------------------------------------------------------------------------
# What you have. Passages and queries: TSV (id<TAB>text), JSONL, CSV, parquet or an ir_datasets id.

PASSAGES=${PASSAGES:?the passages, as in PASSAGES=passages.tsv}
QUERIES=${QUERIES:?the queries to train on, as in QUERIES=train.tsv: a few hundred to start with, 10 000 in the papers}
TEST_QUERIES=${TEST_QUERIES:?other queries, with judgments, as in TEST_QUERIES=test.tsv}
QRELS=${QRELS:?judgments of the test queries, as in QRELS=qrels.txt}

# The teacher: any OpenAI-compatible endpoint (vLLM, llama.cpp, a hosted API).
LLM_URL=${LLM_URL:-http://localhost:8000/v1}
LLM=${LLM:?the model, by the name that the endpoint knows it by, as in LLM=Qwen/Qwen3-32B}
LLM_KEY=${LLM_KEY:-null}        # name of the environment variable with the key, as in LLM_KEY=OPENAI_API_KEY

# The student.
BACKBONE=${BACKBONE:-electra-base}      # minilm-l12 is faster; ettin-17m to ettin-150m are newer
DEPTH=${DEPTH:-50}              # passages a list that the teacher orders; more than 50 gains little (Rank-DistiLLM, Figure 1)
EPOCHS=${EPOCHS:-3}             # passes over the lists; 20 for a few hundred queries
TRAIN=${TRAIN:-}                # further overrides of train.py, as in TRAIN="train.batch_size=8 backbone.lr=3e-5"

PYTHON=${PYTHON:-python}
OUT=${OUT:-outputs/own-corpus}  # one directory for one corpus, teacher and student

# step FILE COMMAND...: run a command, unless the file that it ends with is there.
step() {
    local file=$1
    shift
    if [[ -e $file ]]; then
        echo "== $file is there: skipped"
    else
        echo "== $*"
        "$@"
    fi
}

# ---------------------------------------------------------------------------------------------------------------------
# 1. First stage: the best passages of each query. What the teacher orders decides what the student learns, so a better
#    retriever pays: method=sparse model=naver/splade-v3-distilbert, or your own runs in place of these two files.

step "$OUT/train.run" "$PYTHON" -m distill retrieve passages="$PASSAGES" queries="$QUERIES" depth="$DEPTH" \
    output="$OUT/train.run"
step "$OUT/test.run" "$PYTHON" -m distill retrieve passages="$PASSAGES" queries="$TEST_QUERIES" depth=100 \
    output="$OUT/test.run"

# ---------------------------------------------------------------------------------------------------------------------
# 2. Teacher: the LLM orders windows of 20 passages, from the bottom of each list to its top. The first command only
#    estimates the requests and tokens, and DRY=1 stops there; teacher.llm.max_cost=10 teacher.llm.price_in=... sets a limit.

teacher=(passages="$PASSAGES" queries="$QUERIES" run="$OUT/train.run" depth="$DEPTH"
    teacher.llm.base_url="$LLM_URL" teacher.llm.model="$LLM" teacher.llm.api_key_variable="$LLM_KEY")
step "$OUT/teacher/teacher.run" "$PYTHON" -m distill annotate "${teacher[@]}" dry_run=true
if [[ -n ${DRY:-} ]]; then
    echo "DRY=$DRY: stopped after the estimate; without DRY, the same command continues"
    exit
fi
step "$OUT/teacher/teacher.run" "$PYTHON" -m distill annotate "${teacher[@]}" hydra.run.dir="$OUT/teacher"

# ---------------------------------------------------------------------------------------------------------------------
# 3. Student: a cross-encoder learns that order with RankNet. The last line says whether it agrees with the teacher. The
#    teacher's lists have at most $DEPTH passages already; data.depth=null takes them whole, however short they are.

# shellcheck disable=SC2086  # $TRAIN is several words
step "$OUT/student/results.json" "$PYTHON" train.py experiment=own-corpus backbone="$BACKBONE" \
    data.passages="$PASSAGES" data.queries="$QUERIES" data.depth=null train.max_epochs="$EPOCHS" \
    teacher.path="$OUT/teacher/teacher.run" teacher.first_stage="$OUT/train.run" hydra.run.dir="$OUT/student" $TRAIN

# ---------------------------------------------------------------------------------------------------------------------
# 4. Evaluation: re-rank the first stage's top 100 of the test queries, and measure both orders.

step "$OUT/test/results.json" "$PYTHON" evaluate.py model="$OUT/student/model" task=files task.passages="$PASSAGES" \
    task.queries="$TEST_QUERIES" task.run="$OUT/test.run" task.qrels="$QRELS" task.depth=100 \
    'task.measures=[nDCG@10,RR@10]' hydra.run.dir="$OUT/test"

# ---------------------------------------------------------------------------------------------------------------------
# 5. Report: one page with everything, which works offline. With several students below $OUT it compares them.

step "$OUT/report/index.html" "$PYTHON" -m distill report runs="$OUT/test" output="$OUT/report"

# ---------------------------------------------------------------------------------------------------------------------
# 6. Export. The model's directory is sentence-transformers' already; int8 ONNX is fast on CPUs.

step "$OUT/onnx-int8" "$PYTHON" -m distill export model="$OUT/student/model" format=onnx-int8 output="$OUT/onnx-int8"

echo "Done: $OUT/student/model (the model), $OUT/report/index.html (what it gained), $OUT/onnx-int8 (for CPUs)"
