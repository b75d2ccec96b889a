#!/usr/bin/env bash
# Real rankings by an LLM: a student of googleq learns RankVicuna's rankings of one year of TREC DL, and is tested on the
# other, over BM25 and SPLADE.
#
#   recipes/msmarco-mini.sh
#
# Run it from the repository, with the environment active, the collection in collections/msmarco-mini, and a model of
# recipes/googleq.sh. Finished steps are skipped when you run it again, and the one that was stopped resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
source recipes/steps.sh

MODEL=${MODEL:-outputs/real/googleq/labels-6/0/model}   # the student to start from
ENCODER=${ENCODER:-sentence-transformers/all-MiniLM-L6-v2}      # bi-encoder to compare with
PRECISION=${PRECISION:-bfloat16}        # bfloat16 needs AVX512-BF16, AMX or a GPU; else float32
SEEDS=${SEEDS:-0 1 2}
PYTHON=${PYTHON:-python}
DATA=collections/msmarco-mini
OUT=${OUT:-outputs/real/msmarco-mini}

mkdir -p "$OUT"

for year in 19 20; do
    other=$((39 - year))
    # 1. The bi-encoder on the same lists, the student as it is
    for stage in bm25 splade; do
        step "$OUT/dl$year.$stage.dense.run" "$PYTHON" -m distill retrieve passages=$DATA/passages.tsv.gz method=dense \
            queries=$DATA/queries.dl$year.tsv run=$DATA/dl$year.$stage.run.gz model="$ENCODER" precision="$PRECISION" \
            output="$OUT/dl$year.$stage.dense.run"
        step "$OUT/dense-$year-$stage/results.json" "$PYTHON" evaluate.py model=null task=files task.name=dl$year-$stage \
            task.run="$OUT/dl$year.$stage.dense.run" task.qrels=$DATA/qrels.dl$year.txt \
            hydra.run.dir="$OUT/dense-$year-$stage"
    done
    step "$OUT/untuned-$year/results.json" "$PYTHON" evaluate.py model="$MODEL" task=real/msmarco-mini-20$year \
        task.interpolate=auto precision="$PRECISION" hydra.run.dir="$OUT/untuned-$year"

    # 2. The student of RankVicuna's rankings of the other year
    for seed in $SEEDS; do
        step "$OUT/ranknet-20$year/$seed/results.json" "$PYTHON" train.py experiment=real/msmarco-mini \
            backbone.name="$MODEL" data.queries=$DATA/dl$other.five.queries.tsv.gz \
            teacher.path=$DATA/dl$other.five.run.gz teacher.first_stage=$DATA/dl$other.five.first.run.gz \
            task=real/msmarco-mini-20$year seed="$seed" train.precision="$PRECISION" \
            hydra.run.dir="$OUT/ranknet-20$year/$seed"
    done
done

# 3. Report
"$PYTHON" -m distill report runs="$OUT" output="$OUT/report" baseline=first_stage published=false
