#include "cli/program.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <new>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "cli/completion_scripts.h"
#include "cli/generation_options.h"
#include "cli/processor.h"

namespace cepe::cli {
namespace {

using base::ErrorCode;
using testing::Contains;
using testing::HasSubstr;

template <class Exception>
Failure explained(const Exception& exception) {
  return explain(std::make_exception_ptr(exception));
}

TEST(Explain, UsersMistakesEndWithTwoAndFailuresWithOne) {
  for (const ErrorCode code : {ErrorCode::invalid_argument, ErrorCode::not_found, ErrorCode::corrupt,
                               ErrorCode::unsupported, ErrorCode::mismatch})
    EXPECT_EQ(explained(base::Error(code, "x")).exit_code, 2);
  for (const ErrorCode code : {ErrorCode::out_of_memory, ErrorCode::io, ErrorCode::internal})
    EXPECT_EQ(explained(base::Error(code, "x")).exit_code, 1);
}

TEST(Explain, InterruptEndsWith130AndSaysNothing) {
  const Failure failure = explained(base::Interrupted());
  EXPECT_EQ(failure.exit_code, 130);
  EXPECT_EQ(failure.message, "");
}

TEST(Explain, LackOfMemoryIsSaidPlainly) {
  EXPECT_THAT(explained(std::bad_alloc()).message, HasSubstr("not enough memory"));
  const c10::Error torch({"f", "f.cpp", 1},
                         "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes");
  EXPECT_THAT(explained(torch).message, HasSubstr("not enough memory"));
  EXPECT_EQ(explained(torch).exit_code, 1);
  const c10::Error cuda({"f", "f.cpp", 1}, "CUDA error: out of memory");
  EXPECT_THAT(explained(cuda).message, HasSubstr("not enough memory"));
  const c10::Error defect({"f", "f.cpp", 1}, "mat1 and mat2 shapes cannot be multiplied");
  EXPECT_THAT(explained(defect).message, HasSubstr("a defect of the program: mat1"));
}

TEST(Processor, WithoutAvx2IsRefusedByName) {
  EXPECT_EQ(missing_processor_feature({true, true, true}), "");
  EXPECT_EQ(missing_processor_feature({false, false, false}), "");
  EXPECT_THAT(missing_processor_feature({true, false, true}), HasSubstr("AVX2"));
  EXPECT_THAT(missing_processor_feature({true, true, false}), HasSubstr("FMA"));
}

TEST(Program, EveryCommandsHelpEndsWithAnExample) {
  CommonOptions options;
  const auto program = make_program(options);
  std::vector<const CLI::App*> commands = {program.get()};
  for (size_t i = 0; i < commands.size(); ++i) {
    EXPECT_THAT(commands[i]->get_footer(), HasSubstr("Example:\n  cepe")) << commands[i]->get_name();
    for (const CLI::App* below : commands[i]->get_subcommands([](const CLI::App*) { return true; }))
      commands.push_back(below);
  }
  EXPECT_GT(commands.size(), 10u);
}

TEST(Program, EveryCommandTakesTheCommonOptions) {
  CommonOptions options;
  const auto program = make_program(options);
  for (const CommandDescription& command : describe(*program)) {
    std::vector<std::string> names;
    for (const auto& option : command.options) names.push_back(option.name);
    for (const char* name :
         {"--device", "--dtype", "--threads", "--cache-dir", "--quiet", "--verbose", "--version", "--help"})
      EXPECT_THAT(names, Contains(name)) << command.path;
  }
}

TEST(Completion, EveryShellKnowsCommandsOptionsAndValues) {
  CommonOptions options;
  const auto commands = describe(*make_program(options));
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(shell, commands);
    for (const char* word : {"generate", "clear", "max-tokens", "float32"})
      EXPECT_THAT(script, HasSubstr(word)) << shell;
  }
  EXPECT_THROW(completion_script("tcsh", commands), base::Error);
}

TEST(DecoderWindow, LeavesRoomForTheAnswer) {
  GenerationOptions options;
  options.max_tokens = 100;
  EXPECT_EQ(decoder_window(options, 8192, false), 8092);
  EXPECT_EQ(decoder_window(options, 8192, true), 256);
  EXPECT_EQ(decoder_window(options, 256, true), 156);
  options.max_tokens = 100000;
  EXPECT_EQ(decoder_window(options, 256, false), 128);
  options.decoder_tokens = 17;
  EXPECT_EQ(decoder_window(options, 256, true), 17);
  options.decoder_tokens = 257;
  EXPECT_THROW(decoder_window(options, 256, true), base::Error);
}

TEST(Account, IsOfAllAnswersToOnePrompt) {
  std::vector<engine::Completion> answers(4);
  const auto came = [&](size_t answer, size_t tokens, double first, double further) {
    answers[answer].tokens.resize(tokens);
    answers[answer].prefill_seconds = first;
    answers[answer].decode_seconds = further;
  };
  came(0, 11, 2, 5);
  came(1, 1, 2, 0);
  came(3, 31, 4, 8);  // the third was cancelled before it began
  const Account account = account_of(answers, 500, 20, 3);
  EXPECT_EQ(account.generated_tokens, 43);
  EXPECT_DOUBLE_EQ(account.first_token_seconds, 5);
  EXPECT_DOUBLE_EQ(account.tokens_per_second, 40 / 10.0);
  const Account one = account_of(std::span(answers).first(1), 500, 20, 3);
  EXPECT_EQ(one.generated_tokens, 11);
  EXPECT_DOUBLE_EQ(one.tokens_per_second, 10 / 5.0);
  EXPECT_DOUBLE_EQ(account_of(std::span(answers).subspan(2, 1), 500, 20, 3).first_token_seconds, 3);
}

}  // namespace
}  // namespace cepe::cli
