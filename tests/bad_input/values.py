"""Values that a setting cannot have."""

from tests.bad_input import Case

CASES = [
    Case("run.py train.max_stps=5", "Did you mean: 'max_steps'?"),
    Case("run.py train.max_steps=many", "train.max_steps=many"),
    Case("run.py model.n_embd=10 model.n_head=3", "n_embd=10 is not divisible by n_head=3"),
    Case("run.py device=tpu9", "device=tpu9"),
    Case("run.py data.window=here", "data.window"),
    Case("run.py train.clip_norm=nan", "train.clip_norm must be positive"),
    Case("run.py +sede=3", "unknown setting 'sede'"),
]
