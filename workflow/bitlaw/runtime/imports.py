"""Which modules of the library a script imports, at once or by way of others: what its numbers depend on."""

import ast
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1]


def modules(script):
    """Paths of all modules of the library that the file `script` imports, sorted; imports within functions count.

    Found in the text, without running it: imports must be written `from bitlaw[.package] import ...`.
    """
    reached, todo = set(), [Path(script)]
    while todo:
        new = _imported(todo.pop()) - reached
        reached |= new
        todo += new
    return sorted(reached)


@cache
def _imported(path):
    """Modules of the library that the file `path` names in its own imports."""
    candidates = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == LIBRARY.name:
            place = LIBRARY.joinpath(*node.module.split(".")[1:])
            for name in (place, *(place / name.name for name in node.names)):
                candidates |= {name.with_suffix(".py"), *(folder / "__init__.py" for folder in (name, *name.parents))}
    return frozenset(file for file in candidates if LIBRARY in file.parents and file.is_file())
