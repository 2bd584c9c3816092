"""Golden cases of CEPE itself: an implementation of the method in plain PyTorch that shares no code with src/, made to
be read beside the paper (arXiv 2402.16617). Everything is computed in float64 and written in float32.
Needs PyPI's torch, numpy, safetensors. Usage:
  make_reference.py [FOLDER]          writes the cases (default: the folder `reference` beside this file)
  make_reference.py --check FOLDER... computes every output of the cases there anew and compares it with the files
Letters: B sequences, T decoder tokens, K chunks of S tokens, M = K*S, C decoder width, E encoder width, H query heads,
G key/value heads, D head width, V vocabulary, k listed teacher tokens."""

import json
import math
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, linear, silu

NO_LOSS = -100
GREEDY_STEPS = 16
TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 3e-5
# The two best logits of a greedy step differ by more than any implementation's rounding.
LEAST_GAP = 2e-3


# ---- The blocks -----------------------------------------------------------------------------------------------------

def rms_norm(x, weight, eps):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rotate(x, theta):
    """Rotary positions 0, 1, ... along dimension 1 of x [B, T, heads, D]; the pairs are (i, i + D/2)."""
    length, half = x.shape[1], x.shape[3] // 2
    frequency = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = (torch.arange(length, dtype=x.dtype)[:, None] * frequency)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


def attend(queries, keys, values, allowed):
    """queries [B, T, H, D], keys and values [B, U, G, D], allowed [B, T, U] or [B, 1, U] -> [B, T, H*D]. Query head h
    reads group h // (H/G). A row that may read nothing yields a mean of no meaning, not NaN."""
    share = queries.shape[2] // keys.shape[2]
    keys, values = (x.repeat_interleave(share, dim=2) for x in (keys, values))
    scores = torch.einsum("bthd,buhd->bhtu", queries, keys) / math.sqrt(queries.shape[3])
    scores = scores.masked_fill(~allowed[:, None], torch.finfo(scores.dtype).min)
    return torch.einsum("bhtu,buhd->bthd", scores.softmax(-1), values).flatten(2)


