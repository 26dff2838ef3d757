"""Losses, schedules, models and optimizers of a user that break their contract. The cases of components.py copy it."""

import sys

import numpy as np
import torch
from torch.nn.functional import cross_entropy


def nll(logits, targets):
    return cross_entropy(logits, targets, reduction="none")


def key_error(logits, targets):
    return nll(logits, targets) * {}["weight"]


def zero_division(logits, targets):
    return nll(logits, targets) / len(targets[:0]) + 1 // 0


def index_error(logits, targets):
    return logits[:, 1000]


def shapes(logits, targets):
    return torch.cat([logits, targets])


def secret(logits, targets):
    raise OSError("cannot open https://alice:pa55-w0rd@example.org/weights")


def endless(logits, targets):
    return endless(logits, targets)


def leaves(logits, targets):
    sys.exit(3)


def lines(logits, targets):
    raise AssertionError("first\nsecond")


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
        self.rows = {}["rows"]


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, losses):
        return losses.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * MISSING  # noqa: F821


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


class HasDefaults(Model):
    def __init__(self, vocab_size, *, block_size=64, n_embd=16, **_):
        super().__init__(vocab_size, block_size=block_size, n_embd=n_embd)


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
