"""A Llama of a few thousand random weights with a tokenizer of single bytes: enough to run every command in a second."""
import json
import random
import struct
from pathlib import Path

WIDTH, LAYERS, HEADS, GROUPS, FEED_FORWARD, POSITIONS = 32, 3, 4, 2, 48, 4096
SPECIAL = ["<|end|>", "<|start|>"]
VOCABULARY = 256 + len(SPECIAL)
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def byte_characters():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    characters, extra = {byte: chr(byte) for byte in plain}, 0
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(256 + extra)
            extra += 1
    return characters


def write_safetensors(path, tensors):
    """tensors: {name: (shape, [float])}, as float32."""
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    raw = Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


def llama_block(name, width, rows, keys, feed_forward):
    return {
        f"{name}input_layernorm.weight": [width],
        f"{name}self_attn.q_proj.weight": [rows, width],
        f"{name}self_attn.k_proj.weight": [keys, width],
        f"{name}self_attn.v_proj.weight": [keys, width],
        f"{name}self_attn.o_proj.weight": [width, rows],
        f"{name}post_attention_layernorm.weight": [width],
        f"{name}mlp.gate_proj.weight": [feed_forward, width],
        f"{name}mlp.up_proj.weight": [feed_forward, width],
        f"{name}mlp.down_proj.weight": [width, feed_forward],
    }


def write_tokenizer(folder):
    characters = byte_characters()
    added = [
        {"id": 256 + i, "content": token, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for i, token in enumerate(SPECIAL)
    ]
    tokenizer = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {characters[byte]: byte for byte in range(256)}, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL[0], "chat_template": TEMPLATE}))


def make(folder, seed=1):
    """Writes the model; returns its folder."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    keys = GROUPS * WIDTH // HEADS
    shapes = {"model.embed_tokens.weight": [VOCABULARY, WIDTH]}
    for layer in range(LAYERS):
        shapes |= llama_block(f"model.layers.{layer}.", WIDTH, WIDTH, keys, FEED_FORWARD)
    shapes |= {"model.norm.weight": [WIDTH], "lm_head.weight": [VOCABULARY, WIDTH]}
    chance = random.Random(seed)
    tensors = {}
    for name, shape in shapes.items():
        count = shape[0] if len(shape) == 1 else shape[0] * shape[1]
        tensors[name] = (shape, [1.0 if len(shape) == 1 else chance.gauss(0, 0.3) for _ in range(count)])
    write_safetensors(folder / "model.safetensors", tensors)
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": VOCABULARY, "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": POSITIONS, "tie_word_embeddings": False, "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder
