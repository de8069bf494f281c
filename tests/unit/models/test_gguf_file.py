"""GGUF files to checkpoints: the logits of the model that was written, and one clear line for what is not known."""

import json

import gguf
import numpy as np
import pytest
import torch

from bitlaw import InputError
from bitlaw.compression import codec, scoring, stream_format
from bitlaw.data import escapes, seven_bit, tokens
from bitlaw.models import checkpoint, gguf_file
from gguf_files import CONTROL, LACKING, llama, qwen2, vocabulary_of, write

QUANTISED = {"blk.0.attn_q": "Q4_1", "blk.1.attn_k": "Q4_1", "blk.1.ffn_down": "Q8_0"}


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    return vocabulary_of(tokenizer)


@pytest.fixture(scope="module")
def original(vocabulary):
    return llama(vocabulary)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, original, vocabulary):
    folder = tmp_path_factory.mktemp("converted")
    gguf_file.convert(write(folder / "raw", original, vocabulary), folder / "model")
    return folder / "model"


def test_the_model_gives_the_logits_of_the_one_that_was_written(converted, original):
    model = checkpoint.load(converted)
    ids = torch.randint(0, model.vocabulary, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = original(ids).logits
    assert model.config.model_type == "llama" and model.context == 128
    assert torch.equal(model.hidden(ids), expected)


def test_tied_embeddings_count_once(converted, original):
    about = checkpoint.describe(converted)
    assert about["params_total"] == sum(p.numel() for p in original.parameters())
    assert about["params_total"] - about["params_nonembedding"] == original.config.vocab_size * 64


def test_a_head_of_its_own_is_kept(tmp_path, original, vocabulary):
    raw = write(tmp_path / "raw", original, vocabulary, tensors=["output.weight"])
    gguf_file.convert(raw, tmp_path / "model")
    assert json.loads((tmp_path / "model/config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in checkpoint.shapes(tmp_path / "model")


def test_quantised_weights_are_those_of_the_blocks(tmp_path, original, vocabulary):
    """Q4_1 (a step and an offset for 32 weights) and Q8_0 (a step for 32): off by half a step at most."""
    raw = write(tmp_path / "raw", original, vocabulary, QUANTISED)
    gguf_file.convert(raw, tmp_path / "model")
    model = checkpoint.load(tmp_path / "model").model.state_dict()
    for name, tensor in original.state_dict().items():
        off = (model[name] - tensor).abs().reshape(-1, 32)
        blocks = tensor.reshape(-1, 32)
        part = name.split(".")[-2]
        layer = name.split(".")[2] if "layers" in name else ""
        if (layer, part) in {("0", "q_proj"), ("1", "k_proj")}:
            step = (blocks.amax(1) - blocks.amin(1)) / 15
        elif (layer, part) == ("1", "down_proj"):
            step = blocks.abs().amax(1) / 127
        else:
            assert not off.any(), name
            continue
        assert off.any() and (off <= 0.51 * step[:, None] + 2e-3).all(), name


def test_its_tokenizer_gives_all_bytes_back(converted):
    tokenizer, spelling, _ = tokens.open_tokenizer(converted / "tokenizer.json")
    assert set(escapes.table(spelling)) == {*LACKING, "\x1f"}
    text = f"1862, 42 {CONTROL}hello\n<|im_st" + "".join(map(chr, range(128)))
    (ids,) = tokens.encode(tokenizer, spelling, [text])
    spelled = [spelling[i] for i in ids]
    assert escapes.read(escapes.table(spelling), b"".join(spelled)) == text.encode()
    assert spelled[:4] == [b"1", b"8", b"6", b"2"] and list(ids).count(0) == 1


@pytest.mark.parametrize("precision", ["exact", "fp32"])
def test_streams_of_the_model_decode(converted, precision):
    chunks = [bytes(range(256))[i:] + f"{CONTROL} 1862\x1f\x04".encode() for i in (0, 200)]
    tokenizer, spelling, sha256 = tokens.open_tokenizer(converted / "tokenizer.json")
    model = checkpoint.load(converted, precision)
    ids = tokens.encode(tokenizer, spelling, [seven_bit.to_ascii(chunk) for chunk in chunks])
    assert max(map(len, ids)) > model.context  # more than one window
    header = codec.header(model, checkpoint.describe(converted)["weights_sha256"], sha256, precision, len(chunks))
    if precision == "exact":
        scores = scoring.score(model, ids, None)
        records = [codec.record(chunk, own[:3]) for chunk, own in zip(chunks, scores, strict=True)]
    else:
        records = codec.encode_lockstep(model, header, chunks, ids)
    stream = stream_format.pack(header, records)
    assert codec.restore(stream, converted, converted / "tokenizer.json") == (b"".join(chunks), stream)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"architecture": "falcon"}, "tiny.gguf: architecture 'falcon'; only llama, qwen2 are converted"),
        (
            {"pre": "tekken"},
            "tokenizer 'gpt2' with pre-tokenizer 'tekken'; known are 'llama', and 'gpt2' with llama-bpe, ",
        ),
        ({"drop": ["llama.context_length"]}, "its metadata lack 'llama.context_length'"),
        ({"extra": {"llama.rope.scaling.factor": 2}}, "llama.rope.scaling.factor = 2; scaled rotary embeddings"),
        ({"tensors": ["blk.0.attn_q.bias"]}, "no place for the tensor 'blk.0.attn_q.bias' in a llama model"),
        ({"tensors": ["rope_freqs.weight"]}, "no place for the tensor 'rope_freqs.weight'"),
    ],
)
def test_what_is_not_known_is_refused_and_leaves_nothing(tmp_path, original, vocabulary, settings, line):
    raw = write(tmp_path / "raw", original, vocabulary, **settings)
    with pytest.raises(InputError) as caught:
        gguf_file.convert(raw, tmp_path / "model")
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_a_file_that_is_no_gguf_is_refused(tmp_path, original, vocabulary):
    raw = write(tmp_path / "raw", original, vocabulary)
    whole = (raw / "tiny.gguf").read_bytes()
    for damaged in (b"", b"no model at all, not one", whole[:2000], whole[:-100]):
        (raw / "tiny.gguf").write_bytes(damaged)
        with pytest.raises(InputError, match=r"tiny\.gguf: not a readable GGUF file"):
            gguf_file.convert(raw, tmp_path / "model")
    (raw / "source.json").write_text(json.dumps({"files": []}))
    with pytest.raises(InputError, match=r"holds 0 \*\.gguf files"):
        gguf_file.convert(raw, tmp_path / "model")


