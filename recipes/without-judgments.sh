#!/usr/bin/env bash
# Is a verdict without judgments right? NFCorpus, its own training queries as a log, a fused teacher, no judgments; then
# the same student on the judgments of the test queries.
#
#   ENCODER=collections/all-MiniLM-L6-v2 recipes/without-judgments.sh
#
# Needs collections/nfcorpus: corpus.jsonl.gz, queries.train.tsv, queries.test.tsv and qrels.test.tsv.gz, as BEIR
# distributes them. ENCODER is a bi-encoder. Run again, it skips what is done. docs/results.md has the figures.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
ENCODER=${ENCODER:?a bi-encoder, as in ENCODER=sentence-transformers/all-MiniLM-L6-v2}
OUT=${OUT:-outputs/without-judgments}
DATA=collections/nfcorpus
NUM=${NUM:-700}                 # queries of the log
export PYTHON ENCODER OUT
export PASSAGES=$DATA/corpus.jsonl.gz LOGGED=$OUT/log.tsv CROSS_ENCODER=googleq-minilm-3 BACKBONE=googleq-minilm-3
export DEPTH=20 STEMMER=porter EXPORT='' EVALUATE='precision=bfloat16 task.depth=20'
export TRAIN=${TRAIN:-train.precision=bfloat16 model.passage_length=128 data.list_size=10 train.max_steps=120 train.batch_size=8 backbone.lr=1e-4}

mkdir -p "$OUT"
[[ -e $LOGGED ]] || { shuf -n "$NUM" --random-source=$DATA/queries.train.tsv $DATA/queries.train.tsv >"$LOGGED.part"; mv "$LOGGED.part" "$LOGGED"; }

# Without judgments: the verdict is by agreement with the teacher on held-out queries
[[ -e $OUT/without.md ]] || { recipes/own-corpus.sh; cp "$OUT/verdict.md" "$OUT/without.md"; }

# With them: the first stage's top 20 of the test queries, re-ranked
TEST_QUERIES=$DATA/queries.test.tsv QRELS=$DATA/qrels.test.tsv.gz recipes/own-corpus.sh

echo "Without judgments:"
cat "$OUT/without.md"
echo "With judgments:"
cat "$OUT/verdict.md"
