#include "cli/cut_files.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/files.h"
#include "cli/program.h"
#include "temporary_folder.h"

namespace cepe::cli {
namespace {

TEST(CutFiles, AFileThatIsCutShortWhileItIsReadEndsTheProgramByItsNameAsATerminalMayHaveIt) {
  const test::TemporaryFolder folder;
  const base::Path path = folder.path() / "ein gr\xc3\xb6\xc3\x9f\x1b[2Jres\xc2\x9b.gguf",
                   other = folder.path() / "\xc3\xa4nderes";
  std::ofstream(path) << std::string(100'000, 'x');
  std::ofstream(other) << "whole";
  const auto read_cut_file = [&] {
    explain_cut_files();
    const base::MappedFile before(other), file(path), behind(other);
    std::filesystem::resize_file(path, 10);
    const volatile std::byte* const bytes = file.bytes().data();
    static_cast<void>(bytes[9]);
    std::fputs("begun; ", stderr);
    static_cast<void>(bytes[50'000]);
  };
  EXPECT_EXIT(read_cut_file(), testing::ExitedWithCode(exit_failure),
              "^begun; error: " + folder.path().string() + "/ein gr\xc3\xb6\xc3\x9f" +
                  R"(\\x1b\[2Jres\\x9b\.gguf: was cut short)");
}

TEST(CutFiles, AnyOtherBusErrorEndsTheProgramByTheSignal) {
  const auto fail = [] {
    explain_cut_files();
    std::raise(SIGBUS);
  };
  EXPECT_EXIT(fail(), testing::KilledBySignal(SIGBUS), "^$");
}

}  // namespace
}  // namespace cepe::cli
