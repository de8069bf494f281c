"""`bitlaw fit`: a law of any table."""

from pathlib import Path

from bitlaw import InputError
from bitlaw.runtime.atomic import write_text


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("fit", help="fit a law to any table with two positive variables")
    command.add_argument("file", type=Path, metavar="TABLE", help="CSV file with a header")
    command.add_argument("--size", default="params_total", help="column of the first variable, P (%(default)s)")
    command.add_argument("--steps", default="step", help="column of the second variable, S (%(default)s)")
    command.add_argument("--response", default="cr_lossless", help="column of the response (%(default)s)")
    command.add_argument(
        "--where", action="append", default=[], metavar="COLUMN=VALUE",
        help="take only rows where COLUMN holds VALUE (or !=, and of numbers <, <=, >, >=); given again, all must hold",
    )  # fmt: skip
    command.add_argument("--form", default="additive", help="additive, additive0, coupled, coupled0, multiplicative")
    command.add_argument("--loss", default="ls", help="ls (least squares, the default), huber or l1")
    command.add_argument("--delta", type=float, default=1e-3, help="where huber turns linear (%(default)s)")
    command.add_argument("--log", action="store_true", help="fit the logarithm of the response")
    command.add_argument("--output", type=Path, help="where to write the law (default: TABLE with .law.json)")


def run(arguments):
    """Fit a law to the table arguments.file."""
    import json

    from bitlaw.laws import any_table, bootstrap, fitting, formatting

    columns = {"--size": arguments.size, "--steps": arguments.steps, "--response": arguments.response}
    table = any_table.read(arguments.file, columns, arguments.where)
    target = arguments.output or arguments.file.with_suffix(".law.json")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: is no folder; make it first, or name another --output")
    law = fitting.fit(
        *(table[column] for column in columns.values()), params_kind=arguments.size, form=arguments.form,
        loss=arguments.loss, delta=arguments.delta, log=arguments.log, response=arguments.response,
    )  # fmt: skip
    if arguments.loss == "ls" and not arguments.log:
        redrawn = bootstrap.over_cells(law)
        law["samples"] = redrawn.pop("samples")
        law["bootstrap"] = redrawn
    write_text(target, json.dumps(law, indent=1, allow_nan=False) + "\n")
    print(f"P: {arguments.size}, S: {arguments.steps}")
    print(formatting.listing(law))
    print(f"law written to {target}")
