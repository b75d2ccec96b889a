#!/usr/bin/env bash
# Sweeps of two jobs on a Slurm of two nodes on this machine: whole; with a node lost in the middle; and with a job that
# has run out of time.
#
#   apt-get install slurmctld slurmd slurm-client munge                 as root, which this script needs, too
#   pip install -r requirements.txt hydra-submitit-launcher
#   benchmarks/clusters/slurm.sh
#
# The two nodes are two slurmd of one machine, so its slurmd must be built with several of them in mind, as Debian's is.
# Nothing is read from or written to /etc/slurm. munged is started if it does not run.
source "$(dirname "$0")/common.sh"
begin
export SLURM_CONF=$WORK/slurm.conf
mkdir "$WORK/state"
port=$((20000 + RANDOM % 20000))
cat >"$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmctldPort=$port
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool-%n
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd-%n.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
MessageTimeout=60
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 RealMemory=4000
NodeName=n2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES State=UP
CONF

processes_of() { # NODE: its slurmd, and the steps of its jobs with all that they have started
    local one steps=
    for one in $(grep -lzs "^SLURMD_NODENAME=$1\$" /proc/[0-9]*/environ | grep -o '[0-9]*'); do
        steps+=" $one $(ps -o ppid= -p "$one")"
    done
    family $(cat "$WORK/slurmd-$1.pid") $steps | sort -un | grep -vx 1
}

end_cluster() {
    scancel -u root 2>/dev/null
    sleep 1
    kill_all $(processes_of n1) $(processes_of n2) $(family $(cat "$WORK/slurmctld.pid")) $munged $llm
}

sweep() { # NAME OVERRIDES...: in the background, its process in $sweep
    "$PYTHON" train.py -m hydra/launcher=slurm hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1 \
        hydra.launcher.mem_gb=2 $TRAINING "hydra.sweep.dir=$WORK/$1" "${@:2}" >>"$WORK/$1.log" 2>&1 &
    sweep=$!
}

job_of() { # NAME PLACE: the Slurm id of a job of a sweep
    local id
    id=$(ls "$WORK/$1/.submitit" | grep -v _ | sort -n | tail -1)
    [[ -d $WORK/$1/.submitit/${id}_$2 ]] && id+=_$2 # of a sweep of several jobs
    echo "$id"
}

munged= llm=
if ! munge -n >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge: /run/munge
    runuser -u munge -- munged --num-threads=2
    munged=$(pgrep -nx munged)
fi
trap end_cluster EXIT
slurmctld
slurmd -N n1
slurmd -N n2
wait_for 120 sh -c '[ "$(sinfo -h -t idle -o %D)" = 2 ]' || row "a Slurm of two nodes" "FAILED: $(sinfo -h -N -o '%N %T %E')"

# 1. Whole
sweep whole seed=0,1
wait $sweep
row "2 jobs, no node lost" "exit status $?"

# 2. A node disappears: Slurm notices, puts its job back into the queue, and the job resumes on the other node
sweep lost seed=0,1
wait_for 900 at_step "$WORK/lost/1" 7 || row "a node lost" "FAILED: no step 7"
node=$(squeue -h -r -j "$(job_of lost 1)" -o %N)
kill_all $(processes_of "$node")
wait_for 300 sh -c "sinfo -h -n $node -o %T | grep -q down"
row "a node lost after step 7 of job 1" "Slurm: $node is $(sinfo -h -n "$node" -o %T), job 1 is $(squeue -h -r -j "$(job_of lost 1)" -o '%T (%r)')"
wait $sweep
row "  the sweep" "exit status $?, $(resumed "$WORK"/lost/.submitit/*/*.err)"
same "  job 0 beside the whole sweep's" "$WORK/whole/0" "$WORK/lost/0"
same "  job 1" "$WORK/whole/1" "$WORK/lost/1"

