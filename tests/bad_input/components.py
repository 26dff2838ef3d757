"""Components that do not exist, cannot be built, or break the contract of their kind."""

from tests.bad_input import Case

CASES = [
    Case("run.py loss=squentropi", "Could not find 'loss/squentropi'"),
    Case("run.py loss=squentropy +loss.wieght=1", "did you mean 'weight'?"),
    Case("run.py model.n_layer=2.5", "model.n_layer: input should be a valid integer"),
    Case("run.py optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
    Case("run.py loss._target_=torch.nn.functional.cross_entropy", "not one loss for each token"),
]
