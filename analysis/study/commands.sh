#!/bin/sh
# The commands of the study. Give the names of its parts: sh analysis/study/commands.sh text stories
# Each part is trained in a folder of its name in the current folder. A part that was interrupted continues.
# TRAIN and TEST are the full paths of the files of stories.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
export NANOSQ_CACHE="$PWD/cache"
unset OMP_NUM_THREADS  # two runs at a time, each with one thread
stories="data.source.train=${TRAIN:?a file of training stories} data.source.test=${TEST:?a file of test stories}"
controls=z_loss_0.001,logit_penalty_0.1
three=cross_entropy,squentropy_1,squentropy_0.1
text="experiment=study $stories"
grid="hydra/sweeper=grid data=text $stories data.tokenizer.vocabulary=4096 data.source.val_fraction=0.03 model=study"

study() { python "$root/run.py" --config-dir "$root/analysis/study/conf" -m "$@"; }
learning_rates() { echo "hydra.sweeper.params.optimizer.lr=choice($1)"; }

train() {
    case $1 in
        text) study $text loss=$three,squentropy_0.01,$controls ;;
        stories) study experiment=study_stories loss=$three,squentropy_0.01,$controls ;;
        grid_report) study $grid loss=squentropy_repo seed=1,2,3 train.warmup=2000 ;;
        grid_warmup) study $grid loss=squentropy_repo seed=1,2,3 train.warmup=0.1 ;;
        vocabulary_*)
            study $text loss=$three data.tokenizer.vocabulary=${1#vocabulary_} train.max_steps=400 \
                hydra.sweeper.seeds=3 hydra.sweeper.params.model.dropout=0.0 "$(learning_rates 4e-3,8e-3,1.6e-2)" ;;
        small)
            study $text loss=$three model.n_layer=2 model.n_embd=64 hydra.sweeper.params.model.dropout=0.0 ;;
        large)
            study $text loss=$three model.n_layer=6 model.n_embd=192 hydra.sweeper.params.model.dropout=0.0 \
                hydra.sweeper.seeds=3 ;;
        adamw) study $text loss=$three optimizer=adamw "$(learning_rates 1e-3,2e-3,4e-3,8e-3)" ;;
        *) echo "unknown part: $1" >&2; exit 2 ;;
    esac
}

for part in "$@"; do
    mkdir -p "$part"
    (cd "$part" && train "$part")
    python -m analysis.study.collect "$part"
done