# 3. The node is back. What Slurm sends before a job's time is up
slurmd -N "$node"
wait_for 120 sh -c '[ "$(sinfo -h -t idle -o %D)" = 2 ]'
sweep time seed=0 hydra.launcher.timeout_min=10 # below 10 minutes, submitit takes any such signal for the end
wait_for 900 at_step "$WORK/time/0" 7 || row "time is up" "FAILED: no step 7"
scancel --signal=USR2 "$(job_of time 0)"
wait $sweep
row "time is up after step 7" "exit status $?, $(resumed "$WORK"/time/.submitit/*/*.err)"
same "  beside the whole sweep's" "$WORK/whole/0" "$WORK/time/0"

# 4. An evaluation of 3 shards on 2 nodes, so that one waits in the queue; joined and measured, beside the whole one
evaluation="model=$WORK/whole/0/model"
"$PYTHON" evaluate.py $evaluation "hydra.run.dir=$WORK/evaluation" >"$WORK/evaluation.log" 2>&1
"$PYTHON" evaluate.py -m hydra/launcher=slurm hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1 \
    hydra.launcher.mem_gb=2 $evaluation shard=0/3,1/3,2/3 "hydra.sweep.dir=$WORK/shards" >"$WORK/shards.log" 2>&1 &
sweep=$!
wait_for 300 sh -c '[ "$(squeue -h -r -t pending | wc -l)" = 1 ]'
row "an evaluation in 3 shards" "$(squeue -h -r -t running | wc -l) run, $(squeue -h -r -t pending | wc -l) waits"
wait $sweep
status=$?
"$PYTHON" -m distill join "shards=[$WORK/shards]" "output=$WORK/joined" >>"$WORK/shards.log" 2>&1
"$PYTHON" evaluate.py "resume=$WORK/joined" >>"$WORK/shards.log" 2>&1
row "  joined" "exit status $status; $(for name in run.txt per_query.csv results.json; do
    cmp -s "$WORK/evaluation/$name" "$WORK/joined/$name" && echo "$name equal" || echo "FAILED: $name"
done | paste -sd,)"

# 5. An annotation in 2 shards by a stand-in for an LLM, beside the whole one
"$PYTHON" -m examples.llm_server $((port + 3)) >"$WORK/llm.log" 2>&1 &
llm=$!
annotation="passages=sample/passages.tsv queries=sample/train/queries.tsv run=sample/train/first_stage.run.gz depth=20
    num_queries=12 teacher.llm.base_url=http://127.0.0.1:$((port + 3))/v1 teacher.llm.model=stand-in journal=none"
wait_for 300 grep -q http "$WORK/llm.log"
"$PYTHON" -m distill annotate $annotation "hydra.run.dir=$WORK/annotation" >"$WORK/annotation.log" 2>&1
"$PYTHON" -m distill annotate -m hydra/launcher=slurm hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1 \
    hydra.launcher.mem_gb=2 $annotation shard=0/2,1/2 "hydra.sweep.dir=$WORK/annotations" >"$WORK/annotations.log" 2>&1
status=$?
kill $llm # what follows sends no request
"$PYTHON" -m distill join "shards=[$WORK/annotations]" "output=$WORK/annotated" >>"$WORK/annotations.log" 2>&1
"$PYTHON" -m distill annotate "resume=$WORK/annotated" >>"$WORK/annotations.log" 2>&1
row "an annotation in 2 shards, joined" "exit status $status; $(for name in teacher.run teacher.parquet results.json; do
    cmp -s "$WORK/annotation/$name" "$WORK/annotated/$name" && echo "$name equal" || echo "FAILED: $name"
done | paste -sd,)"

# 6. A job with bad input among others
"$PYTHON" evaluate.py -m hydra/launcher=slurm hydra.launcher.gpus_per_node=null hydra.launcher.cpus_per_task=1 \
    hydra.launcher.mem_gb=2 model=null task.depth=0,20 "hydra.sweep.dir=$WORK/bad" >"$WORK/bad.log" 2>&1
row "a job with bad input, and one without" "exit status $?, $(grep -h '^error: ' "$WORK/bad.log"), other job: $(ls "$WORK/bad/1/results.json" >/dev/null && echo finished)"

# 7. The same command once more
sweep lost seed=0,1
wait $sweep
row "a finished sweep's command again" "exit status $?, $(grep -h 'finished before' "$WORK"/lost/.submitit/*/*.err | wc -l) jobs were finished before"
finish