@pytest.mark.parametrize("pre", ["qwen2", "gpt-2", "llama-bpe"])
def test_a_qwen2_model_and_other_byte_level_tokenizers(tmp_path, vocabulary, pre):
    original = qwen2(vocabulary)
    gguf_file.convert(write(tmp_path / "raw", original, vocabulary, pre=pre), tmp_path / "model")
    model = checkpoint.load(tmp_path / "model")
    ids = torch.arange(60)[None] * 7 % model.vocabulary
    with torch.inference_mode():
        assert torch.equal(model.hidden(ids), original(ids).logits)
    exact = checkpoint.load(tmp_path / "model", "exact")
    (one,), (two,) = (scoring.score(m, [ids[0].numpy()], 1000) for m in (model, exact))
    assert np.abs(one.lengths - two.lengths).max() < 0.01
    tokenizer, spelling, _ = tokens.open_tokenizer(tmp_path / "model/tokenizer.json")
    text = "It's 1862, isn't it?\n\n  12345 x"
    (ids,), (anew,) = tokens.encode_counted(tokenizer, spelling, [text])
    assert b"".join(spelling[i] for i in ids).decode() == text and anew == 0
    assert tokens.prefix(tmp_path / "model/tokenizer.json", "auto") == (1 if pre == "llama-bpe" else None)


