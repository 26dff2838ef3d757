"""Runs and sweeps that need more memory than any machine has."""

from tests.bad_input import PASSWORD, Case

SECRET = f"tracking.uri=postgresql://me:{PASSWORD}@127.0.0.1:9/runs"
LARGE_GRID = "run.py -m hydra/sweeper=grid model.n_layer=1 model.dropout=0.0 optimizer.lr=1e-3,1e-2"
SEARCH = "run.py -m hydra/sweeper=optuna"
COMPARE = "run.py -m hydra/sweeper=compare loss=cross_entropy,squentropy"

CASES = [
    Case("run.py train.batch_size=10000000000000", "lower train.batch_size to"),
    Case("run.py train.batch_size=1000000000 model=gpt2", "a larger train.accumulate keeps"),
    Case("run.py model.n_embd=10000000 model.n_head=1", "lower model.n_embd or model.n_layer"),
    Case("run.py model.n_layer=16000000", "lower model.n_embd or model.n_layer"),
    Case("run.py model.n_layer=16000000 model.n_embd=1 model.n_head=1", "lower model.n_embd or model.n_layer"),
    Case("run.py model.block_size=100000000000", "model.block_size"),
    Case("run.py data.tokenizer.pad_to=1000000000000", "lower data.tokenizer.pad_to or model.n_embd"),
    Case("run.py data.tokenizer.vocabulary=full data.tokenizer.pad_to=1000000000000", "data.tokenizer.pad_to"),
    Case("run.py samples.count=1000000000000", "samples.count=1000000000000: must be at most 10000"),
    Case(f"run.py {SECRET} train.batch_size=10000000000000", "lower train.batch_size to"),
    Case("run.py train.batch_size=10000000000000 tracking=none train.accumulate=3", "GiB of memory are needed"),
    Case("nanosq.generate missing.pt --num 1000000000000", "--num"),
    Case(f"{LARGE_GRID} train.batch_size=10000000000000", "lower train.batch_size to"),
    Case(f"{LARGE_GRID} train.batch_size=10000000000000,20000000000000", "lower train.batch_size to"),
    Case(f"{LARGE_GRID} samples.count=1000000000000", "samples.count"),
    Case(f"{SEARCH} train.batch_size=10000000000000", "lower train.batch_size to"),
    Case(f"{SEARCH} 'train.batch_size=range(10000000000000,10000000000003)'", "lower train.batch_size to"),
    Case(f"{SEARCH} model.n_embd=10000000 model.n_head=1 model.n_layer=1", "lower model.n_embd"),
    Case(f"{SEARCH} {SECRET} data.tokenizer.pad_to=1000000000000", "lower data.tokenizer.pad_to"),
    Case(f"{COMPARE} train.batch_size=10000000000000", "lower train.batch_size to"),
]
