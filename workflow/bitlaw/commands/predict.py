"""`bitlaw predict`: the response that a law gives, with an interval."""

from pathlib import Path

from bitlaw import InputError
from bitlaw.commands import files


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("predict", help="the response that a law gives, with an interval")
    command.add_argument("--law", dest="file", type=Path, required=True, help="a law that `fit` or a study wrote")
    command.add_argument("--params", type=float, required=True, help="P")
    command.add_argument("--steps", type=float, required=True, help="S")
    command.add_argument(
        "--protocol", "--name", dest="protocol",
        help="which of several laws: of a study's, lossless (the default) or published; of a table's, the name of one",
    )  # fmt: skip


def run(arguments):
    """Ask the law arguments.file."""
    from bitlaw.laws import prediction

    law = _law(arguments.file, arguments.protocol)
    said = prediction.new_cell(law, arguments.params, arguments.steps)
    span = "no interval: a robust loss, a logarithm or no degree of freedom has none"
    if said["low"] is not None:
        span = f"95 % {said['low']:.4f} to " + ("no upper end" if said["high"] is None else f"{said['high']:.4f}")
    print(f"{law['response']} {said['ratio']:.4f} ({span})")
    for sentence in said["outside"]:
        print(f"extrapolation: {sentence}")
    for reason in law.get("verdict_reasons", []):
        print(f"{law['verdict']}: {reason}")


def _law(path, protocol):
    """The law in the file `path`, which `fit` wrote, or that of `protocol` among a study's; None: the one it has."""
    import json

    from bitlaw.laws import fitting

    try:
        content = json.loads(files.contents(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        content = None
    if isinstance(content, dict) and "form" in content:
        if protocol is not None:
            raise InputError(f"{path}: one law, of no protocol; leave --protocol out")
        law = content
    elif isinstance(content, dict) and content and all(isinstance(law, dict) for law in content.values()):
        if protocol is None and len(content) > 1 and "lossless" not in content:
            raise InputError(f"{path}: holds several laws; choose by --name: {', '.join(content)}")
        protocol = protocol or ("lossless" if "lossless" in content else next(iter(content)))
        if protocol not in content:
            raise InputError(f"{path}: no law of protocol {protocol!r}; it has {', '.join(content)}")
        law = content[protocol]
    else:
        raise InputError(f"{path}: holds no law; give one that `fit` or a study wrote")
    fitting.check(law, path)
    return law