def head_width(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def heads_of(x, config):
    return x.unflatten(-1, (-1, head_width(config)))


def self_attention(weights, prefix, x, config, allowed):
    queries, keys, values = (heads_of(linear(x, weights[f"{prefix}.{part}_proj.weight"]), config) for part in "qkv")
    theta = config["rope_theta"]
    mixed = attend(rotate(queries, theta), rotate(keys, theta), values, allowed)
    return linear(mixed, weights[f"{prefix}.o_proj.weight"])


def cross_attention(weights, prefix, hidden, states, mask, config):
    """hidden [B, T, C] reads states [B, M, E] where mask [B, M]; no positions, no order. Where the mask is empty: 0."""
    x = rms_norm(hidden, weights[f"{prefix}.layernorm.weight"], config["rms_norm_eps"])
    queries = heads_of(linear(x, weights[f"{prefix}.q_proj.weight"]), config)
    keys, values = (heads_of(linear(states, weights[f"{prefix}.{part}_proj.weight"]), config) for part in "kv")
    found = linear(attend(queries, keys, values, mask[:, None]), weights[f"{prefix}.o_proj.weight"])
    return found * mask.any(1)[:, None, None]


def feed_forward(weights, prefix, x):
    gate, up = (linear(x, weights[f"{prefix}.{part}_proj.weight"]) for part in ("gate", "up"))
    return linear(silu(gate) * up, weights[f"{prefix}.down_proj.weight"])


def run_layers(weights, prefix, config, ids, allowed, context=None):
    """Llama blocks over ids [B, T]; context = (states [B, M, E], mask [B, M]) is read in the layers that have a
    cross-attention. Returns the normalised hidden states [B, T, C]."""
    eps = config["rms_norm_eps"]
    hidden = weights[f"{prefix}.embed_tokens.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}.layers.{number}"
        x = rms_norm(hidden, weights[f"{layer}.input_layernorm.weight"], eps)
        hidden = hidden + self_attention(weights, f"{layer}.self_attn", x, config, allowed)
        if context is not None and number >= config["num_hidden_layers"] - config["num_cross_attn_layers"]:
            hidden = hidden + cross_attention(weights, f"{layer}.cross_attn", hidden, *context, config)
        x = rms_norm(hidden, weights[f"{layer}.post_attention_layernorm.weight"], eps)
        hidden = hidden + feed_forward(weights, f"{layer}.mlp", x)
    return rms_norm(hidden, weights[f"{prefix}.norm.weight"], eps)


# ---- The models -----------------------------------------------------------------------------------------------------

def encode(weights, config, chunks, mask):
    """chunks and mask [B, K, S] -> states [B, K, S, E]: each chunk alone, both directions, positions from 0."""
    allowed = mask.bool().flatten(0, 1)[:, None]
    states = run_layers(weights, "encoder", config["encoder_config"], chunks.flatten(0, 1), allowed)
    return states.unflatten(0, chunks.shape[:2])


def output_weight(weights):
    return weights.get("lm_head.weight", weights["model.embed_tokens.weight"])


def decode(weights, config, ids, context=None):
    """Logits [B, T, V] of ids [B, T]."""
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()[None]
    return linear(run_layers(weights, "model", config, ids, causal, context), output_weight(weights))


def greedy(weights, config, prompt, context):
    """The likeliest continuation of prompt [B, T] -> ids [B, GREEDY_STEPS], and the smallest lead of a best logit."""
    ids, lead = prompt, math.inf
    for _ in range(GREEDY_STEPS):
        best = decode(weights, config, ids, context)[:, -1].topk(2)
        lead = min(lead, (best.values[:, 0] - best.values[:, 1]).min().item())
        ids = torch.cat([ids, best.indices[:, :1]], 1)
    return ids[:, prompt.shape[1]:], lead


def mlm_logits(weights, config, ids, mask):
    x = run_layers(weights, "model", config, ids, mask.bool()[:, None])
    x = silu(linear(x, weights["lm_dense.weight"], weights["lm_dense.bias"]))
    x = rms_norm(x, weights["lm_layer_norm.weight"], config["rms_norm_eps"])
    return linear(x, output_weight(weights), weights["lm_bias"])


# ---- The losses -----------------------------------------------------------------------------------------------------

def lm_loss(logits, labels):
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NO_LOSS)


def kl_loss(logits, teacher, index, mode):
    """KL(teacher || student) a position over the last floor(T/2) ones; teacher [B, Td, k+1], index [B, Td, k]. The last
    entry of both stands for all other tokens."""
    positions = logits.shape[1] // 2
    listed = logits[:, -positions:].softmax(-1).gather(-1, index)
    student = torch.cat([listed, (1 - listed.sum(-1, keepdim=True)).clamp_min(0)], -1)
    if mode == "drop":
        student, teacher = student[..., :-1], teacher[..., :-1]
    else:
        amount = float(mode.removeprefix("smooth_"))
        student, teacher = ((x + amount) / (1 + amount * teacher.shape[-1]) for x in (student, teacher))
    return (torch.xlogy(teacher, teacher) - torch.xlogy(teacher, student)).sum() / (logits.shape[0] * positions)


# ---- The outputs of a case ------------------------------------------------------------------------------------------

def gradients(loss, weights, prefix):
    """Gradients by name of the weights that want one. The graph stays for the next loss."""
    trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), retain_graph=True)
    return {prefix + name: gradient for name, gradient in zip(trained, found)}


