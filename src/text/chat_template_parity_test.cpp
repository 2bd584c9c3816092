#include <gtest/gtest.h>

#include "base/files.h"
#include "fixtures.h"
#include "text/chat_template.h"

namespace cepe::text {
namespace {

std::vector<std::filesystem::path> own_cases() {
  std::vector<std::filesystem::path> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/chat", none))
    found.push_back(entry.path());
  return found;
}

// What a case gives the template: the tokens of its file, and variables of its own.
OrderedJson variables_of(const OrderedJson& file, const OrderedJson& one) {
  OrderedJson variables = one.contains("variables") ? one["variables"] : OrderedJson::object();
  variables["bos_token"] = file["bos_token"];
  variables["eos_token"] = file["eos_token"];
  return variables;
}

void check_file(const std::filesystem::path& path) {
  const OrderedJson file = base::parse_ordered_json(base::read_file(path), path.string());
  const ChatTemplate chat(file["template"].get<std::string>());
  int number = 0;
  for (const auto& one : file["cases"]) {
    SCOPED_TRACE(path.string() + ", case " + std::to_string(number++));
    const RenderedChat rendered =
        chat.render(one["messages"], one["add_generation_prompt"].get<bool>(), variables_of(file, one));
    EXPECT_EQ(rendered.text, one["rendered"].get<std::string>());
    EXPECT_EQ(rendered.literal_mask.size(), rendered.text.size());
  }
  EXPECT_GT(number, 0);
}

TEST(ChatTemplateParity, PublishedTemplatesRenderAsJinjaDoes) {
  const auto paths = test::cases("chat", ".json");
  CEPE_SKIP_WITHOUT(paths);
  for (const auto& path : paths) check_file(path);
}

TEST(ChatTemplateParity, OwnGoldenCasesRenderAsJinjaDoes) {
  const auto paths = own_cases();
  ASSERT_FALSE(paths.empty());
  for (const auto& path : paths) check_file(path);
}

}  // namespace
}  // namespace cepe::text
