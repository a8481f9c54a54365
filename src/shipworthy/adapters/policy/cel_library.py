"""The CEL library without its command line.

Why not ``import cel``? That package loads its own command line with it, prompt and colours included: 200 ms in every
process that has a rule, ten times as long as what decides. The extension beside it is all that we call.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.machinery import PathFinder
from types import ModuleType

EXTENSION = "cel.cel"


@cache
def library() -> ModuleType:
    """``cel.cel``, the same module that ``import cel`` would bring. Raises ImportError when it is not installed."""
    if EXTENSION in sys.modules:
        return sys.modules[EXTENSION]
    package = importlib.util.find_spec("cel")
    found = PathFinder.find_spec(EXTENSION, package.submodule_search_locations) if package else None
    if found is None or found.loader is None:
        raise ImportError("the package common-expression-language is not installed", name="cel")
    module = sys.modules[EXTENSION] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[EXTENSION]
        raise
    return module
