"""Components that do not exist, cannot be built, or break the contract of their kind."""

import shutil
from pathlib import Path

from tests.bad_input import Case

MODULES = {
    "exits.py": "import sys\nsys.exit(0)\n",
    "raises.py": "VALUES = {}\nVALUES['weight']\n",
    "broken.py": "def loss(:\n",
}


def modules(folder: Path) -> None:
    """Write the modules of a user."""
    for module in ("mine", "mydata"):
        shutil.copy(Path(__file__).with_name(f"_{module}.py"), folder / f"{module}.py")
    for name, text in MODULES.items():
        (folder / name).write_text(text)


def own(group: str, name: str, says: str, *arguments: str) -> Case:
    """Return a case with a component of the user."""
    module = "mydata" if group.startswith("data.") else "mine"
    return Case(" ".join(["run.py", f"{group}._target_={module}.{name}", *arguments]), says, modules)


# What the message says about a component of _mine.py or _mydata.py, by its group and its name.
SAYS = {
    "loss": {
        "key_error": "loss: mine.key_error fails: KeyError: 'weight' (mine.py, line",
        "zero_division": "ZeroDivisionError: integer division or modulo by zero (mine.py, line",
        "index_error": "IndexError: index 1000 is out of bounds",
        "shapes": "RuntimeError: ",
        "secret": "OSError: cannot open https://alice:",
        "endless": "RecursionError: maximum recursion depth exceeded",
        "leaves": "SystemExit: 3 (mine.py, line",
        "lines": "AssertionError: first (mine.py, line",
        "silent": "StopIteration (mine.py, line",
        "nothing": "returns NoneType, not a tensor; a loss maps",
        "number": "returns float, not a tensor; a loss maps",
        "integers": "returns torch.int64, not torch.float32",
        "booleans": "returns torch.bool, not torch.float32",
        "array": "returns ndarray, not a tensor",
        "imaginary": "returns torch.complex64, not torch.float32",
        "detached": "is not differentiable",
        "pair": "returns tuple, not a tensor",
        "half": "returns torch.bfloat16, not torch.float32",
        "elsewhere": "returns a tensor of torch.strided on meta",
        "sparse": "returns a tensor of torch.sparse_coo on cpu",
        "shifts_targets": "changes its arguments in place",
        "needs_more": "loss.table is missing: mine.needs_more needs it",
        "Unready": "TypeError: ",
        "backward": "NameError: name 'MISSING' is not defined (mine.py, line",
    },
    "schedule": {
        "none_factor": "returns None at step 0",
        "tensor_factor": "returns tensor(0.5000) at step 0",
        "nan_factor": "returns nan at step 0",
        "negative_factor": "returns -0.5 at step 0",
        "text_factor": "returns '0.5' at step 0",
        "true_factor": "returns True at step 0",
        "late_factor": "IndexError: list index out of range (mine.py, line",
        "old_factor": "schedule: mine.old_factor",
    },
    "model": {
        "NoHead": "'NoHead' object has no attribute 'head_weight'; a model takes",
        "NoBlockSize": "has no attribute 'block_size'",
        "NoFlops": "mine.NoFlops: flops_per_token is None, not a number",
        "HeadTurned": "mine.HeadTurned.head_weight has shape (128, 8) with V = 8",
        "Logits": "mine.Logits.forward returns torch.float32 of shape (1, 3, 8)",
        "Pair": "the result of mine.Pair.forward is a tuple, not of the class Tensor",
        "Last": "of shape (1, 128) for shape (B, T) = (1, 3)",
        "Raises": "has no attribute 'embeddings' (mine.py, line",
        "NeedsMore": "missing 1 required positional argument: 'mask'",
        "NeedsDepth": "model.depth is missing: mine.NeedsDepth needs it",
        "NoParameters": "mine.NoParameters has no parameter to train",
        "RaisesInInit": "KeyError: 'width' (mine.py, line",
        "a_function": "model: mine.a_function is a NoneType, not of the class Module; a model takes",
    },
    "data.source": {
        "raises": "KeyError: 'test' (mydata.py, line",
        "raises_at_once": "FileNotFoundError",
        "no_texts": "data.source: the training split has at most 1 tokens",
        "yields_bytes": "yields bytes",
        "yields_none": "yields NoneType",
        "yields_numbers": "yields int",
        "yields_texts": "yields str",
        "yields_halves": "surrogate",
        "returns_none": "returns NoneType",
        "returns_number": "returns int",
    },
    "data.tokenizer": {
        "own_tokenizer": "mydata.own_tokenizer is a bytes, not of the class Tokenizer",
        "broken_tokenizer": "KeyError: 'tokenizer' (mydata.py, line",
        "nothing_here": "has no attribute 'nothing_here'",
    },
}
WITHOUT_DECAY = "optimizer=adafactor ~optimizer.weight_decay"  # the only argument is lr
CASES = [
    Case("run.py loss=squentropi", "Could not find 'loss/squentropi'"),
    Case("run.py loss=squentropy +loss.wieght=1", "did you mean 'weight'?"),
    Case("run.py model.n_layer=2.5", "model.n_layer: input should be a valid integer"),
    Case("run.py loss._target_=torch.nn.functional.cross_entropy", "not one loss for each token"),
    Case("run.py model._target_=nanosq.model.GTP", "model._target_: cannot import 'nanosq.model.GTP'"),
    Case("run.py loss._target_=exits.loss", "SystemExit: 0 (exits.py, line 2)", modules),
    Case("run.py loss._target_=raises.loss", "KeyError: 'weight' (raises.py, line 2)", modules),
    Case("run.py loss._target_=broken.loss", "SyntaxError: invalid syntax (broken.py, line 1)", modules),
    Case("run.py loss._partial_=false", "loss: missing a required argument: 'logits_NV'; set loss._partial_=true"),
    Case("run.py loss=focal ~loss._partial_", "set loss._partial_=true"),
    Case("run.py +model._partial_=true", "model: nanosq.model.GPT is a partial, not of the class Module"),
    *(own(group, name, says) for group, cases in SAYS.items() for name, says in cases.items()),
    own("model", "HasDefaults", "model.block_size is missing", "~model.block_size"),
    own("optimizer", "Broken", "IndexError: list index out of range (mine.py, line", "optimizer=sgd"),
    own("optimizer", "NotAnOptimizer", "is a NotAnOptimizer, not of the class Optimizer", WITHOUT_DECAY),
    Case(f"run.py optimizer._target_=torch.optim.LBFGS {WITHOUT_DECAY}", "LBFGS doesn't support per-parameter options"),
    Case(f"run.py optimizer._target_=torch.optim.SparseAdam {WITHOUT_DECAY}", "does not support dense gradients"),
    Case(f"run.py optimizer._target_=torch.nn.Linear {WITHOUT_DECAY}", "torch.nn.Linear has no argument 'lr'"),
    own("data.tokenizer", "OwnTokenizer", "this is not the state of a tokenizer", "~data.tokenizer.vocabulary"),
]
