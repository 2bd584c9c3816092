"""Makes tests/golden/gguf: for each GGUF architecture a decoder of random weights as NAME.gguf (matrices Q8_0, norms
and biases F32) and what Hugging Face transformers computes in float32 with exactly those weights, dequantised
(NAME.safetensors: input_ids, logits). Names, row orders and fields as llama.cpp's converter writes them.
Needs PyPI's torch, transformers, safetensors, gguf. Usage: make_gguf.py [FOLDER]"""

import pathlib
import re
import sys

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from make_families import randomise

VOCABULARY, WIDTH, HEADS, GROUPS, HEAD_WIDTH, FEED_FORWARD, POSITIONS, LENGTH = 32, 32, 4, 2, 8, 32, 64, 20
SIZES = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS,
         "intermediate_size": FEED_FORWARD, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2}
# One layer keeps the files small; two where layers differ, or row orders and names of a second layer count.
GROUPED = {**SIZES, "num_key_value_heads": GROUPS}
DEEPER = {**GROUPED, "num_hidden_layers": 2}
WINDOWED = ["sliding_attention", "full_attention"]


def models():
    """Architecture -> configuration."""
    yield "llama", transformers.LlamaConfig(**DEEPER, rms_norm_eps=1e-5, rope_parameters={
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16})
    yield "qwen2", transformers.Qwen2Config(**GROUPED)
    yield "qwen3", transformers.Qwen3Config(**GROUPED, head_dim=HEAD_WIDTH, rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16})
    yield "gemma3", transformers.Gemma3TextConfig(
        **DEEPER, head_dim=HEAD_WIDTH, query_pre_attn_scalar=HEAD_WIDTH, sliding_window=6, layer_types=WINDOWED,
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                         "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 2.0}})
    yield "phi3", transformers.Phi3Config(**GROUPED, sliding_window=7)
    yield "gpt2", transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=1, n_head=HEADS, n_inner=FEED_FORWARD, n_positions=POSITIONS,
        bos_token_id=1, eos_token_id=2)
    yield "gptneox", transformers.GPTNeoXConfig(**SIZES, use_parallel_residual=False, rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})
    yield "olmo2", transformers.Olmo2Config(**GROUPED)


NAMES = [  # Hugging Face -> GGUF, tried in order
    (r"^(model|transformer|gpt_neox)\.", ""),
    (r"^(embed_tokens|wte|embed_in)\.", "token_embd."), (r"^wpe\.", "position_embd."),
    (r"^(norm|ln_f|final_layer_norm)\.", "output_norm."), (r"^(lm_head|embed_out)\.", "output."),
    (r"^(layers|h)\.", "blk."), (r"\.(self_attn|attention|attn|mlp)\.", "."),
    (r"\.(input_layernorm|ln_1)\.", ".attn_norm."), (r"\.(pre_feedforward_layernorm|ln_2)\.", ".ffn_norm."),
    (r"\.post_feedforward_layernorm\.", ".post_ffw_norm."),
    (r"\.(qkv_proj|c_attn|query_key_value)\.", ".attn_qkv."), (r"\.([qkv])_proj\.", r".attn_\1."),
    (r"\.([qk])_norm\.", r".attn_\1_norm."), (r"\.(o_proj|dense)\.", ".attn_output."),
    (r"\.gate_proj\.", ".ffn_gate."), (r"\.(up_proj|gate_up_proj|c_fc|dense_h_to_4h)\.", ".ffn_up."),
    (r"\.(down_proj|dense_4h_to_h)\.", ".ffn_down."),
]


def gguf_name(architecture, name):
    if architecture == "gpt2":  # both blocks end in a c_proj
        name = name.replace("attn.c_proj", "attn.o_proj").replace("mlp.c_proj", "mlp.down_proj")
    after = architecture in ("gemma3", "olmo2")
    name = name.replace("post_attention_layernorm", "post_attention_norm" if after else "ffn_norm")
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def row_order(architecture, name, rows):
    """The rows of the Hugging Face tensor in the order of the file, or None."""
    index = torch.arange(rows)
    if architecture == "llama" and re.search(r"[qk]_proj", name):
        return index.view(-1, 2, HEAD_WIDTH // 2).transpose(1, 2).reshape(-1)  # halves of a head -> pairs
    if architecture == "gptneox" and "query_key_value" in name:
        return index.view(HEADS, 3, -1).transpose(0, 1).reshape(-1)  # [H, 3, D] -> [q; k; v]
    return None


def add_weights(writer, architecture, model):
    """Writes every parameter, and gives it the value that the file holds."""
    for name, weight in model.named_parameters():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        transposed = architecture == "gpt2" and re.search(r"c_(attn|proj|fc)\.weight", name)
        value = weight.data.t() if transposed else weight.data
        order = row_order(architecture, name, value.shape[0])
        if order is not None:
            value = value[order]
        offset = 1 if architecture == "gemma3" and "norm" in name else 0
        array = (value + offset).contiguous().numpy().astype(numpy.float32)
        kind = GGMLQuantizationType.Q8_0 if array.ndim == 2 else GGMLQuantizationType.F32
        packed = quantize(array, kind)
        writer.add_tensor(gguf_name(architecture, name), packed, raw_dtype=kind)
        value = torch.from_numpy(dequantize(packed, kind).copy()) - offset
        if order is not None:
            value = value[torch.argsort(order)]
        weight.data.copy_(value.t() if transposed else value)


def add_rope(writer, architecture, model):
    """Llama 3's scaling stands as divisors in a tensor, the others' as fields."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if "rope_theta" in rope and architecture != "gptneox":
        writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        scaled = model.model.rotary_emb.inv_freq
        plain = 1 / rope["rope_theta"] ** (torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy().astype(numpy.float32))
    elif kind != "default":
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def add_fields(writer, architecture, config):
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    if architecture in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(GROUPS)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if architecture == "gptneox":
        writer.add_rope_dimension_count(HEAD_WIDTH // 2)
        writer.add_parallel_residual(config.use_parallel_residual)
    if architecture in ("qwen3", "gemma3"):
        writer.add_key_length(HEAD_WIDTH)
        writer.add_value_length(HEAD_WIDTH)
    if architecture in ("gemma3", "phi3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma3":
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(VOCABULARY)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_case(folder, architecture, config, seed):
    config._attn_implementation = "eager"
    model = randomise(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32), seed)
    writer = gguf.GGUFWriter(folder / f"{architecture}.gguf", architecture)
    add_fields(writer, architecture, config)
    add_rope(writer, architecture, model)
    with torch.no_grad():
        add_weights(writer, architecture, model)
        ids = torch.randint(3, VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(seed + 1))
        save_file({"input_ids": ids, "logits": model(ids).logits}, folder / f"{architecture}.safetensors")
    (folder / f"{architecture}.safetensors").chmod(0o644)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "gguf")
    root.mkdir(parents=True, exist_ok=True)
    for number, (architecture, config) in enumerate(models()):
        write_case(root, architecture, config, 1000 + 100 * number)
