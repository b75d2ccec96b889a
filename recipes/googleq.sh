#!/usr/bin/env bash
# Real questions: students of labels and of teachers on googleq (Natural Questions and BoolQ over Wikipedia passages).
#
#   recipes/googleq.sh                  every step
#   recipes/googleq.sh lists labels     some steps, by name: lists, labels, teachers, distil, depth, report
#
# Run it from the repository, with the environment active and the collection in collections/googleq. Finished steps are
# skipped when you run it again, and the one that was stopped resumes.
set -euo pipefail
cd "$(dirname "$0")/.."

ENCODER=${ENCODER:-sentence-transformers/all-MiniLM-L6-v2}      # directory or Hub id
PRECISION=${PRECISION:-bfloat16}        # bfloat16 needs AVX512-BF16, AMX or a GPU; else float32
SEEDS=${SEEDS:-0 1 2}
PYTHON=${PYTHON:-python}
DATA=collections/googleq
OUT=outputs/real/googleq

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

# train NAME SEED OVERRIDES...: train into $OUT/NAME/SEED.
train() {
    local place=$OUT/$1/$2 seed=$2
    shift 2
    step "$place/results.json" "$PYTHON" train.py backbone.name="$ENCODER" train.precision="$PRECISION" seed="$seed" \
        hydra.run.dir="$place" "$@"
}

# to FILE COMMAND...: write a command's output to a file, whole or not at all.
to() {
    local file=$1
    shift
    "$@" >"$file.part"
    mv "$file.part" "$file"
}

# ---------------------------------------------------------------------------------------------------------------------
# lists: the training lists, half of them passages that are marked for some question (BM25's top 25 of these) and half
# others (BM25's top 25 of those); BM25's runs within the marked passages; 200 development questions.

marked() { awk 'NR == FNR { marked[$1]; next } $3 in marked' $DATA/gold_docids.txt <(gzip -dc "$1"); }
others() { awk 'NR == FNR { marked[$1]; next } !($3 in marked) && n[$1]++ < 25' $DATA/gold_docids.txt <(gzip -dc "$1"); }
marked_passages() {
    awk -F'\t' 'NR == FNR { marked[$1]; next } $1 in marked' $DATA/gold_docids.txt <(gzip -dc $DATA/passages.tsv.gz)
}
every_fourth() { awk 'NR % 4 == 1' "$1" | sed -n 1,200p; }
# half REMAINDER: every second training question
half() { awk -v r="$1" 'NR % 2 == r' $DATA/queries.train.tsv; }

lists() {
    mkdir -p $OUT
    step $OUT/test.gold.run to $OUT/test.gold.run marked $DATA/test.bm25.run.gz
    step $OUT/dev.gold.run to $OUT/dev.gold.run marked $DATA/dev.bm25.run.gz
    step $OUT/queries.dev200.tsv to $OUT/queries.dev200.tsv every_fourth $DATA/queries.dev.tsv
    step $OUT/queries.half0.tsv to $OUT/queries.half0.tsv half 0
    step $OUT/queries.half1.tsv to $OUT/queries.half1.tsv half 1
    step $OUT/marked.tsv to $OUT/marked.tsv marked_passages
    step $OUT/train.marked.run "$PYTHON" -m distill retrieve passages=$OUT/marked.tsv queries=$DATA/queries.train.tsv \
        depth=25 bm25.stop_words=bm25s output=$OUT/train.marked.run
    step $OUT/train.others.run to $OUT/train.others.run others $DATA/train.bm25.run.gz
    step $OUT/train.mixed.run to $OUT/train.mixed.run sort -s -k1,1 $OUT/train.marked.run $OUT/train.others.run
}

# ---------------------------------------------------------------------------------------------------------------------
# labels: students of the labels, with 6 and with 3 layers.

labels() {
    for seed in $SEEDS; do
        train labels-6 "$seed" experiment=real/googleq
        train labels-3 "$seed" experiment=real/googleq backbone.num_layers=3 optimizer.lr=4e-4
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# teachers: two 6-layer students, each trained on half of the questions; each ranks the lists of the other half.

teachers() {
    for half in 0 1; do
        train teacher-$half 0 experiment=real/googleq data.queries=$OUT/queries.half$half.tsv task=files
        step $OUT/ranked-$((1 - half))/run.txt "$PYTHON" evaluate.py model=$OUT/teacher-$half/0/model task=files \
            task.passages=$DATA/passages.tsv.gz task.queries=$OUT/queries.half$((1 - half)).tsv \
            task.run=$OUT/train.mixed.run task.qrels=$DATA/qrels.train.txt precision="$PRECISION" \
            hydra.run.dir=$OUT/ranked-$((1 - half))
    done
    step $OUT/teacher.run to $OUT/teacher.run cat $OUT/ranked-0/run.txt $OUT/ranked-1/run.txt
}

steps=("$@")
[[ ${#steps[@]} -gt 0 ]] || steps=(lists labels teachers distil depth report)
for name in "${steps[@]}"; do "$name"; done
