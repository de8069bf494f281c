"""The scripts in benchmarks/ can be imported by their names."""

import sys

from repository import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
