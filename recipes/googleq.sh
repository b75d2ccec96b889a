#!/usr/bin/env bash
# Real questions: students of labels and of teachers on googleq (Natural Questions and BoolQ over Wikipedia passages).
#
#   recipes/googleq.sh                  every step
#   recipes/googleq.sh lists labels     some steps, by name: lists, labels, teacher, distil, teachers, muon, tenth,
#                                       packaged, fast, grid, depth, scores, zero_shot, report
#
# Run it from the repository, with the environment active and the collection in collections/googleq. Finished steps are
# skipped when you run it again, and the one that was stopped resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
source recipes/steps.sh

ENCODER=${ENCODER:-sentence-transformers/all-MiniLM-L6-v2}      # directory or Hub id
PRECISION=${PRECISION:-bfloat16}        # bfloat16 needs AVX512-BF16, AMX or a GPU; else float32
SEEDS=${SEEDS:-0 1 2}
TEACHER_QUERIES=${TEACHER_QUERIES:-2400}        # whose lists the teacher ranks
PYTHON=${PYTHON:-python}
DATA=collections/googleq
OUT=outputs/real/googleq

# train NAME SEED OVERRIDES...: train into $OUT/NAME/SEED.
train() {
    local place=$OUT/$1/$2 seed=$2
    shift 2
    step "$place/results.json" "$PYTHON" train.py backbone.name="$ENCODER" train.precision="$PRECISION" seed="$seed" \
        hydra.run.dir="$place" "$@"
}

# ---------------------------------------------------------------------------------------------------------------------
# lists: the training lists, half of them passages that are marked for some question (BM25's top 25 of these) and half
# others (BM25's top 25 of those); BM25's runs within the marked passages; 200 development questions; 500 test questions,
# for grids.

marked() { gzip -dc "$1" | awk 'NR == FNR { marked[$1]; next } $3 in marked' $DATA/gold_docids.txt -; }
others() { gzip -dc "$1" | awk 'NR == FNR { marked[$1]; next } !($3 in marked) && n[$1]++ < 25' $DATA/gold_docids.txt -; }
marked_passages() {
    gzip -dc $DATA/passages.tsv.gz | awk -F'\t' 'NR == FNR { marked[$1]; next } $1 in marked' $DATA/gold_docids.txt -
}
every_third() { awk 'NR % 3 == 1' $DATA/queries.test.tsv | sed -n 1,500p; }
every_fourth() { awk 'NR % 4 == 1' "$1" | sed -n 1,200p; }

