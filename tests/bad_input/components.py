"""Components that do not exist, cannot be built, or break the contract of their kind."""

from pathlib import Path

from tests.bad_input import PASSWORD, Case

MODULES = {
    "mine.py": f"""
import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def nll(logits, targets):
    return cross_entropy(logits, targets, reduction="none")


def key_error(logits, targets):
    return nll(logits, targets) * {{}}["weight"]


def zero_division(logits, targets):
    return nll(logits, targets) / len(targets[:0]) + 1 // 0


def index_error(logits, targets):
    return logits[:, 1000]


def shapes(logits, targets):
    return torch.cat([logits, targets])


def secret(logits, targets):
    raise OSError("cannot open https://alice:{PASSWORD}@example.org/weights")


def endless(logits, targets):
    return endless(logits, targets)


def leaves(logits, targets):
    sys.exit(3)


def lines(logits, targets):
    raise AssertionError("first\\nsecond")


def silent(logits, targets):
    raise StopIteration


def nothing(logits, targets):
    nll(logits, targets)


def number(logits, targets):
    return 1.0


def integers(logits, targets):
    return logits.argmax(-1)


def booleans(logits, targets):
    return logits.argmax(-1) == targets


def array(logits, targets):
    return np.zeros(len(targets))


def imaginary(logits, targets):
    return nll(logits, targets) * 1j


def detached(logits, targets):
    return nll(logits, targets).detach()


def pair(logits, targets):
    return nll(logits, targets), logits


def half(logits, targets):
    return nll(logits, targets).bfloat16()


def elsewhere(logits, targets):
    return nll(logits, targets).to("meta")


def sparse(logits, targets):
    return nll(logits, targets).to_sparse()


def shifts_targets(logits, targets):
    targets.add_(1).remainder_(logits.shape[-1])
    return nll(logits, targets)


def needs_more(logits, targets, *, table):
    return nll(logits, targets)


class Unready:
    def __init__(self):
        self.rows = {{}}["rows"]


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, losses):
        return losses.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * missing


def backward(logits, targets):
    return Backward.apply(nll(logits, targets))


def constant(value):
    return lambda step, **_: value


none_factor = constant(None)
tensor_factor = constant(torch.tensor(0.5))
nan_factor = constant(float("nan"))
negative_factor = constant(-0.5)
text_factor = constant("0.5")
true_factor = constant(True)


def late_factor(step, *, max_steps, warmup, min_lr_factor):
    return [1.0] * (max_steps - 3) and ([1.0] * (max_steps - 3))[step]


def old_factor(step, warmup_steps):
    return 1.0


class Model(torch.nn.Module):
    def __init__(self, vocab_size, *, block_size, n_embd, **_):
        super().__init__()
        self.block_size, self.n_embd = block_size, n_embd
        self.embedding = torch.nn.Embedding(vocab_size, n_embd)
        self.head_weight = self.embedding.weight
        self.flops_per_token = 1.0

    def forward(self, tokens):
        return self.embedding(tokens)


class NoHead(Model):
    def __init__(self, vocab_size, **settings):
        super().__init__(vocab_size, **settings)
        del self.head_weight


class NoBlockSize(Model):
    def __init__(self, vocab_size, **settings):
        super().__init__(vocab_size, **settings)
        del self.block_size


class NoFlops(Model):
    def __init__(self, vocab_size, **settings):
        super().__init__(vocab_size, **settings)
        self.flops_per_token = None


class HeadTurned(Model):
    def __init__(self, vocab_size, **settings):
        super().__init__(vocab_size, **settings)
        self.head_weight = torch.nn.Parameter(self.embedding.weight.T.clone())


class Logits(Model):
    def forward(self, tokens):
        return self.embedding(tokens) @ self.head_weight.T


class Pair(Model):
    def forward(self, tokens):
        return self.embedding(tokens), None


class Last(Model):
    def forward(self, tokens):
        return self.embedding(tokens)[:, -1]


class Raises(Model):
    def forward(self, tokens):
        return self.embeddings(tokens)


class NeedsMore(Model):
    def forward(self, tokens, mask):
        return self.embedding(tokens)


class NeedsDepth(Model):
    def __init__(self, vocab_size, *, depth, **settings):
        super().__init__(vocab_size, **settings)


class NoParameters(Model):
    def __init__(self, vocab_size, **settings):
        super().__init__(vocab_size, **settings)
        self.requires_grad_(False)


class RaisesInInit(torch.nn.Module):
    def __init__(self, vocab_size, **settings):
        super().__init__()
        self.width = settings["width"]


def a_function(vocab_size, **settings):
    return None


class Broken(torch.optim.SGD):
    def step(self, closure=None):
        self.param_groups[7]


class NotAnOptimizer:
    def __init__(self, params, lr):
        self.param_groups = [*params]

    def step(self):
        pass


def documents(split, **_):
    from nanosq.data.sources import Document
    for i in range(40):
        yield Document(f"{{split}} {{i}}")


def raises(split, **_):
    yield from documents(split)
    raise KeyError(split)


def raises_at_once(split, **_):
    open("missing.txt")


def no_texts(split, **_):
    yield from ()


def yields_bytes(split, **_):
    yield b"once upon a time"


def yields_none(split, **_):
    yield None


def yields_numbers(split, **_):
    yield from range(100)


def yields_texts(split, **_):
    yield from (f"{{split}} {{i}}" for i in range(100))


def yields_halves(split, **_):
    from nanosq.data.sources import Document
    yield Document("a lone \\ud800 surrogate")


def returns_none(split, **_):
    pass


def returns_number(split, **_):
    return 7


def own_tokenizer(**_):
    return str


def broken_tokenizer(**_):
    return {{}}["tokenizer"]
""",
    "exits.py": "import sys\nsys.exit(0)\n",
    "raises.py": "VALUES = {}\nVALUES['weight']\n",
    "broken.py": "def loss(:\n",
}


