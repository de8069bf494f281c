"""GGUF files to checkpoints: the logits of the model that was written, and one clear line for what is not known."""

import json

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bitlaw import InputError
from bitlaw.compression import codec, scoring, stream_format
from bitlaw.data import escapes, seven_bit, tokens
from bitlaw.models import checkpoint, gguf_file

CONTROL = "<|im_start|>"
LACKING = "\x04\x1d"
HEADS, KEY_HEADS = 4, 2
QUANTISED = {"blk.0.attn_q": "Q4_1", "blk.1.attn_k": "Q4_1", "blk.1.ffn_down": "Q8_0"}


@pytest.fixture(scope="module")
def vocabulary(tokenizer):
    """(tokens, merges) of the tests' tokenizer without LACKING, with a control token."""
    model = json.loads(tokenizer.to_str())["model"]
    spelt = {b: c for c, b in tokens._byte_symbols().items()}
    gone = {spelt[ord(symbol)] for symbol in LACKING}
    words = [CONTROL] + [word for word in model["vocab"] if not gone & set(word)]
    return words, [" ".join(pair) for pair in model["merges"] if not gone & set("".join(pair))]


@pytest.fixture(scope="module")
def original(vocabulary):
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(vocabulary[0]),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor += torch.randn_like(tensor) * (0.1 if "norm" in name else 0.2)
    return model


def interleaved(weight, heads):
    """As llama.cpp stores q and k: the two halves of a head's outputs alternate."""
    first, second = weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 0, 2, 3)
    return np.stack([first, second], axis=2).reshape(weight.shape)


def write(folder, original, vocabulary, types=None, extra=(), drop=(), tensors=(), **changes):
    """A GGUF file of the model in `folder`, with the source.json that a fetched source has."""
    folder.mkdir(exist_ok=True)
    c = original.config
    meta = {
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.block_count": c.num_hidden_layers,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KEY_HEADS,
        "llama.rope.dimension_count": c.hidden_size // HEADS,
        "llama.context_length": c.max_position_embeddings,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    writer = gguf.GGUFWriter(folder / "tiny.gguf", changes.get("architecture", "llama"))
    for key, value in {**meta, **dict(extra)}.items():
        if key not in drop:
            writer.add_uint32(key, value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", c.rms_norm_eps)
    writer.add_float32("llama.rope.freq_base", c.rope_parameters["rope_theta"])
    words, merges = vocabulary
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(words)
    writer.add_token_types([3] + [1] * (len(words) - 1))
    writer.add_token_merges(merges)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, tensor in original.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        values, name = tensor.numpy(), names.get_name(name.removesuffix(".weight"))
        heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(name.split(".")[-1])
        values = values if heads is None else interleaved(values, heads)
        if kind := (types or {}).get(name):
            kind = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", values)
    for name in tensors:
        writer.add_tensor(name, np.zeros(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (folder / "source.json").write_text(json.dumps({"files": [{"path": "tiny.gguf"}]}))
    return folder


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
        ({"architecture": "falcon"}, "tiny.gguf: architecture 'falcon'; only 'llama' is converted"),
        ({"pre": "llama-bpe"}, "tokenizer 'gpt2' with pre-tokenizer 'llama-bpe'; only 'gpt2' with 'smollm' is known"),
        ({"drop": ["llama.context_length"]}, "its metadata lack 'llama.context_length'"),
        ({"extra": {"llama.rope.scaling.factor": 2}}, "llama.rope.scaling.factor = 2; scaled rotary embeddings"),
        ({"tensors": ["blk.0.attn_q.bias"]}, "no place for the tensor 'blk.0.attn_q.bias' in a Llama model"),
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
