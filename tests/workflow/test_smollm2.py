"""A real pretrained model: one chunk of enwik8 through the study, with a symbol that its tokenizer lacks."""

import json

import pytest

from repository import jobs, run

# chunk 27 of enwik8: English, with one 0x13 (of a dash, modulo 128), which the tokenizer lacks
ONE_CHUNK = """
chunks: 1
verify: 1
controls: []
modalities: [{name: text, source: enwik8, cut: bytes, range: [55296, 57344], sampling: head}]
"""


@pytest.mark.slow
def test_one_chunk_of_enwik8_is_coded_and_decoded_by_a_pretrained_model(clone):
    (clone / "one.yaml").write_text(ONE_CHUNK)
    ran = run(clone, "--configfile", "workflow/studies/smollm2.yaml", "one.yaml", timeout=3600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert jobs(ran.stdout + ran.stderr)["gguf_model"] == 1
    assert "no law: models × steps are 1 × 1, a law needs 3 × 3: laws and their figures are left out" in ran.stdout
    about = json.loads((clone / "results/smollm2/cells/text/smollm2-135m/step2000000.json").read_text())
    assert about["params_total"] == 134_515_008 and about["params_nonembedding"] == 134_515_008 - 49152 * 576
    assert about["mode"] == "exact" and about["decode_check"]["passed"] and about["escaped_symbols"] == 1
    # a wrong order of the rotated halves, or of anything else, costs several bits a byte
    assert 0.9 < 8 * about["cr_lossless"] - 8 * about["audit_container"] < 1.5
    grid = (clone / "results/smollm2/tables/text_lossless.md").read_text()
    assert f"| smollm2-135m | 134,515,008 | {about['cr_lossless']:.3f} |" in grid
    assert not (clone / "results/smollm2/laws").exists()
    page = (clone / "results/smollm2/report.html").read_text()
    assert 'id="table-audit"' in page and 'id="context"' in page and 'id="laws"' not in page
