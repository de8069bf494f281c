"""`bitlaw doctor`: whether this machine computes the known answers, and what it is like."""

from bitlaw import InputError


def add(commands):
    """Add the command to the subparsers `commands`."""
    command = commands.add_parser("doctor", help="whether this machine computes the known answers, and what it is like")
    command.set_defaults(file="")  # it works on none


def run(arguments):
    """Print the report; InputError when an answer is wrong."""
    from bitlaw.doctor import report

    if wrong := report():
        raise InputError(wrong)
