#include "model/cepe_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/nonzero.h>

namespace cepe::model {

void visit(Adapter& adapter, const std::function<void(const std::string&, at::Tensor&)>& visitor) {
  visit(adapter.encoder, "encoder.", visitor);
  for (size_t i = 0; i < adapter.cross_attention.size(); ++i) {
    if (adapter.cross_attention[i])
      visit(*adapter.cross_attention[i], "model.layers." + std::to_string(i) + ".cross_attn.", visitor);
  }
}

HeadShape head_shape(const DecoderConfig& config) { return {config.heads, config.groups, config.head_width}; }

std::vector<const CrossAttention*> cross_attention_blocks(const CepeModel& model) {
  std::vector<const CrossAttention*> blocks;
  if (!model.adapter) return blocks;
  for (const auto& block : model.adapter->cross_attention) blocks.push_back(block ? &*block : nullptr);
  return blocks;
}

int64_t cross_attention_layers(const CepeModel& model) {
  if (!model.adapter) return 0;
  const auto& blocks = model.adapter->cross_attention;
  return std::count_if(blocks.begin(), blocks.end(), [](const auto& block) { return block.has_value(); });
}

std::vector<ContextStates> encode_chunks(const Encoder& encoder, const at::Tensor& chunks, const at::Tensor& mask) {
  const int64_t batch = chunks.size(0), per_sequence = chunks.size(1), length = chunks.size(2);
  std::vector<ContextStates> contexts(static_cast<size_t>(batch));
  const at::Tensor flat = chunks.reshape({-1, length});
  if (!mask.defined()) {
    const at::Tensor states = forward(encoder, flat).reshape({batch, per_sequence * length, -1});
    for (int64_t b = 0; b < batch; ++b) contexts[static_cast<size_t>(b)].append(states[b]);
    return contexts;
  }
  const at::Tensor real = mask.ne(0).reshape({-1, length});     // [B * K, S]
  const at::Tensor present = real.any(1).nonzero().squeeze(1);  // chunks with any real token
  if (present.size(0) == 0) return contexts;
  const at::Tensor present_mask = real.index_select(0, present);
  const at::Tensor states = forward(encoder, flat.index_select(0, present), present_mask);  // [n, S, E]
  const at::Tensor owners = present.to(at::kCPU);
  for (int64_t i = 0; i < present.size(0); ++i) {
    const at::Tensor rows = present_mask[i].nonzero().squeeze(1);
    contexts[static_cast<size_t>(owners[i].item<int64_t>() / per_sequence)].append(states[i].index_select(0, rows));
  }
  return contexts;
}

at::Tensor forward(const CepeModel& model, const at::Tensor& tokens, const std::vector<ContextStates>& contexts,
                   CrossAttentionPath path) {
  CrossAttentionInput cross;
  cross.blocks = cross_attention_blocks(model);
  for (const ContextStates& context : contexts) cross.contexts.push_back(&context);
  cross.path = path;
  const at::Tensor hidden = forward(model.decoder, uniform_layout(tokens), nullptr, cross);
  return hidden.reshape({tokens.size(0), tokens.size(1), -1});
}

void visit_parameters(Adapter& adapter, const std::function<void(at::Tensor&)>& visitor) {
  visit_parameters(adapter.encoder, visitor);
  for (auto& block : adapter.cross_attention) {
    if (block) visit(*block, "", [&](const std::string&, at::Tensor& parameter) { visitor(parameter); });
  }
}

}  // namespace cepe::model