def cepe_outputs(config, case, weights, tensors):
    for name, weight in weights.items():
        weight.requires_grad_(name.startswith("encoder.") or ".cross_attn." in name)
    ids, mask = tensors["input_ids"], tensors["encoder_attention_mask"].bool()
    states = encode(weights, config, tensors["encoder_input_ids"], mask)
    context = states.flatten(1, 2), mask.flatten(1)
    logits = decode(weights, config, ids, context)
    loss = lm_loss(logits, tensors["labels"])
    prompt = ids[:, :ids.shape[1] // 2]
    with torch.no_grad():
        answer, lead = greedy(weights, config, prompt, context)
        without = decode(weights, config, ids)
    found = {"encoder_states": states * mask[..., None], "logits": logits, "logits_without_context": without,
             "greedy_prompt": prompt, "greedy": answer, "lm_loss": loss}
    found |= gradients(loss, weights, "grad.")
    mode = case["kl_loss_mode"]
    if mode is not None:
        divergence = kl_loss(logits, tensors["distill_prob"], tensors["distill_index"], mode)
        total = config["lm_loss_cof"] * loss + config["kl_loss_cof"] * divergence
        found |= {"total_loss": total} | gradients(total, weights, "kl_grad.")
    return found, lead


def mlm_outputs(config, case, weights, tensors):
    for weight in weights.values():
        weight.requires_grad_()
    logits = mlm_logits(weights, config, tensors["input_ids"], tensors["attention_mask"])
    loss = cross_entropy(logits.flatten(0, 1), tensors["labels"].flatten(), ignore_index=NO_LOSS)
    return {"logits": logits, "loss": loss} | gradients(loss, weights, "grad."), math.inf


def replug_outputs(config, case, weights, tensors):
    """log of the mean over passages, weighted with softmax(scores), of each passage's own distribution."""
    found = []
    for ids, passages, scores in zip(tensors["input_ids"], tensors["context_input_ids"], tensors["context_scores"]):
        rows = torch.cat([passages, ids.expand(passages.shape[0], -1)], 1)
        each = decode(weights, config, rows).log_softmax(-1)
        found.append((each + scores.log_softmax(0)[:, None, None]).logsumexp(0))
    return {"log_probs": torch.stack(found)}, math.inf


# (config.json, case.json, weights, inputs) -> outputs by name, smallest lead of a greedy step; by architecture.
OUTPUTS = {"LlamaForCausalContextLM": cepe_outputs, "LlamaForMLM": mlm_outputs,
           "LlamaForReplugCausalLM": replug_outputs}


# ---- Files ----------------------------------------------------------------------------------------------------------

def read_tensors(path):
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}


def write_tensors(tensors, path):
    save_file({name: (tensor.detach().float() if tensor.is_floating_point() else tensor).clone().contiguous()
               for name, tensor in tensors.items()}, path)
    path.chmod(0o644)


def distance(found, golden):
    return ((found - golden).abs().max() / golden.abs().max().clamp_min(1e-300)).item()


def check_case(folder):
    """Whether every output in the folder's case.safetensors is what this file computes, and no output is missing."""
    config, case = (json.loads((folder / name).read_text()) for name in ("config.json", "case.json"))
    golden = read_tensors(folder / "case.safetensors")
    outputs = OUTPUTS[config["architectures"][0]]
    found, _ = outputs(config, case, read_tensors(folder / "model.safetensors"), golden)
    wrong, worst = [name for name in golden if "grad." in name and name not in found], {}
    for name, tensor in found.items():
        if name not in golden:
            wrong.append(name)
            continue
        expected = golden[name]
        if name == "encoder_states":  # rows of padding mean nothing
            real = golden["encoder_attention_mask"].bool()
            tensor, expected = tensor[real], expected[real]
        if name == "logits" and "attention_mask" in golden:
            real = golden["attention_mask"].bool()
            tensor, expected = tensor[real], expected[real]
        gap = distance(tensor.detach(), expected) if tensor.is_floating_point() else float(not tensor.equal(expected))
        kind = name.split(".")[0]
        worst[kind] = max(worst.get(kind, 0), gap)
        if not gap <= (GRADIENT_TOLERANCE if "grad." in name else TOLERANCE):
            wrong.append(name)
    print(folder, f"{len(found)} outputs,", ", ".join(f"{kind} {gap:.1e}" for kind, gap in worst.items()),
          f"WRONG: {wrong}" if wrong else "all right")
    return not wrong


# ---- The cases ------------------------------------------------------------------------------------------------------

def decoder_config(**changes):
    return {"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "bos_token_id": 1, "eos_token_id": 2,
            "tie_word_embeddings": False, "torch_dtype": "float32", "is_decoder": True} | changes


