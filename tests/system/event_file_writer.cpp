// event_file_writer FOLDER [RESUME_AFTER_STEP]: reads lines "tag step value" and writes them as an event file.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <optional>
#include <string>

#include "train/event_file.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: event_file_writer FOLDER [RESUME_AFTER_STEP]\n", stderr);
    return 2;
  }
  try {
    cepe::train::EventFile file(argv[1], argc > 2 ? std::optional<int64_t>(std::stoll(argv[2])) : std::nullopt);
    std::string tag, value;
    int64_t step = 0;
    while (std::cin >> tag >> step >> value) file.scalar(tag, step, std::stod(value));
    file.flush();
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "error: %s\n", problem.what());
    return 1;
  }
  return 0;
}
