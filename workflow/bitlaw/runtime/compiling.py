"""How loops over numbers are compiled: without the GIL, as IEEE has it, and kept on disk."""

import fcntl
import hashlib
import inspect
from contextlib import contextmanager
from pathlib import Path

import numba
from llvmlite import binding
from numba import njit, types
from numba.extending import intrinsic

from bitlaw.runtime.places import private_folder


def _digest(paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


_LIBRARY = Path(__file__).parents[1]
# the packages with compiled loops, which call each other across files
_SOURCES = _digest(sorted([*_LIBRARY.glob("compression/*.py"), *_LIBRARY.glob("models/exact/*.py")]))


def compiled(function):
    """numba's njit for functions that call each other across files.

    Division has no check for zero, which would be a branch in every loop. What is kept on disk is dropped when any of
    the files with compiled loops changes: numba by itself looks at a function's own file only, and would go on with
    what an older version of another file said.
    """
    dispatcher = njit(cache=True, nogil=True, error_model="numpy")(function)
    dispatcher._cache._cache_file._source_stamp = _SOURCES + _digest([inspect.getfile(function)])
    return dispatcher


@intrinsic
def not_inlined(typingctx):
    """Called in a compiled function, keeps it a function of its own in the code of its callers.

    Otherwise each caller is compiled with all that it calls in its body, a decoder many times over.
    """

    def generate(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def _nothing():
    return 0


def ready():
    """Import what numba needs before it runs any compiled function: once before a process forks, not once in each."""
    _nothing()


@contextmanager
def one_at_a_time():
    """Around the first use of compiled loops: of processes that start together one compiles, the others wait for it.

    Compiling takes many seconds of a processor, which eight cells would spend eight times. Afterwards nobody waits.
    """
    kind = f"{_LIBRARY}{_SOURCES}{numba.__version__}{binding.get_host_cpu_name()}"
    done = private_folder() / f"compiled-{hashlib.sha256(kind.encode()).hexdigest()[:16]}"
    if done.exists():
        yield
        return
    with open(private_folder() / "compiling.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        done.touch()
