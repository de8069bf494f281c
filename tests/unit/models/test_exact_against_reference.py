"""The engines against a reference in Python's integers, written from docs/arithmetic.md alone: every bit."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import exact_reference
from bitlaw.compression import known_answers
from bitlaw.models.exact.model import Model

TABLE = known_answers.read_table()


@pytest.mark.parametrize("family", TABLE["tiny"])
def test_logits_of_every_engine_are_the_references(tmp_path, family):
    folder = known_answers.model_folder(TABLE, known_answers.TINY + family, tmp_path)
    model = Model(folder)
    ids = known_answers.token_ids(TABLE)[: min(7, model.context)]
    config = json.loads((folder / "config.json").read_text())
    expected = np.array(
        exact_reference.logits(config, load_file(folder / "model.safetensors"), ids.tolist()), np.uint32
    )
    states, products = model.hidden(ids), model.float64()
    loops = model.head(states, 0, len(ids)).astype(np.float32)
    assert len(np.unique(expected)) > 100  # else equality says little
    np.testing.assert_array_equal(loops.view(np.uint32), expected)
    np.testing.assert_array_equal(products.head(*products.hidden(ids)).view(np.uint32), expected)
    digits = model.digits()
    found = digits.head(digits.hidden(torch.from_numpy(ids)[None])[0]).numpy()
    np.testing.assert_array_equal(found.view(np.uint32), expected)