def modules(folder: Path) -> None:
    """Write the modules of a user."""
    for name, text in MODULES.items():
        (folder / name).write_text(text)


def own(group: str, name: str, says: str, *arguments: str) -> Case:
    """Return a case with a component of the user."""
    return Case(" ".join(["run.py", f"{group}._target_=mine.{name}", *arguments]), says, modules)


LOSSES = {
    "key_error": "loss: mine.key_error fails: KeyError: 'weight' (mine.py, line 14)",
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
    "Unready": "KeyError: 'rows' (mine.py, line",
    "backward": "NameError: name 'missing' is not defined (mine.py, line",
}
CASES = [
    Case("run.py loss=squentropi", "Could not find 'loss/squentropi'"),
    Case("run.py loss=squentropy +loss.wieght=1", "did you mean 'weight'?"),
    Case("run.py model.n_layer=2.5", "model.n_layer: input should be a valid integer"),
    Case("run.py loss._target_=torch.nn.functional.cross_entropy", "not one loss for each token"),
    *(own("loss", name, says) for name, says in LOSSES.items()),
    Case("run.py loss._target_=exits.loss", "SystemExit: 0 (exits.py, line 2)", modules),
    Case("run.py loss._target_=raises.loss", "KeyError: 'weight' (raises.py, line 2)", modules),
    Case("run.py loss._target_=broken.loss", "SyntaxError: invalid syntax (broken.py, line 1)", modules),
    Case("run.py loss._target_=mine.nll loss._partial_=false", "loss: ", modules),
    own("schedule", "none_factor", "returns None at step 0"),
    own("schedule", "tensor_factor", "returns tensor(0.5000) at step 0"),
    own("schedule", "nan_factor", "returns nan at step 0"),
    own("schedule", "negative_factor", "returns -0.5 at step 0"),
    own("schedule", "text_factor", "returns '0.5' at step 0"),
    own("schedule", "true_factor", "returns True at step 0"),
    own("schedule", "late_factor", "IndexError: list index out of range (mine.py, line"),
    own("schedule", "old_factor", "schedule: mine.old_factor"),
    own("model", "NoHead", "has no head_weight"),
    own("model", "NoBlockSize", "has no block_size"),
    own("model", "NoFlops", "flops_per_token"),
    own("model", "HeadTurned", "head_weight"),
    own("model", "Logits", "mine.Logits.forward returns torch.float32 of shape (1, 3, 8)"),
    own("model", "Pair", "the result of mine.Pair.forward is a tuple, not of the class Tensor"),
    own("model", "Last", "of shape (1, 128) for shape (B, T) = (1, 3)"),
    own("model", "Raises", "has no attribute 'embeddings' (mine.py, line"),
    own("model", "NeedsMore", "missing 1 required positional argument: 'mask'"),
    own("model", "NeedsDepth", "model.depth is missing: mine.NeedsDepth needs it"),
    own("model", "NoParameters", "no parameter"),
    own("model", "RaisesInInit", "KeyError: 'width' (mine.py, line"),
    own("model", "a_function", "model: mine.a_function is a NoneType, not of the class Module; a model takes"),
    own("optimizer", "Broken", "IndexError: list index out of range (mine.py, line", "optimizer=sgd"),
    own(
        "optimizer",
        "NotAnOptimizer",
        "mine.NotAnOptimizer is a NotAnOptimizer, not of the class Optimizer",
        "optimizer=adafactor",
        "~optimizer.weight_decay",
    ),
    Case("run.py optimizer._target_=torch.optim.LBFGS optimizer=adafactor ~optimizer.weight_decay", "closure"),
    Case(
        "run.py optimizer._target_=torch.optim.SparseAdam optimizer=adafactor ~optimizer.weight_decay",
        "SparseAdam does not support dense",
    ),
    Case(
        "run.py optimizer._target_=torch.nn.Linear optimizer=adafactor ~optimizer.weight_decay",
        "optimizer.lr: torch.nn.Linear has no argument 'lr'",
    ),
    Case("run.py +optimizer.capturable=true optimizer=adamw optimizer.fused=false", "optimizer: "),
    own("data.source", "raises", "KeyError: 'test' (mine.py, line"),
    own("data.source", "raises_at_once", "FileNotFoundError"),
    own("data.source", "no_texts", "no document is left for test"),
    own("data.source", "yields_bytes", "yields bytes"),
    own("data.source", "yields_none", "yields NoneType"),
    own("data.source", "yields_numbers", "yields int"),
    own("data.source", "yields_texts", "yields str"),
    own("data.source", "yields_halves", "surrogate"),
    own("data.source", "returns_none", "returns NoneType"),
    own("data.source", "returns_number", "returns int"),
    own("data.tokenizer", "own_tokenizer", "mine.own_tokenizer is a type, not of the class Tokenizer"),
    own("data.tokenizer", "broken_tokenizer", "KeyError: 'tokenizer' (mine.py, line"),
    own("data.tokenizer", "nothing_here", "has no attribute 'nothing_here'"),
]