def encoder_config(**changes):
    """eps and theta far from the decoder's, so that taking the wrong ones shows."""
    return {"model_type": "llama", "vocab_size": 40, "hidden_size": 12, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 64,
            "rms_norm_eps": 1e-3, "rope_theta": 300.0, "rope_scaling": None, "is_decoder": False} | changes


def layer_shapes(prefix, config):
    width, inner, head = config["hidden_size"], config["intermediate_size"], head_width(config)
    queries, groups = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"input_layernorm": [width], "post_attention_layernorm": [width], "self_attn.q_proj": [queries, width],
              "self_attn.k_proj": [groups, width], "self_attn.v_proj": [groups, width],
              "self_attn.o_proj": [width, queries], "mlp.gate_proj": [inner, width], "mlp.up_proj": [inner, width],
              "mlp.down_proj": [width, inner]}
    cross = {"layernorm": [width], "q_proj": [queries, width], "o_proj": [width, queries]}
    if "encoder_config" in config:
        states = config["encoder_config"]["hidden_size"]
        cross |= {"k_proj": [groups, states], "v_proj": [groups, states]}
    found = {f"{prefix}.embed_tokens.weight": [config["vocab_size"], width], f"{prefix}.norm.weight": [width]}
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}.layers.{number}"
        found |= {f"{layer}.{name}.weight": shape for name, shape in shapes.items()}
        if "encoder_config" in config and number >= config["num_hidden_layers"] - config["num_cross_attn_layers"]:
            found |= {f"{layer}.cross_attn.{name}.weight": shape for name, shape in cross.items()}
    return found


def weight_shapes(config):
    width, vocabulary = config["hidden_size"], config["vocab_size"]
    found = layer_shapes("model", config)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = [vocabulary, width]
    if "encoder_config" in config:
        found |= layer_shapes("encoder", config["encoder_config"])
    if config["architectures"] == ["LlamaForMLM"]:
        found |= {"lm_dense.weight": [width, width], "lm_dense.bias": [width], "lm_layer_norm.weight": [width],
                  "lm_bias": [vocabulary]}
    return found


def random_weights(config, random):
    """Weights large enough for the attention to be far from uniform, norms away from 1 and biases from 0. Rounded to
    the float32 that is written before anything is computed with them."""
    found = {}
    for name, shape in weight_shapes(config).items():
        noise = torch.randn(shape, generator=random)
        found[name] = (1 + 0.2 * noise if "norm" in name else 0.35 * noise).double()
    return found


def random_ids(random, vocabulary, *shape):
    return torch.randint(3, vocabulary, shape, generator=random)


def random_teacher(random, batch, positions, vocabulary, listed):
    """Probabilities of the listed likeliest tokens and of all others together [B, Td, k+1]; their ids [B, Td, k]."""
    best = (2 * torch.randn(batch, positions, vocabulary, generator=random)).softmax(-1).topk(listed)
    return torch.cat([best.values, 1 - best.values.sum(-1, keepdim=True)], -1).double(), best.indices


