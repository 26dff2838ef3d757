"""Files that do not exist, cannot be read, or hold something else."""

from tests.bad_input import Case

CASES = [
    Case("run.py data=text data.source.train=nowhere.txt", "nowhere.txt"),
    Case("run.py data=text", "data.source.train"),
    Case("run.py data=text data.source.train=empty.txt", "empty.txt"),
    Case("run.py data=text data.source.train=one.txt", "data.source"),
    Case("run.py resume=text.txt", "text.txt is not a checkpoint"),
    Case("run.py checkpoint_dir=text.txt", "text.txt"),
    Case("run.py data.source.n_train=1 model.block_size=100000", "model.block_size"),
]
