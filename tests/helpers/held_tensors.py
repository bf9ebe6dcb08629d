"""The tensors that an object holds, wherever it keeps them."""

import gc
from types import FunctionType, ModuleType

from torch import Tensor


def held_tensors(thing: object) -> list[Tensor]:
    found, seen, queue = [], set(), [thing]
    while queue:
        item = queue.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FunctionType):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found.append(item)
        else:
            queue += gc.get_referents(item)
    return found
