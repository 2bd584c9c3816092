// RePlug against the published code.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "eval/replug.h"
#include "fixtures.h"
#include "golden_tensors.h"
#include "model/load.h"

namespace cepe::eval {
namespace {

TEST(ReplugParity, LogProbabilitiesOfEveryPosition) {
  const at::NoGradGuard none;
  std::vector<std::filesystem::path> folders;
  for (const auto& folder : test::cases("reference")) {
    const base::Json config = base::parse_json(base::read_file(folder / "config.json"), folder.string());
    if (config.at("architectures").at(0) == "LlamaForReplugCausalLM") folders.push_back(folder);
  }
  CEPE_SKIP_WITHOUT(folders);
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder);
    const test::Golden golden(folder / "case.safetensors");
    const model::Decoder decoder =
        model::load_decoder(model::open_model(folder), {model::WeightType::float32, at::kCPU, false});
    const at::Tensor inputs = golden.at("input_ids"), passages = golden.at("context_input_ids");
    for (int64_t b = 0; b < inputs.size(0); ++b) {
      const std::vector<at::Tensor> rows = passages[b].unbind(0);
      const at::Tensor found = replug_log_probabilities(decoder, rows, golden.at("context_scores")[b], inputs[b],
                                                        passages.size(2) + inputs.size(1));
      EXPECT_LE(test::distance(found, golden.at("log_probs")[b]), test::float_tolerance);
    }
  }
}

}  // namespace
}  // namespace cepe::eval
