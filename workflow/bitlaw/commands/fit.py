"""`bitlaw fit`: laws of any table."""

import json
import sys
from pathlib import Path

from bitlaw import InputError
from bitlaw.commands import files
from bitlaw.runtime.atomic import write_text

PICTURES = ("svg", "pdf", "png")


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("fit", help="fit a law to any table with two positive variables (docs/laws.md)")
    command.add_argument(
        "file", metavar="TABLE", help="CSV with a header, a .parquet file, or -: CSV on standard input"
    )
    command.add_argument("--size", default="params_total", help="column of the first variable, P (%(default)s)")
    command.add_argument("--steps", default="step", help="column of the second variable, S (%(default)s)")
    command.add_argument(
        "--response", action="append", metavar="COLUMN", help="column of the response (cr_lossless); again: a law each"
    )
    command.add_argument("--by", metavar="COLUMN", help="a law for each value of this column")
    command.add_argument(
        "--sigma", metavar="COLUMN", help="column of standard errors of the response: they weigh the rows"
    )
    command.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE",
        help="take only rows where COLUMN holds VALUE (or !=, and of numbers <, <=, >, >=); given again, all must hold",
    )  # fmt: skip
    command.add_argument(
        "--form", default="additive",
        help="additive, additive0, coupled, coupled0, multiplicative, size-only, training-only",
    )  # fmt: skip
    command.add_argument("--loss", default="ls", help="ls (least squares, the default), huber or l1")
    command.add_argument("--delta", type=float, default=1e-3, help="where huber turns linear (%(default)s)")
    command.add_argument("--log", action="store_true", help="fit the logarithm of the response")
    command.add_argument("--output", help="where to write the laws, JSON; - is standard output (TABLE with .law.json)")
    command.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the laws: .svg, .pdf or .png")
    command.add_argument("--compute", action="store_true", help="draw them over C = 6·P·S as well")


def run(arguments):
    """Fit laws to the table arguments.file."""
    from bitlaw.laws import any_table, table_fit

    responses = arguments.response or ["cr_lossless"]
    columns = {"--size": arguments.size, "--steps": arguments.steps}
    columns |= {f"--response{' ' + name if i else ''}": name for i, name in enumerate(responses)}
    columns |= {"--sigma": arguments.sigma} if arguments.sigma else {}
    target = _target(arguments)
    if arguments.compute and not arguments.plot:
        raise InputError("--compute: an axis of what is drawn; name where to draw with --plot FILE")
    table = any_table.read(arguments.file, columns, arguments.where, arguments.by)
    laws = table_fit.fit_all(
        table, arguments.size, arguments.steps, responses, arguments.sigma, arguments.by, form=arguments.form,
        loss=arguments.loss, delta=arguments.delta, log=arguments.log,
    )  # fmt: skip
    said = []
    for name, law in laws.items():
        said += [f"--- {name}"] * (len(laws) > 1) + [table_fit.listing(law)]
    single = len(laws) == 1 and not arguments.by
    text = json.dumps(next(iter(laws.values())) if single else laws, indent=1, allow_nan=False) + "\n"
    if arguments.plot:
        from bitlaw.figures import any_law

        any_law.draw(laws, {arguments.plot.suffix[1:]: arguments.plot}, arguments.compute)
        said.append(f"drawn to {arguments.plot}")
    if target == files.STANDARD:
        sys.stdout.write(text)
        print(*said, sep="\n", file=sys.stderr)
        return
    write_text(target, text)
    print(*said, f"law written to {target}", sep="\n")


def _target(arguments):
    """Where the laws go, checked with where they are drawn before any work: a path or STANDARD."""
    default = files.STANDARD if arguments.file == files.STANDARD else Path(arguments.file).with_suffix(".law.json")
    target = arguments.output or default
    for path, option in ((target, "--output"), (arguments.plot, "--plot")):
        if path not in (None, files.STANDARD) and not Path(path).parent.is_dir():
            raise InputError(f"{Path(path).parent}: is no folder; make it first, or name another {option}")
    if arguments.plot and arguments.plot.suffix[1:] not in PICTURES:
        raise InputError(f"--plot {arguments.plot}: needs a name that ends in .{', .'.join(PICTURES)}")
    return target
