// One answer that is being generated.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>

#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/stop_strings.h"

namespace cepe::engine {

// A request, shared by its answers.
struct Job {
  RequestId id = 0;
  Request request;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  int64_t answers = 1;                  // that have begun and not ended
  std::atomic<bool> cancelled = false;  // any thread
  std::exception_ptr failure;           // the first with which an answer ended, or that a callback threw
};

struct Sequence {
  Sequence(std::shared_ptr<Job> its_job, int64_t its_sample, ContextPointer its_context,
           const text::Tokenizer& tokenizer);
  // Makes the sampler. Apart, since it takes memory of the device: a request may come on any thread, and only that of
  // the steps uses the device.
  void begin(int64_t vocabulary, at::Device device);

  // Takes the next token: text, stop strings, callback. Sets `finish` where the answer ends. window: positions of the
  // decoder. Errors, with which the answer ends as cancelled: what the callback throws; corrupt, for no_token.
  void accept(const Choice& choice, int64_t window);
  // Ends the answer: on_finish is called, also for the answers that had not begun. Errors: the first that it throws,
  // once all are told.
  void conclude();

  Scheduled rows;  // what the scheduler sees
  std::shared_ptr<Job> job;
  std::vector<text::Token> tokens;  // of the decoder's window: text to read and what was generated
  ContextPointer context;
  std::optional<Sampler> sampler;
  StopStrings stops;
  text::StreamDecoder decoder;
  Completion completion;
  int64_t forks = 0;  // answers that will begin where this one has read the prompt
  // What the prompt has left for the next token, while the answer waits with the prompt's blocks: logits [1, V], and
  // the masses of its context's pages where wanted.
  at::Tensor logits;
  std::vector<float> masses;
  std::optional<Finish> finish;
  bool ended() const { return finish || job->cancelled; }
  std::chrono::steady_clock::time_point first_token;
};

}  // namespace cepe::engine
