#include "data/prepared_samples.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <string>

#include "base/error.h"
#include "data/random_numbers.h"
#include "data/sample_folders.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
using formats::NumpyArray;
using StoredSample = SampleFolders::Sample;

constexpr uint64_t order_key = 0x6f72646572;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

[[noreturn]] void unfit(const std::string& where, const NumpyArray& array, const std::string& expected) {
  throw Error(ErrorCode::invalid_argument, where + " has shape " + shape_text(array.shape) + "; " + expected);
}

// `count` ids from place `first` of all values.
std::vector<text::Token> ids_of(const NumpyArray& array, int64_t first, int64_t count, int64_t vocabulary,
                                const std::string& where) {
  std::vector<text::Token> ids(static_cast<size_t>(count));
  formats::read_integers(array, first, 0, vocabulary - 1, ids, where);
  return ids;
}

std::vector<text::Token> window_of(const StoredSample& sample, const PreparedSettings& settings) {
  const NumpyArray array = sample.array("token_ids");
  const std::string where = sample.where("token_ids");
  if (array.shape.size() != 1 || array.count() < settings.decoder_tokens) {
    unfit(where, array,
          "a window takes " + std::to_string(settings.decoder_tokens) + " tokens: lower decoder_tokens of the phase");
  }
  return ids_of(array, 0, settings.decoder_tokens, settings.vocabulary, where);
}

std::vector<text::Token> text_before(const StoredSample& sample, const PreparedSettings& settings) {
  const NumpyArray array = sample.array("prev_token_ids");
  const std::string where = sample.where("prev_token_ids");
  const int64_t wanted = settings.context_tokens;
  if (array.shape.size() != 1 || array.count() < wanted) {
    const int64_t whole = array.shape.size() == 1 ? array.count() / settings.chunk_tokens * settings.chunk_tokens : 0;
    unfit(where, array,
          "the phase's context_tokens are " + std::to_string(wanted) + ", and at most " + std::to_string(whole) +
              " fit (whole chunks of " + std::to_string(settings.chunk_tokens) + ")");
  }
  return ids_of(array, array.count() - wanted, wanted, settings.encoder_vocabulary, where);
}

void read_teacher(const StoredSample& sample, const PreparedSettings& settings, PreparedSample& out) {
  const NumpyArray probabilities = sample.array("target_prob"), indices = sample.array("target_index");
  const int64_t length = settings.decoder_tokens, positions = length / 2, top = settings.top;
  const auto check = [&](const char* column, const NumpyArray& array, int64_t width) {
    const bool rows_fit = array.shape.size() == 2 && (array.shape[0] == length || array.shape[0] == positions);
    if (rows_fit && array.shape[1] == width) return;
    unfit(sample.where(column), array,
          "expected " + shape_text({length, width}) + " or " + shape_text({positions, width}) + " (decoder_tokens " +
              std::to_string(length) + ", loss.top " + std::to_string(top) + ")");
  };
  check("target_prob", probabilities, top + 1);
  check("target_index", indices, top);
  const auto first = [&](const NumpyArray& array) { return (array.shape[0] - positions) * array.shape[1]; };
  out.indices = ids_of(indices, first(indices), positions * top, settings.vocabulary, sample.where("target_index"));
  out.probabilities.resize(static_cast<size_t>(positions * (top + 1)));
  const std::string where = sample.where("target_prob");
  formats::read_floats(probabilities, first(probabilities), out.probabilities, where);
  // float16 rounds: "all others" may have come out a little below 0.
  constexpr float slack = 2e-3F;
  for (size_t i = 0; i < out.probabilities.size(); ++i) {
    const float value = out.probabilities[i];
    if (value >= -slack && value <= 1 + slack) continue;  // false for NaN
    throw Error(ErrorCode::corrupt, where + ": " + std::to_string(value) + " at place " +
                                        std::to_string(first(probabilities) + static_cast<int64_t>(i)) +
                                        " is no probability");
  }
}

// A matrix of chunks. Lists of chunks of different lengths are pickled otherwise than matrices.
NumpyArray chunks_of(const StoredSample& sample, const char* column) {
  constexpr const char* remedy = "expected a matrix [K, S]: cut or leave out chunks of other lengths";
  try {
    NumpyArray array = sample.array(column);
    if (array.shape.size() != 2) unfit(sample.where(column), array, remedy);
    return array;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::unsupported || !sample.has(column)) throw;
    throw Error(ErrorCode::unsupported, std::string(error.what()) + "; " + remedy);
  }
}

