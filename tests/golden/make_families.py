"""Makes the small golden set in tests/golden/families: three decoders with random weights, run by Hugging Face
transformers in float32. Needs PyPI's torch, transformers, safetensors. Usage: make_families.py [FOLDER]"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

SIZES = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 32, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
LENGTH, SHORTER, PROMPT, ANSWER = 44, 40, 30, 12


def models():
    """Folder -> configuration: plain Llama, and the two that differ most from it."""
    yield "llama", transformers.LlamaConfig(**SIZES, num_key_value_heads=2)
    yield "gemma3", transformers.Gemma3TextConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=12, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0)
    yield "gpt_neox", transformers.GPTNeoXConfig(**SIZES, rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})


def randomise(model, seed):
    """Weights large enough for the attention to be far from uniform, norms away from 1 and biases from 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name or "ln_" in name:
                weight.add_(0.2 * noise)
            else:
                weight.copy_(0.25 * noise)
    return model.float().eval()


def greedy(model, prompt, count):
    ids = prompt
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids[:, prompt.shape[1]:].contiguous()


def write_case(folder, config, seed):
    folder.mkdir(parents=True, exist_ok=True)
    config._attn_implementation = "eager"
    model = randomise(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32), seed)
    ids = torch.randint(3, config.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        case = {"input_ids": ids, "logits": model(ids).logits, "logits_first_40": model(ids[:, :SHORTER]).logits,
                "greedy_prompt": ids[:, :PROMPT].contiguous(), "greedy": greedy(model, ids[:, :PROMPT], ANSWER)}
    save_file(case, folder / "case.safetensors")
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "families")
    for number, (name, config) in enumerate(models()):
        write_case(root / name, config, 100 * number)
