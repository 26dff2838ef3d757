"""The files of the user's own code, which are neither those of this package nor those of installed ones."""

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from nanosq.installation import PACKAGE, is_library

BY_NAME = ("import_module", "__import__")  # functions that import a module by its name


def own_files(modules: Iterable[str]) -> dict[str, Path]:
    """Return the files of modules and of all that they import, by module, without this and installed packages."""
    own: dict[str, Path] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # a class, a function or the main program; or a package that nobody has imported yet fails
            continue
        if name in own or spec is None or not spec.has_location or spec.origin is None:
            continue
        path = Path(spec.origin).resolve()
        if path.is_relative_to(PACKAGE) or is_library(path):
            continue
        own[name] = path
        is_package = spec.submodule_search_locations is not None
        waiting += [name.rpartition(".")[0] or name, *_imports(path, name if is_package else name.rpartition(".")[0])]
    return own


def _imports(path: Path, package: str) -> Iterator[str]:
    """Yield the names of what a module imports: modules, and names in them that may be modules."""
    try:
        nodes = ast.walk(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError):  # it is compiled, or nobody has imported it yet
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # a relative import that fails, because there is no package
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_NAME:
            for name in node.args[:1]:
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    with suppress(ImportError):  # it is relative to another package
                        yield importlib.util.resolve_name(name.value, package)