// The chunks to take, the best last: by their scores, else in the order in which they stand.
std::vector<int64_t> best_chunks(const StoredSample& sample, int64_t there, int64_t wanted) {
  std::vector<int64_t> order(static_cast<size_t>(there));
  std::iota(order.begin(), order.end(), 0);
  if (sample.has("retrieval_scores")) {
    const NumpyArray array = sample.array("retrieval_scores");
    const std::string where = sample.where("retrieval_scores");
    if (array.shape.size() != 1 || array.count() < there)
      unfit(where, array, "expected a score for each of the " + std::to_string(there) + " retrieved chunks");
    std::vector<float> scores(static_cast<size_t>(there));
    formats::read_floats(array, 0, scores, where);
    if (!std::all_of(scores.begin(), scores.end(), [](float score) { return std::isfinite(score); }))
      throw Error(ErrorCode::corrupt, where + ": a score is not finite");
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
  }
  order.resize(static_cast<size_t>(wanted));
  std::reverse(order.begin(), order.end());
  return order;
}

// Ids of one chunk; negative ones are what some tools pad with.
std::vector<text::Token> chunk_at(const StoredSample& sample, const char* column, const NumpyArray& chunks,
                                  int64_t number, int64_t vocabulary) {
  const int64_t length = chunks.shape[1];
  try {
    return ids_of(chunks, number * length, length, vocabulary, sample.where(column));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::corrupt) throw;
    throw Error(ErrorCode::corrupt,
                std::string(error.what()) + ". Padding is not read: leave out chunks that are shorter than the others");
  }
}

std::vector<text::Token> retrieved_chunks(const StoredSample& sample, const PreparedSettings& settings) {
  constexpr const char *chunk_column = "retrieved_token_ids", *neighbour_column = "retrieved_neighbor_token_ids";
  const bool joint = settings.neighbours == Neighbours::joint, separate = settings.neighbours == Neighbours::separate;
  const NumpyArray chunks = chunks_of(sample, chunk_column);
  const std::optional<NumpyArray> neighbours =
      joint || separate ? std::optional(chunks_of(sample, neighbour_column)) : std::nullopt;
  const int64_t expected = settings.chunk_tokens, length = chunks.shape[1],
                added = neighbours ? neighbours->shape[1] : 0;
  if ((joint ? length + added : length) != expected)
    unfit(sample.where(chunk_column), chunks,
          "adapter.chunk_size is " + std::to_string(expected) + ", and must be the length of a chunk" +
              (joint ? " with its neighbour, " + std::to_string(length + added) : ""));
  if (separate && added != expected)
    unfit(sample.where(neighbour_column), *neighbours, "expected chunks of " + std::to_string(expected));
  const int64_t wanted = settings.context_tokens / expected / (separate ? 2 : 1);
  const int64_t there = neighbours ? std::min(chunks.shape[0], neighbours->shape[0]) : chunks.shape[0];
  if (there < wanted) {
    unfit(sample.where(chunk_column), chunks,
          "the phase's context_tokens ask for " + std::to_string(wanted) + " chunks: at most " +
              std::to_string(there * expected * (separate ? 2 : 1)) + " fit, or leave samples with fewer chunks out");
  }
  std::vector<text::Token> ids;
  for (const int64_t number : best_chunks(sample, there, wanted)) {
    const auto append = [&](const char* column, const NumpyArray& array) {
      const auto chunk = chunk_at(sample, column, array, number, settings.encoder_vocabulary);
      ids.insert(ids.end(), chunk.begin(), chunk.end());
    };
    append(chunk_column, chunks);
    if (neighbours) append(neighbour_column, *neighbours);
  }
  return ids;
}

const base::Path& first_given(const PreparedSettings& settings) {
  if (!settings.tokens.empty()) return settings.tokens;
  return settings.stored_logits.empty() ? settings.retrieved : settings.stored_logits;
}

}  // namespace

struct PreparedSamples::State {
  PreparedSettings settings;
  SampleFolders tokens;
  std::optional<SampleFolders> stored_logits, retrieved;

  explicit State(const PreparedSettings& given) : settings(given), tokens(first_given(given)) {
    open(given.stored_logits, stored_logits);
    open(given.retrieved, retrieved);
  }

  void open(const base::Path& path, std::optional<SampleFolders>& folders) {
    if (path.empty()) return;
    if (path == first_given(settings)) {
      folders = tokens;
    } else {
      folders.emplace(path).expect_parallel(tokens);
    }
  }
};

PreparedSamples::PreparedSamples(const PreparedSettings& settings) : state_(std::make_shared<const State>(settings)) {
  static_cast<void>(at(0));
}

int64_t PreparedSamples::size() const { return state_->tokens.size(); }

PreparedSample PreparedSamples::at(uint64_t index) const {
  const PreparedSettings& settings = state_->settings;
  const auto count = static_cast<uint64_t>(size());
  const auto number =
      static_cast<int64_t>(permuted(index % count, count, random_bits(settings.seed, index / count, order_key)));
  const StoredSample sample = state_->tokens.at(number);
  PreparedSample out;
  out.window = window_of(sample, settings);
  if (state_->retrieved) {
    out.context = retrieved_chunks(state_->retrieved->at(number), settings);
  } else if (settings.context_tokens > 0) {
    out.context = text_before(sample, settings);
  }
  if (state_->stored_logits) read_teacher(state_->stored_logits->at(number), settings, out);
  return out;
}

}  // namespace cepe::data
