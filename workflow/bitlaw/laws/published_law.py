"""The laws of the study that is reproduced, to be drawn beside ours."""

import pandas as pd

from bitlaw.laws import fitting

NOMINAL = {"pythia-70m": 70e6, "pythia-160m": 160e6, "pythia-410m": 410e6, "pythia-1b": 1e9, "pythia-1.4b": 1.4e9}


def law(modality, printed, cells=None):
    """Its law of a modality for a figure: {label, coefficients: {name: value}}, or None where there is none.

    Refitted from its `cells` (see `published_cells.cells`) where given, as the study did: least squares, nominal
    parameters; else as printed, from the CSV file `printed` (modality and the coefficients, a row a law).
    """
    if cells is not None and (part := cells[cells["modality"] == modality])["cr_std"].notna().any():
        refitted = fitting.fit(part["model"].map(NOMINAL), part["step"], part["cr_mean"], params_kind="nominal")
        values = {name: entry["value"] for name, entry in refitted["coefficients"].items()}
        return {"label": f"refitted from its {len(part)} cells", "coefficients": values}
    laws = pd.read_csv(printed, index_col="modality")
    if modality not in laws.index:
        return None
    return {"label": "printed, rounded", "coefficients": laws.loc[modality].to_dict()}
