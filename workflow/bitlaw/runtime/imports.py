"""Which modules of the library a script imports, at once or by way of others: what its numbers depend on."""

import ast
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1]


def modules(script):
    """Paths of all modules of the library that the file `script` imports, sorted; imports within functions count.

    Found in the text, without running it: imports must be written `from bitlaw[.package] import ...`.
    """
    found, todo = set(), [Path(script)]
    while todo:
        new = _imported(todo.pop()) - found
        found |= new
        todo += new
    return sorted(found)


@cache
def _imported(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == LIBRARY.name:
            place = LIBRARY.joinpath(*node.module.split(".")[1:])
            for name in (place, *(place / name.name for name in node.names)):
                found |= {name.with_suffix(".py"), *(folder / "__init__.py" for folder in (name, *name.parents))}
    return frozenset(file for file in found if LIBRARY in file.parents and file.is_file())
