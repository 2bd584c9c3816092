// Answers a question about a text file with the default model and its adapter.  embed FILE QUESTION [DEVICE]
#include <cstdio>
#include <exception>

#include "base/files.h"
#include "context/chunk.h"
#include "engine/engine.h"
#include "engine/open.h"
#include "ops/device.h"

int main(int count, char** arguments) try {
  if (count < 3) return std::fprintf(stderr, "usage: embed FILE QUESTION [cpu|cuda|auto]\n"), 2;
  cepe::engine::OpenOptions options;
  options.models_folder = CEPE_MODELS;  // of the installed library
  options.load.device = cepe::ops::open_device(count > 3 ? arguments[3] : "cpu");
  const auto opened = cepe::engine::open(options);
  const cepe::text::Tokenizer& tokenizer = *opened->tokenizer;
  cepe::context::ContextStore& store = opened->context_store();  // an error without an adapter

  // The text becomes chunks, encoded now or found on disk where this or another program encoded them before.
  const auto ids = tokenizer.encode(cepe::base::read_file(arguments[1]));
  const auto chunks = cepe::context::split(ids, opened->model.adapter->chunk_size, 0);
  cepe::engine::Engine engine(opened->model, tokenizer);
  engine.set_context(store.get_or_encode(chunks));

  cepe::engine::Request request;
  request.prompt = tokenizer.encode(std::string("Question: ") + arguments[2] + "\nAnswer:", {.add_special = true});
  request.end_tokens = opened->end_tokens();
  request.stop = {"\n"};
  request.log_probabilities = 0;  // of the chosen tokens alone
  const cepe::engine::Completion answer = engine.generate(request);
  std::printf("%s\n", answer.text.c_str());
  std::fprintf(stderr, "%zu tokens read; ln p of the answer's first token %.6f\n", ids.size(),
               answer.log_probabilities.at(0).at(0).log_probability);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "embed: %s\n", error.what()), 1;
}