lists() {
    mkdir -p $OUT
    print_to $OUT/test.gold.run marked $DATA/test.bm25.run.gz
    print_to $OUT/dev.gold.run marked $DATA/dev.bm25.run.gz
    print_to $OUT/queries.dev200.tsv every_fourth $DATA/queries.dev.tsv
    print_to $OUT/queries.test500.tsv every_third
    print_to $OUT/marked.tsv marked_passages
    step $OUT/train.marked.run "$PYTHON" -m distill retrieve passages=$OUT/marked.tsv queries=$DATA/queries.train.tsv \
        depth=25 bm25.stop_words=bm25s output=$OUT/train.marked.run
    print_to $OUT/train.others.run others $DATA/train.bm25.run.gz
    print_to $OUT/train.mixed.run sort -s -k1,1 $OUT/train.marked.run $OUT/train.others.run
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
# teacher: the 6-layer student of seed 0 ranks lists of questions that its 234 steps did not draw: BM25's top 12 of the
# marked passages and top 12 of the others. With N questions it takes N x 24 pairs.

unseen() { "$PYTHON" -m recipes.unseen_queries $OUT/labels-6/0; }
short_lists() {
    awk 'FILENAME ~ /queries/ { asked[$1]; next } FILENAME ~ /gold/ { marked[$1]; next }
         $1 in asked && n[$1, $3 in marked]++ < 12' "$1" $DATA/gold_docids.txt $OUT/train.mixed.run
}

# rank QUERIES LISTS DIRECTORY DENSE FUSED [MODEL]: the student's ranking of these lists, and its fusion with the bi-encoder and
# BM25, which ranks them better
rank() {
    step "$3/results.json" "$PYTHON" evaluate.py model="${6:-$OUT/labels-6/0/model}" task=files \
        task.passages=$DATA/passages.tsv.gz task.queries="$1" task.run="$2" task.qrels=$DATA/qrels.train.txt \
        precision="$PRECISION" hydra.run.dir="$3"
    step "$4" "$PYTHON" -m distill retrieve passages=$DATA/passages.tsv.gz queries="$1" run="$2" method=dense \
        model="$ENCODER" precision="$PRECISION" output="$4"
    step "$5" "$PYTHON" -m distill fuse runs=["$3/run.txt","$4","$2"] method=z-score weights=[1,1,0.25] output="$5"
}

first() { sed -n "1,${TEACHER_QUERIES}p" $OUT/queries.unseen.tsv; }
teacher() {
    print_to $OUT/queries.unseen.tsv unseen
    print_to $OUT/queries.distil.tsv first
    print_to $OUT/distil.run short_lists $OUT/queries.distil.tsv
    rank $OUT/queries.distil.tsv $OUT/distil.run $OUT/teacher $OUT/distil.dense.run $OUT/fused.run
}

# ---------------------------------------------------------------------------------------------------------------------
# distil: 3-layer students of that teacher's order, by three losses, with the pairs and steps of the labels' students.

distil() {
    for seed in $SEEDS; do
        for loss in ranknet adrmse marginmse; do
            train $loss-3 "$seed" experiment=real/googleq-distil loss=$loss
            train fused-$loss-3 "$seed" experiment=real/googleq-distil loss=$loss teacher.path=$OUT/fused.run
        done
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# teachers: labels against the fusion's scores and its order, over seeds; 500 of the test questions.

teachers() {
    local fusion=(experiment=real/googleq-distil teacher.name=labels-6-dense-bm25 teacher.path=$OUT/fused.run)
    for seed in $SEEDS; do
        taught labels "$seed" experiment=real/googleq backbone.num_layers=3 optimizer.lr=4e-4
        taught kl "$seed" "${fusion[@]}" loss=kl
        taught ranknet "$seed" "${fusion[@]}" loss=ranknet
    done
    "$PYTHON" -m distill report runs=$OUT-teachers output=$OUT-teachers/report baseline=loss=lce published=false
}
taught() { OUT=$OUT-teachers train "$@" task=real/googleq-500; }        # NAME SEED OVERRIDES...

# ---------------------------------------------------------------------------------------------------------------------
# muon: the labels' student, trained with the other optimiser.

muon() {
    for seed in $SEEDS; do
        taught muon "$seed" experiment=real/googleq backbone.num_layers=3 optimizer.lr=4e-4 optimizer=muon
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# tenth: labels for only a tenth of the questions. A 6-layer student of these, and its fusion, rank 2,400 others; students
# of 3 layers learn from the same labels, or from that fusion's order.

tenth_of_questions() { awk 'NR % 10 == 1' $DATA/queries.train.tsv; }
unlabelled() { awk 'NR % 10 != 1' $DATA/queries.train.tsv | awk 'NR % 5 == 1' | sed -n "1,${TEACHER_QUERIES}p"; }
tenth() {
    print_to $OUT/queries.tenth.tsv tenth_of_questions
    print_to $OUT/queries.unlabelled.tsv unlabelled
    print_to $OUT/unlabelled.run short_lists $OUT/queries.unlabelled.tsv
    train labels-6-tenth 0 experiment=real/googleq task=files data.queries=$OUT/queries.tenth.tsv
    rank $OUT/queries.unlabelled.tsv $OUT/unlabelled.run $OUT/teacher-tenth $OUT/unlabelled.dense.run \
        $OUT/fused.tenth.run $OUT/labels-6-tenth/0/model
    for seed in $SEEDS; do
        train labels-3-tenth "$seed" experiment=real/googleq backbone.num_layers=3 optimizer.lr=4e-4 \
            data.queries=$OUT/queries.tenth.tsv task=real/googleq-500
        train fused-ranknet-3-tenth "$seed" experiment=real/googleq-distil data.queries=$OUT/queries.unlabelled.tsv \
            teacher.name=labels-6-tenth-dense-bm25 teacher.path=$OUT/fused.tenth.run task=real/googleq-500
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# packaged: the 3-layer student that comes with the package. Five times the pairs: first the 6-layer student's order of
# all questions that it was not trained on, then the fusion's. Its files say which lengths were chosen for reading.

long=(data.queries=$OUT/queries.unseen.tsv data.list_size=12 train.batch_size=16 train.validate_every=78)
packaged() {
    print_to $OUT/unseen.run short_lists $OUT/queries.unseen.tsv
    rank $OUT/queries.unseen.tsv $OUT/unseen.run $OUT/teacher-all $OUT/unseen.dense.run $OUT/fused.all.run
    train ranknet-3-long 0 experiment=real/googleq-distil "${long[@]}" train.max_steps=780 \
        teacher.path=$OUT/teacher-all/run.txt
    train fused-ranknet-3-long 0 experiment=real/googleq-distil "${long[@]}" train.max_steps=312 optimizer.lr=2e-4 \
        teacher.name=labels-6-dense-bm25 teacher.path=$OUT/fused.all.run \
        backbone.name=$OUT/ranknet-3-long/0/model backbone.num_layers=null
}

# ---------------------------------------------------------------------------------------------------------------------
# fast: 2 layers, for the first look at a list (evaluate.py cascade.model=LARGE). They start from those of the packaged
# student, and learn the fusion's scores.

fast() {
    train fused-kl-2 0 experiment=real/googleq-distil loss=kl backbone.name=googleq-minilm-3 backbone.num_layers=2 \
        train.max_steps=312 teacher.name=labels-6-dense-bm25 teacher.path=$OUT/fused.run task=real/googleq-500
}

# ---------------------------------------------------------------------------------------------------------------------
# grid: losses and mixtures, 9,984 pairs each, after the labels' 3-layer student; 500 of the test questions. Losses with
# labels have the marked passage in each list. The best one and the papers' two once more with 29,952 pairs.

with_labels=(data.list_size=null data.num_negatives=7)
grid() {
    for seed in $SEEDS; do
        for loss in ranknet adrmse marginmse kl; do cell $loss "$seed"; done
        for loss in lce lce-kl ranknet-lce lce-marginmse; do cell $loss "$seed" "${with_labels[@]}"; done
        cell lambda "$seed" loss.target=rank loss.gain=linear
        cell mse "$seed" loss.normalise=z-score
    done
    for loss in kl ranknet adrmse; do GRID=$OUT-grid-30k cell $loss 0 train.max_steps=234; done
    for grid in $OUT-grid $OUT-grid-30k; do
        "$PYTHON" -m distill report runs=$grid output=$grid/report baseline=loss=ranknet published=false
    done
}
cell() {        # LOSS SEED OVERRIDES...
    local place=${GRID:-$OUT-grid}/$1/$2 loss=$1 seed=$2
    shift 2
    step "$place/results.json" "$PYTHON" train.py experiment=real/googleq-grid train.precision="$PRECISION" \
        seed="$seed" loss="$loss" hydra.run.dir="$place" "$@"
}

# ---------------------------------------------------------------------------------------------------------------------
# depth: depth of the lists against number of questions, 30,000 pairs a run, 2 layers; three seeds of the corners. No run
# reads more than 3,000 questions, so the teacher ranks 4,000.

depth_questions() { awk 'NR % 3 == 1' $DATA/queries.train.tsv | sed -n 1,4000p; }
depth_lists() {
    gzip -dc $DATA/train.bm25.run.gz | awk 'NR == FNR { asked[$1]; next } $1 in asked' $OUT/queries.depth.tsv -
}
depth() {
    print_to $OUT/queries.depth.tsv depth_questions
    print_to $OUT/depth.run depth_lists
    step $OUT/depth.dense.run "$PYTHON" -m distill retrieve passages=$DATA/passages.tsv.gz \
        queries=$OUT/queries.depth.tsv run=$OUT/depth.run method=dense model="$ENCODER" \
        precision="$PRECISION" output=$OUT/depth.dense.run
    step $OUT/dense-bm25.run "$PYTHON" -m distill fuse runs=[$OUT/depth.dense.run,$OUT/depth.run] \
        method=z-score weights=[1,0.25] output=$OUT/dense-bm25.run
    for depth in 10 25 50 100; do
        for questions in 250 1000 4000; do deep $depth $questions 0; done
    done
    for seed in ${SEEDS#0}; do
        for depth in 10 100; do
            for questions in 250 4000; do deep $depth $questions "$seed"; done
        done
    done
    "$PYTHON" -m distill report runs=$OUT-depth output=$OUT-depth/report baseline=first_stage published=false
}
deep() {        # DEPTH QUESTIONS SEED
    local place=$OUT-depth/$1-$2/$3
    step "$place/results.json" "$PYTHON" train.py experiment=real/googleq-depth backbone.name="$ENCODER" \
        train.precision="$PRECISION" seed="$3" data.depth="$1" data.num_queries="$2" train.batch_size=$((200 / $1)) \
        hydra.run.dir="$place"
}

# ---------------------------------------------------------------------------------------------------------------------
# scores: BM25's score as a number in the pair, with either scale, beside a student without it. All three learn from
# labels and BM25's own top 50, whose scores come from one index.

scores() {
    for seed in $SEEDS; do
        scored none "$seed"
        scored min-max "$seed" model.first_stage_score=min-max
        scored global "$seed" model.first_stage_score=global
    done
    "$PYTHON" -m distill report runs=$OUT-scores output=$OUT-scores/report baseline=first_stage published=false
}
scored() {      # SCALE SEED OVERRIDES...
    OUT=$OUT-scores train "$@" experiment=real/googleq backbone.num_layers=3 optimizer.lr=4e-4 data.depth=50 \
        teacher.first_stage=$DATA/train.bm25.run.gz teacher.add_relevant=false validation.depth=50 \
        task=real/googleq-500
}

# ---------------------------------------------------------------------------------------------------------------------
# zero_shot: all models on four collections that they have not seen, alone and interpolated with BM25.

zero_shot() {
    for model in "$OUT"/*-[36]/*/model; do
        local place=${model%/model}
        step "$place/zero-shot/results.json" "$PYTHON" evaluate.py model="$model" task=real/zero-shot \
            task.interpolate=auto precision="$PRECISION" hydra.run.dir="$place/zero-shot"
    done
}

# ---------------------------------------------------------------------------------------------------------------------
# report: all students, tested against BM25; the yes/no questions, and those that repeat no training question.

report() {
    "$PYTHON" -m distill report runs=$OUT output=$OUT/report baseline=first_stage published=false
    for part in yesno open new; do
        print_to $OUT/queries.$part.tsv "$part"
        "$PYTHON" -m distill report runs=$OUT output=$OUT/report-$part queries=$OUT/queries.$part.tsv \
            baseline=first_stage published=false
    done
}
yesno() { grep '^bq' $DATA/queries.test.tsv; }
open() { grep '^nq' $DATA/queries.test.tsv; }
new() { "$PYTHON" -m recipes.new_queries $DATA/queries.test.tsv $DATA/queries.train.tsv; }

steps=("$@")
[[ ${#steps[@]} -gt 0 ]] || steps=(lists labels teacher distil teachers muon tenth packaged fast grid depth scores zero_shot report)
for name in "${steps[@]}"; do "$name"; done
