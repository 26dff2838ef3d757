"""Ranges of numbers, for the annotations of a component's arguments. nanosq/signature.py checks them.

Numbers that are not finite are refused for every argument, also without an annotation.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt

NonNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
UnitInterval = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Gt(0), Lt(1)]  # of a whole of which something must be left
Part = Annotated[float, Gt(0), Le(1)]  # of a whole
Count = Annotated[int, Ge(1)]
Size = Annotated[int, Ge(1), Le(2**24)]  # PyTorch cannot count the elements of a tensor with larger ones

# Arguments of the optimizers in torch.optim, which check only some of them.
OF_TORCH_OPTIM: Mapping[str, Any] = {
    "lr": NonNegative,
    "weight_decay": NonNegative,
    "momentum": BelowOne,
    "betas": tuple[BelowOne, BelowOne],
}