def sentencepiece():
    """A vocabulary in Llama-2's manner with scores: what was merged later has a lower one."""
    import vocabularies_of_families

    description = json.loads(vocabularies_of_families.llama2().to_str())
    words = sorted(description["model"]["vocab"], key=description["model"]["vocab"].get)
    rank = {"".join(pair): -float(i) for i, pair in reversed([*enumerate(description["model"]["merges"])])}
    return words, [rank.get(word, -1e6) for word in words]


@pytest.mark.parametrize("add_bos", [True, False, None])
def test_a_sentencepiece_tokenizer(tmp_path, add_bos):
    import vocabularies_of_families

    vocabulary = sentencepiece()
    assert vocabulary[0][:3] == ["<unk>", "<s>", "</s>"] and vocabulary[0][3] == "<0x00>"
    changes = {} if add_bos is None else {"add_bos": add_bos}
    gguf_file.convert(write(tmp_path / "raw", qwen2(vocabulary), vocabulary, **changes), tmp_path / "model")
    path = tmp_path / "model/tokenizer.json"
    tokenizer, spelling, _ = tokens.open_tokenizer(path)
    vocabularies_of_families.llama2().save(str(tmp_path / "reference.json"))
    reference = tokens.open_tokenizer(tmp_path / "reference.json")[0]
    for text in ("Alice was beginning to get very tired", "  \x00\t~ x", ""):
        (ids,), (anew,) = tokens.encode_counted(tokenizer, spelling, [text])
        assert b"".join(spelling[i] for i in ids).decode() == text and anew == 0
        assert ids.tolist() == reference.encode(text).ids
    assert tokens.prefix(path, "auto") == (None if add_bos is False else 1)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_weights_are_dequantised_exactly(tmp_path, original, vocabulary, kind):
    raw = write(tmp_path / "raw", original, vocabulary, {"blk.1.ffn_gate": kind})
    gguf_file.convert(raw, tmp_path / "model")
    weight = original.state_dict()["model.layers.1.mlp.gate_proj.weight"].numpy()
    number = gguf.GGMLQuantizationType[kind]
    found = checkpoint.load(tmp_path / "model").model.state_dict()["model.layers.1.mlp.gate_proj.weight"]
    assert np.array_equal(found.numpy(), gguf.dequantize(gguf.quantize(weight, number), number).astype(np.float32))


def of_q6_k(block):
    """float32 `[256]` of a block of 210 bytes: 4 low bits, 2 high bits, 16 scales and a half-precision factor."""
    low, high, scales = block[:128].reshape(2, 2, 32), block[128:192].reshape(2, 32), block[192:208].view(np.int8)
    factors = np.float32(block[208:].view(np.float16)[0]) * scales.astype(np.float32)
    whole = np.empty((2, 4, 32), dtype=np.int64)  # halves of the block, quarters of these
    for quarter in range(4):
        four = low[:, quarter % 2] >> (4 * (quarter // 2)) & 15
        whole[:, quarter] = (four | (high >> (2 * quarter) & 3) << 4).astype(np.int64) - 32
    return factors.repeat(16) * whole.reshape(256).astype(np.float32)


def test_weights_of_q6_k_are_dequantised_exactly(tmp_path, vocabulary):
    """Six bits, which the package reads and does not write."""
    random = np.random.default_rng(6)
    blocks = random.integers(0, 256, (64, 210), dtype=np.uint8)
    blocks[:, 208:] = (random.standard_normal(64) / 4096).astype("<f2").view(np.uint8).reshape(64, 2)
    wide = llama(vocabulary, intermediate_size=256)
    raw = write(tmp_path / "raw", wide, vocabulary, {"blk.1.ffn_down": ("Q6_K", blocks)})
    gguf_file.convert(raw, tmp_path / "model")
    found = checkpoint.load(tmp_path / "model").model.state_dict()["model.layers.1.mlp.down_proj.weight"]
    assert np.array_equal(found.numpy(), np.stack([of_q6_k(block) for block in blocks])) and found.std() > 0.1
