// Where the golden cases are: CEPE_FIXTURES, else ../shared/fixtures beside the repository, else the small set in
// tests/golden. Tests run with the repository's root as their working folder.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace cepe::test {

inline std::filesystem::path fixtures() {
  if (const char* folder = std::getenv("CEPE_FIXTURES"); folder && *folder) return folder;
  if (std::filesystem::is_directory("../shared/fixtures")) return "../shared/fixtures";
  return "tests/golden";
}

// The sub-folders (or, with an extension, files) of fixtures()/kind, sorted; empty where the set has none of that kind.
inline std::vector<std::filesystem::path> cases(const std::string& kind, const std::string& extension = "") {
  std::vector<std::filesystem::path> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(fixtures() / kind, none)) {
    if (extension.empty() ? entry.is_directory() : entry.path().extension() == extension) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace cepe::test

// A test that finds no case says so instead of passing silently.
#define CEPE_SKIP_WITHOUT(cases_) \
  if ((cases_).empty()) GTEST_SKIP() << "no golden cases of this kind in " << cepe::test::fixtures()
