#include "engine/sequence.h"

#include <algorithm>

#include "base/error.h"

namespace cepe::engine {
namespace {

double seconds_between(std::chrono::steady_clock::time_point start, std::chrono::steady_clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

Sampling with_seed(Sampling sampling, int64_t sample) {
  sampling.seed += static_cast<uint64_t>(sample);
  return sampling;
}

}  // namespace

std::string_view name_of(Finish finish) {
  switch (finish) {
    case Finish::stop:
      return "stop";
    case Finish::length:
      return "length";
    case Finish::window:
      return "window";
    default:
      return "cancelled";
  }
}

Sequence::Sequence(std::shared_ptr<Job> its_job, int64_t its_sample, ContextPointer its_context,
                   const text::Tokenizer& tokenizer)
    : job(std::move(its_job)),
      tokens(job->request.prompt),
      context(std::move(its_context)),
      stops(job->request.stop),
      decoder(tokenizer) {
  completion.sample = its_sample;
  rows.priority = job->request.priority;
  rows.length = rows.text = static_cast<int64_t>(tokens.size());
}

void Sequence::begin(int64_t vocabulary, at::Device device) {
  sampler.emplace(with_seed(job->request.sampling, completion.sample), job->request.prompt, vocabulary, device);
}

void Sequence::accept(const Choice& choice, int64_t window) {
  if (choice.token == no_token) {
    finish = Finish::cancelled;
    throw base::Error(base::ErrorCode::corrupt,
                      "no next token: the model's logits are not numbers (NaN), so weights of the decoder or the "
                      "adapter, or encoded chunks, are damaged; `cepe store verify` checks the chunks");
  }
  const Request& request = job->request;
  const auto now = std::chrono::steady_clock::now();
  if (completion.tokens.empty()) {
    completion.prefill_seconds = seconds_between(job->start, now);
    first_token = now;
  }
  completion.decode_seconds = seconds_between(first_token, now);
  tokens.push_back(choice.token);
  rows.length = static_cast<int64_t>(tokens.size());
  completion.tokens.push_back(choice.token);
  if (request.log_probabilities >= 0) completion.log_probabilities.push_back(choice.log_probabilities);

  const bool ends =
      std::find(request.end_tokens.begin(), request.end_tokens.end(), choice.token) != request.end_tokens.end();
  Step step = {choice.token, {}, choice.log_probabilities, completion.sample};
  if (!ends) step.text = stops.put(decoder.put(step.token));
  const bool full = static_cast<int64_t>(completion.tokens.size()) >= request.max_tokens;
  const bool used_up = rows.length > window && !request.endless.store;
  if ((ends || full || used_up) && !stops.stopped) {
    step.text += stops.put(decoder.finish());
    step.text += stops.finish();
  }
  completion.text += step.text;
  if (ends || stops.stopped)
    finish = Finish::stop;
  else if (full || used_up)
    finish = full ? Finish::length : Finish::window;
  try {
    const bool goes_on = !request.on_step || request.on_step(step);
    if (!goes_on && !finish) finish = Finish::cancelled;
  } catch (...) {
    finish = Finish::cancelled;
    throw;
  }
}

void Sequence::conclude() {
  completion.finish = finish.value_or(Finish::cancelled);
  if (!job->request.on_finish) return;
  std::exception_ptr first_error;
  const auto tell = [&](const Completion& one) {
    try {
      job->request.on_finish(one);
    } catch (...) {
      if (!first_error) first_error = std::current_exception();
    }
  };
  tell(completion);
  for (int64_t next = 1; next <= forks; ++next) {  // answers that had not begun
    Completion empty;
    empty.finish = completion.finish;
    empty.sample = completion.sample + next;
    tell(empty);
  }
  if (first_error) std::rethrow_exception(first_error);
}

}  // namespace cepe::engine
