#!/usr/bin/env bash
# From a folder of texts to a small, fast re-ranker that is known to be better than BM25, or told apart as not.
#
#   LLM_URL=http://localhost:8000/v1 LLM=NAME recipes/own-corpus.sh CORPUS                  an LLM writes the queries
#   LLM=NAME LOGGED=log.tsv recipes/own-corpus.sh CORPUS                                    and people's own are added
#   CROSS_ENCODER=DIR LOGGED=log.tsv recipes/own-corpus.sh CORPUS                           without any LLM
#   LLM=NAME PASSAGES=P.tsv QUERIES=TRAIN.tsv TEST_QUERIES=TEST.tsv QRELS=QRELS.txt recipes/own-corpus.sh
#
# CORPUS is a folder of Markdown, HTML or text, a CSV, TSV, JSONL or parquet file, or a dump of Elasticsearch. Run it
# from the repository, with the environment active. Every stage leaves its files below $OUT: run the same command again,
# and finished stages are skipped, and one that was stopped resumes. No answer that arrived is ever requested again.
# DRY=1 stops before the first request. What an LLM costs is shown before each stage that asks one. If it needs a key,
# the recipe asks before it goes on; CONFIRM=1 says yes, and so does MAX_COST, beyond which no stage goes.
# The last two stages need
#   pip install -r requirements-report.txt onnx onnxscript onnxruntime -c constraints.txt
# No LLM at hand? `python -m examples.llm_server` stands in for one, so that you can try every stage.
# docs/your-own-corpus.md explains each of them.
set -euo pipefail
cd "$(dirname "$0")/.."
source recipes/steps.sh

# ---------------------------------------------------------------------------------------------------------------------
# What you have

CORPUS=${1:-${CORPUS:-}}        # articles, which are cut into passages
FIELDS=${FIELDS:-}              # names of its fields, if unusual, as in FIELDS="id_field=sku text_fields=[title,body]"
PASSAGES=${PASSAGES:-}          # or passages that need no cutting: TSV, JSONL, CSV, parquet or an ir_datasets id
LOGGED=${LOGGED:-}              # queries of people, without judgments: added to those that the LLM writes
NUM_QUERIES=${NUM_QUERIES:-1000}        # queries that the LLM writes; 0: none
QUERIES=${QUERIES:-}            # or queries to train on as they are
HELDOUT=${HELDOUT:-0.1}         # share of the queries that is held out, to judge the student on
TEST_QUERIES=${TEST_QUERIES:-}  # queries with judgments by people, if there are any
QRELS=${QRELS:-}                # these judgments, of passages or, with CORPUS, of articles

