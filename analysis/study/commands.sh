#!/bin/sh
# The commands of the study. Give the names of its parts: sh analysis/study/commands.sh text stories
# Each part is trained in a folder of its name in the current folder. A part that was interrupted continues.
# TRAIN and TEST are the full paths of the files of stories. OVERRIDES are added to each command, for a short trial.
# Afterwards, for each part: python -m analysis.study.collect PART; then python -m analysis.study.logits $TEST,
# python -m analysis.study.samples and python -m analysis.study.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
export NANOSQ_CACHE="$PWD/cache"
unset OMP_NUM_THREADS  # two runs at a time, each with one thread
stories="data.source.train=${TRAIN:?a file of training stories} data.source.test=${TEST:?a file of test stories}"
controls=z_loss_0.001,logit_penalty_0.1
three=cross_entropy,squentropy_1,squentropy_0.1
grid="hydra/sweeper=grid data=text $stories data.tokenizer.vocabulary=4096 data.source.val_fraction=0.03"
grid="$grid model=study loss=squentropy_repo seed=1,2,3 score_test=false"

study() { python "$root/run.py" --config-dir "$root/analysis/study/conf" -m "$@" ${OVERRIDES:-}; }

train() {
    case $1 in
        text) study experiment=study_text $stories loss=$three,squentropy_0.01,$controls ;;
        stories) study experiment=study_stories loss=$three,squentropy_0.01,$controls ;;
        grid_report) study $grid train.warmup=2000 ;;
        grid_warmup) study $grid train.warmup=0.1 ;;
        vocabulary_50257) study experiment=study_vocabulary $stories loss=$three data.tokenizer.vocabulary=full ;;
        vocabulary_[0-9]*) study experiment=study_vocabulary $stories loss=$three data.tokenizer.vocabulary=${1#*_} ;;
        small) study experiment=study_small $stories loss=$three model.n_layer=2 model.n_embd=64 ;;
        large) study experiment=study_size $stories loss=$three model.n_layer=6 model.n_embd=192 hydra.sweeper.seeds=3 ;;
        adamw) study experiment=study_adamw $stories loss=$three ;;
        *) echo "unknown part: $1" >&2; exit 2 ;;
    esac
}

for part in "$@"; do
    mkdir -p "$part"
    (cd "$part" && train "$part")
done