def cepe_inputs(config, random, length, real_tokens, chunk_size, listed=5):
    """real_tokens [B][K]: how many tokens of each chunk are no padding. The first sequence has its padding in front, as
    context masking in training leaves it; the others have it behind."""
    batch = len(real_tokens)
    mask = torch.zeros(batch, len(real_tokens[0]), chunk_size, dtype=torch.int64)
    for sequence, chunks in enumerate(real_tokens):
        for chunk, real in enumerate(chunks):
            mask[sequence, chunk, slice(chunk_size - real, None) if sequence == 0 else slice(real)] = 1
    ids = random_ids(random, config["vocab_size"], batch, length)
    labels = ids.clone()
    labels[0, :length // 3] = NO_LOSS
    labels[-1, -1] = NO_LOSS
    probabilities, index = random_teacher(random, batch, length // 2, config["vocab_size"], listed)
    return {"input_ids": ids, "labels": labels, "encoder_attention_mask": mask,
            "encoder_input_ids": random_ids(random, config["encoder_config"]["vocab_size"], *mask.shape),
            "distill_prob": probabilities, "distill_index": index}


def cepe_case(mode, random, decoder, encoder, cross_layers, **inputs):
    config = decoder_config(architectures=["LlamaForCausalContextLM"], encoder_config=encoder_config(**encoder),
                            encoder_hidden_size=encoder["hidden_size"], num_cross_attn_layers=cross_layers,
                            do_cross_attention=True, kl_loss_mode=mode, kl_loss_cof=2.0, lm_loss_cof=1.0, **decoder)
    return config, {"kl_loss_mode": mode}, cepe_inputs(config, random, **inputs)


def grouped_heads(random):
    """Grouped heads, an encoder that knows more ids than the decoder, cross-attention in the last two of three layers;
    the second sequence lacks one chunk, the third has none."""
    return cepe_case("smooth_1e-4", random, {"num_attention_heads": 4, "num_hidden_layers": 3, "rope_theta": 50000.0},
                     {"vocab_size": 47, "hidden_size": 8}, cross_layers=2, length=15, chunk_size=7,
                     real_tokens=[[7, 4, 6], [5, 0, 7], [0, 0, 0]])


def one_chunk(random):
    """One chunk, cross-attention in every layer, heads wider together than the decoder (H*D > C), grouped heads in the
    encoder too, teacher's remainder dropped."""
    return cepe_case("drop", random, {"head_dim": 10}, {"hidden_size": 8, "num_attention_heads": 4}, cross_layers=2,
                     length=12, chunk_size=11, real_tokens=[[11], [8]])


def masked_language_model(random):
    """Output tied to the embeddings, [MASK] the last id, as published."""
    vocabulary, shape = 41, (3, 14)
    config = encoder_config(architectures=["LlamaForMLM"], vocab_size=vocabulary, tie_word_embeddings=True,
                            bos_token_id=1, eos_token_id=2, torch_dtype="float32")
    ids = random_ids(random, vocabulary - 1, *shape)
    mask = (torch.arange(shape[1]) < torch.tensor([[14], [11], [6]])).long()
    chosen = (torch.rand(shape, generator=random) < 0.3) & mask.bool()
    tensors = {"input_ids": torch.where(chosen, vocabulary - 1, ids), "attention_mask": mask,
               "labels": torch.where(chosen, ids, NO_LOSS)}
    return config, {"mask_token_id": vocabulary - 1}, tensors


def replug(random):
    config = decoder_config(architectures=["LlamaForReplugCausalLM"], num_attention_heads=4)
    return config, {}, {"input_ids": random_ids(random, 40, 2, 9), "context_input_ids": random_ids(random, 40, 2, 3, 6),
                        "context_scores": torch.randn(2, 3, generator=random).double()}


CASES = {"cepe-grouped-heads": (grouped_heads, 13), "cepe-one-chunk": (one_chunk, 12),
         "mlm-tied": (masked_language_model, 13), "replug-two-inputs": (replug, 14)}


def write_case(folder, make, seed):
    random = torch.Generator().manual_seed(seed)
    config, case, tensors = make(random)
    weights = random_weights(config, random)
    found, lead = OUTPUTS[config["architectures"][0]](config, case, weights, tensors)
    if lead < LEAST_GAP:
        raise SystemExit(f"{folder}: two logits of the greedy path are only {lead:.1e} apart; take another seed")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", config), ("case.json", case)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    write_tensors(weights, folder / "model.safetensors")
    write_tensors(tensors | found, folder / "case.safetensors")
    print(folder, f"smallest lead {lead:.2f}", sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def main(arguments):
    if arguments[:1] == ["--check"]:
        folders = [path.parent for root in arguments[1:] for path in sorted(pathlib.Path(root).rglob("case.json"))]
        if not folders:
            raise SystemExit("--check: no folder with a case.json in " + " ".join(arguments[1:]))
        raise SystemExit(0 if all([check_case(folder) for folder in folders]) else 1)
    target = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).parent / "reference"
    for name, (make, seed) in CASES.items():
        write_case(target / name, make, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