# The teacher: any OpenAI-compatible endpoint (vLLM, llama.cpp, a hosted API), or a cross-encoder.
LLM_URL=${LLM_URL:-http://localhost:8000/v1}
LLM=${LLM:-}                    # the model, by the name that the endpoint knows it by, as in LLM=Qwen/Qwen3-32B
LLM_KEY=${LLM_KEY:-null}        # name of the environment variable with the key, as in LLM_KEY=OPENAI_API_KEY
PRICE_IN=${PRICE_IN:-0}         # of a million tokens read, for the estimates
PRICE_OUT=${PRICE_OUT:-0}       # of a million tokens written
MAX_COST=${MAX_COST:-null}      # each stage stops at this cost; needs the prices
CROSS_ENCODER=${CROSS_ENCODER:-}        # without an LLM: directory, packaged model or Hub id; several are separated by commas
ENCODER=${ENCODER:-}            # a bi-encoder, whose order is fused with the cross-encoder's and the first stage's
JUDGE=${JUDGE:-$LLM}            # the LLM that judges held-out queries: better another one than the teacher
JUDGE_URL=${JUDGE_URL:-$LLM_URL}
[[ $JUDGE_URL == "$LLM_URL" ]] && key=$LLM_KEY || key=null      # a key is for the endpoint that gave it
JUDGE_KEY=${JUDGE_KEY:-$key}    # name of the environment variable with the key for JUDGE_URL

# The student.
BACKBONE=${BACKBONE:-}          # default: electra-base for English, else mmbert-base; minilm-l12 is faster
DEPTH=${DEPTH:-50}              # passages a list that the teacher orders; more than 50 gains little (Rank-DistiLLM, Figure 1)
STEMMER=${STEMMER:-auto}        # of BM25; auto finds the language
EPOCHS=${EPOCHS:-null}          # passes over the lists; null: 3 to 20, the fewer lists the more
TRAIN=${TRAIN:-}                # further overrides of train.py, as in TRAIN="backbone.lr=3e-5 train.precision=bfloat16"
EVALUATE=${EVALUATE:-}          # further overrides of evaluate.py, as in EVALUATE=precision=bfloat16
EXPORT=${EXPORT-onnx-int8}      # format for the last stage; empty: none

PYTHON=${PYTHON:-python}
OUT=${OUT:-outputs/own-corpus}  # one directory for one corpus, teacher and student

# ---------------------------------------------------------------------------------------------------------------------

fail() {
    echo "error: $*" >&2
    exit 2
}

# Whether a teacher's two rankings of the same passages agree no more than by chance; the language of passages.
IS_NOISE='import json, sys; print(json.load(open(sys.argv[1]))["noise/shuffles"] == 1)'
LANGUAGE='import sys
from distill.retrieval.languages import choose_language, sampled_languages
from distill.sources.fields import Fields
print(choose_language(sys.argv[1], sampled_languages(sys.argv[1], Fields())))'

# paid FILE COMMAND...: the same, but first show what it costs, and ask if that is money.
paid() {
    local file=$1
    shift
    if [[ -n $LLM$JUDGE && ! -e $file ]]; then
        echo "== $* dry_run=true"
        "$@" dry_run=true
        if [[ -n ${DRY:-} ]]; then
            echo "DRY=$DRY: stopped after the estimate; without DRY, the same command continues"
            exit
        fi
        confirm
    fi
    step "$file" "$@"
}

confirm() {
    [[ $LLM_KEY$JUDGE_KEY == nullnull || -n ${CONFIRM:-} || $MAX_COST != null ]] && return
    local answer=
    [[ -t 0 ]] && read -r -p "Continue? [y/N] " answer
    [[ $answer == [yY]* ]] || fail "not confirmed: CONFIRM=1 continues, and so does MAX_COST=10 PRICE_IN=... PRICE_OUT=..."
}

[[ -n $CORPUS || -n $PASSAGES ]] || fail "no corpus: recipes/own-corpus.sh CORPUS, or PASSAGES=passages.tsv"
[[ -n $CORPUS || -z $FIELDS ]] || fail "FIELDS without CORPUS: rename the fields of PASSAGES to id and text, or give CORPUS"
[[ -n $LLM || -n $CROSS_ENCODER ]] || fail "no teacher: give LLM, the model's name at LLM_URL, or CROSS_ENCODER=DIR"
[[ -n $LLM || -n $LOGGED || -n $QUERIES ]] || fail "no queries: a cross-encoder writes none: give LOGGED or QUERIES"
[[ -n $TEST_QUERIES || -z $QRELS ]] || fail "QRELS without TEST_QUERIES: give the queries that they judge"
[[ -n $QRELS || -z $TEST_QUERIES ]] || fail "TEST_QUERIES without QRELS: give judgments of the test queries"
[[ -n $LLM ]] || NUM_QUERIES=0

costs=(teacher.llm.price_in="$PRICE_IN" teacher.llm.price_out="$PRICE_OUT" teacher.llm.max_cost="$MAX_COST")
writer=(teacher.llm.base_url="$LLM_URL" teacher.llm.model="${LLM:-none}" teacher.llm.api_key_variable="$LLM_KEY"
    "${costs[@]}")
judge=(teacher.llm.base_url="$JUDGE_URL" teacher.llm.model="$JUDGE" teacher.llm.api_key_variable="$JUDGE_KEY"
    "${costs[@]}")
if [[ -n $LLM ]]; then
    teacher=("${writer[@]}")
else
    teacher=(llm@teacher.llm=cross-encoder teacher.llm.model="'$CROSS_ENCODER'")
fi

# ---------------------------------------------------------------------------------------------------------------------
# 1. Passages: articles are cut into overlapping ones of 200 words, whose ids lead back to them.

if [[ -n $CORPUS ]]; then
    PASSAGES=$OUT/passages.jsonl
    # shellcheck disable=SC2086  # $FIELDS is several words
    step "$PASSAGES" "$PYTHON" -m distill cut passages="$CORPUS" output="$PASSAGES" $FIELDS
fi

# ---------------------------------------------------------------------------------------------------------------------
# 2. Queries: written for sampled passages, and kept only if they find their own passage again; logged ones are cleaned.
#    A tenth is held out, apart from those that training sees.

origins=null TRAIN_QUERIES='' HELDOUT_QUERIES=''
if [[ -z $QUERIES ]]; then
    generate=("$PYTHON" -m distill generate passages="$PASSAGES" num_queries="$NUM_QUERIES" bm25.stemmer="$STEMMER"
        logged="${LOGGED:-null}" "${writer[@]}" hydra.run.dir="$OUT/queries")
    if [[ $NUM_QUERIES == 0 ]]; then
        step "$OUT/queries/results.json" "${generate[@]}"
    else
        paid "$OUT/queries/results.json" "${generate[@]}"
    fi
    QUERIES=$OUT/queries/queries.tsv
    [[ $NUM_QUERIES == 0 ]] || origins=$OUT/queries/origins.txt
elif [[ -n $TEST_QUERIES ]]; then
    TRAIN_QUERIES=$QUERIES      # the test queries are held out already
fi
if [[ -z $TRAIN_QUERIES ]]; then
    step "$OUT/split/results.json" "$PYTHON" -m distill split queries="$QUERIES" origins="$origins" heldout="$HELDOUT" \
        output="$OUT/split"
    TRAIN_QUERIES=$OUT/split/train.tsv
    HELDOUT_QUERIES=$OUT/split/heldout.tsv
fi

# ---------------------------------------------------------------------------------------------------------------------
# 3. First stage: the best passages of each query. What the teacher orders decides what the student learns, so a better
#    retriever pays: method=sparse model=naver/splade-v3-distilbert, or your own runs in place of these files.

retrieve=("$PYTHON" -m distill retrieve passages="$PASSAGES" bm25.stemmer="$STEMMER")
step "$OUT/train.run" "${retrieve[@]}" queries="$TRAIN_QUERIES" depth="$DEPTH" output="$OUT/train.run"
[[ -z $HELDOUT_QUERIES ]] ||
    step "$OUT/heldout.run" "${retrieve[@]}" queries="$HELDOUT_QUERIES" depth="$DEPTH" output="$OUT/heldout.run"
[[ -z $TEST_QUERIES ]] ||
    step "$OUT/test.run" "${retrieve[@]}" queries="$TEST_QUERIES" depth=100 output="$OUT/test.run"

# ---------------------------------------------------------------------------------------------------------------------
# 4. Teacher: the LLM orders windows of 20 passages, from the bottom of each list to its top. First a sample, in two
#    orders: an LLM that ranks them differently each time is noise, and everything after would only repeat it.

annotate=("$PYTHON" -m distill annotate passages="$PASSAGES" depth="$DEPTH" "${teacher[@]}")
if [[ -n $LLM ]]; then
    sample=20 lists=20
    [[ ! -e $OUT/train.run ]] || lists=$(cut -d ' ' -f 1 "$OUT/train.run" | sort -u | wc -l)
    ((lists >= 20)) || sample=$lists
    paid "$OUT/noise/results.json" "${annotate[@]}" queries="$TRAIN_QUERIES" run="$OUT/train.run" num_queries="$sample" shuffles=2 \
        hydra.run.dir="$OUT/noise"
    is_noise=$("$PYTHON" -c "$IS_NOISE" "$OUT/noise/results.json")
    [[ $is_noise != True || -n ${NOISE_OK:-} ]] || fail "the teacher is noise: shown the same passages in two orders," \
        "it ranks them anew ($OUT/noise): choose another LLM and OUT; NOISE_OK=1 continues with this one"
fi
paid "$OUT/teacher/results.json" "${annotate[@]}" queries="$TRAIN_QUERIES" run="$OUT/train.run" hydra.run.dir="$OUT/teacher"
[[ -z $HELDOUT_QUERIES ]] ||
    paid "$OUT/teacher-heldout/results.json" "${annotate[@]}" queries="$HELDOUT_QUERIES" run="$OUT/heldout.run" \
        hydra.run.dir="$OUT/teacher-heldout"

TEACHER_RUN=$OUT/teacher/teacher.run
TEACHER_HELDOUT=$OUT/teacher-heldout/teacher.run
if [[ -n $ENCODER ]]; then      # a fused teacher: the first stage, a bi-encoder and the teacher above
    for part in train heldout; do
        [[ $part == train || -n $HELDOUT_QUERIES ]] || continue
        queries=$TRAIN_QUERIES ranked=$TEACHER_RUN
        [[ $part == train ]] || queries=$HELDOUT_QUERIES ranked=$TEACHER_HELDOUT
        step "$OUT/$part.dense.run" "$PYTHON" -m distill retrieve passages="$PASSAGES" queries="$queries" method=dense \
            model="$ENCODER" run="$OUT/$part.run" depth="$DEPTH" output="$OUT/$part.dense.run"
        step "$OUT/$part.fused.run" "$PYTHON" -m distill fuse runs="[$OUT/$part.run,$OUT/$part.dense.run,$ranked]" \
            method=z-score output="$OUT/$part.fused.run"
    done
    TEACHER_RUN=$OUT/train.fused.run
    TEACHER_HELDOUT=$OUT/heldout.fused.run
fi

# ---------------------------------------------------------------------------------------------------------------------
# 5. Student: a cross-encoder learns that order with RankNet. Steps and batch follow from the number of lists. The
#    teacher's lists have at most $DEPTH passages already; data.depth=null takes them whole, however short they are.

if [[ -z $BACKBONE && ! -e $OUT/student/results.json ]]; then
    language=$("$PYTHON" -c "$LANGUAGE" "$PASSAGES")
    BACKBONE=mmbert-base
    [[ $language != english ]] || BACKBONE=electra-base
    echo "== the passages are in: $language; backbone=$BACKBONE"
fi
# shellcheck disable=SC2086  # $TRAIN is several words
step "$OUT/student/results.json" "$PYTHON" train.py experiment=own-corpus backbone="$BACKBONE" \
    data.passages="$PASSAGES" data.queries="$TRAIN_QUERIES" data.depth=null train.max_epochs="$EPOCHS" \
    teacher.path="$TEACHER_RUN" teacher.first_stage="$OUT/train.run" hydra.run.dir="$OUT/student" $TRAIN

# ---------------------------------------------------------------------------------------------------------------------
# 6. Evaluation: re-rank the held-out queries, and compare the order with the teacher's; let an LLM judge them; measure
#    against the judgments of people, if there are any.

evaluate=("$PYTHON" evaluate.py model="$OUT/student/model" task=files task.passages="$PASSAGES")
read -r -a more <<<"$EVALUATE"
shown=
if [[ -n $HELDOUT_QUERIES ]]; then
    heldout=("${evaluate[@]}" task.queries="$HELDOUT_QUERIES" task.run="$OUT/heldout.run" task.teacher="$TEACHER_HELDOUT")
    step "$OUT/heldout/results.json" "${heldout[@]}" hydra.run.dir="$OUT/heldout" "${more[@]}"
    shown=$OUT/heldout
    if [[ -n $JUDGE ]]; then
        paid "$OUT/judge/results.json" "$PYTHON" -m distill judge passages="$PASSAGES" queries="$HELDOUT_QUERIES" \
            runs="[$OUT/heldout.run,$OUT/heldout/run.txt,$TEACHER_HELDOUT]" depth=10 "${judge[@]}" \
            annotation="$OUT/teacher" hydra.run.dir="$OUT/judge"
        step "$OUT/judged/results.json" "${heldout[@]}" task.qrels="$OUT/judge/qrels.txt" \
            hydra.run.dir="$OUT/judged" "${more[@]}"
        shown=$OUT/judged
    fi
fi
if [[ -n $TEST_QUERIES ]]; then
    articles=false
    [[ -z $CORPUS ]] || articles=true
    step "$OUT/test/results.json" "${evaluate[@]}" task.queries="$TEST_QUERIES" task.run="$OUT/test.run" \
        task.qrels="$QRELS" task.max_passage="$articles" task.depth=100 'task.measures=[nDCG@10,RR@10]' \
        hydra.run.dir="$OUT/test" "${more[@]}"
    shown=$OUT/test
fi

# ---------------------------------------------------------------------------------------------------------------------
# 7. Verdict: better than the first stage, and by how much, or not, and why. Then queries side by side, and a report of
#    all that was measured: pages that work offline.

echo "== $PYTHON -m distill verdict runs=$OUT"
"$PYTHON" -m distill verdict runs="$OUT"
step "$OUT/pages/index.html" "$PYTHON" -m distill inspect run="$shown" output="$OUT/pages"
[[ $shown == "$OUT/heldout" ]] ||
    step "$OUT/report/index.html" "$PYTHON" -m distill report runs="$shown" output="$OUT/report"

# ---------------------------------------------------------------------------------------------------------------------
# 8. Export. The model's directory is sentence-transformers' already; int8 ONNX is fast on CPUs.

[[ -z $EXPORT ]] ||
    step "$OUT/$EXPORT" "$PYTHON" -m distill export model="$OUT/student/model" format="$EXPORT" output="$OUT/$EXPORT"

echo "Done: $OUT/student/model (the model), $OUT/pages/index.html (what it moves), $OUT/verdict.md (is it better?)"
echo "Serve it: $PYTHON -m distill serve model=$OUT/student/model"
