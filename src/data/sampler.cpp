#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "data/mixture.h"
#include "data/random_numbers.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;

// From this many windows on a stretch gives one of them up, so that its phase may be anything from 0 to N - 1. Below,
// the loss would be felt, and the phase is what the remainder leaves free.
constexpr int64_t spare_from = 8;

struct Cut {
  int64_t windows = 0;
  int64_t phases = 1;  // how many there are: 0 to phases - 1
};

Cut cut_of(int64_t length, int64_t tokens) {
  int64_t windows = length / tokens;
  if (windows >= spare_from) windows = (length - (tokens - 1)) / tokens;
  return {windows, std::min(tokens, length - windows * tokens + 1)};
}

// Something that windows are cut from: one document, or all of a part's documents, one after the other.
struct Stretch {
  size_t first_document = 0;  // into Part::documents
  int64_t tokens = 0;
};

struct Part {
  uint64_t key = 0;                     // of its random numbers
  std::vector<int64_t> documents;       // indices into the corpus
  std::vector<int64_t> document_first;  // of each, and the end of the last: offsets in their concatenation
  std::vector<Stretch> stretches;
  std::vector<int64_t> window_first;  // of each stretch, and the end of the last

  uint64_t windows() const { return static_cast<uint64_t>(window_first.back()); }

  void add_stretch(size_t first_document, int64_t length, int64_t tokens) {
    stretches.push_back({first_document, length});
    window_first.push_back(window_first.back() + cut_of(length, tokens).windows);
  }
};

std::string name_of(const MixturePart& part) {
  return part.domain == "*" ? "* (all domains that no other part names)" : "'" + part.domain + "'";
}

// The first few, for a message.
std::string domains_of(const TokenCorpus& corpus) {
  constexpr size_t most = 8;
  std::set<std::string_view> domains;
  for (const CorpusDocument& document : corpus.documents()) domains.insert(document.domain);
  std::string names;
  size_t named = 0;
  for (const std::string_view domain : domains) {
    if (named++ == most) return names + "...";
    names += (names.empty() ? "'" : ", '") + std::string(domain) + "'";
  }
  return names;
}

void check_settings(const SamplerSettings& settings) {
  if (settings.tokens < 1)
    throw Error(ErrorCode::invalid_argument,
                "samples of " + std::to_string(settings.tokens) + " tokens; expected at least 1");
  if (!(settings.held_out >= 0 && settings.held_out < 1)) {
    throw Error(ErrorCode::invalid_argument,
                "held_out is " + std::to_string(settings.held_out) + "; expected a share from 0 to below 1");
  }
}

}  // namespace

bool is_held_out(const CorpusDocument& document, double share) {
  return fraction(random_bits(text_bits(document.id), 0x73706c6974)) < share;
}

struct Sampler::State {
  TokenCorpus corpus;
  SamplerSettings settings;
  Split split;
  MixtureOrder order;
  std::vector<Part> parts;

  void add_part(const MixturePart& wanted, const std::unordered_set<std::string_view>& named) {
    Part part;
    part.key = random_bits(settings.seed, parts.size(), static_cast<uint64_t>(split));
    part.document_first.push_back(0);
    part.window_first.push_back(0);
    if (wanted.weight > 0) {
      collect_documents(wanted, named, part);
      if (part.windows() == 0 && !settings.without_empty_parts) nothing_long_enough(wanted, part);
    }
    parts.push_back(std::move(part));
  }

  void collect_documents(const MixturePart& wanted, const std::unordered_set<std::string_view>& named,
                         Part& part) const {
    const auto documents = corpus.documents();
    for (size_t i = 0; i < documents.size(); ++i) {
      const CorpusDocument& document = documents[i];
      const bool ours = wanted.domain == "*" ? !named.contains(document.domain) : document.domain == wanted.domain;
      if (!ours || is_held_out(document, settings.held_out) != (split == Split::held_out)) continue;
      const bool long_enough = document.tokens >= settings.tokens;
      if (document.tokens == 0 || (wanted.whole_documents && !long_enough)) continue;
      if (wanted.whole_documents) part.add_stretch(part.documents.size(), document.tokens, settings.tokens);
      part.documents.push_back(static_cast<int64_t>(i));
      part.document_first.push_back(part.document_first.back() + document.tokens);
    }
    const int64_t joined = part.document_first.back();
    if (!wanted.whole_documents && joined >= settings.tokens) part.add_stretch(0, joined, settings.tokens);
  }

  bool has_documents(const MixturePart& wanted) const {
    const auto documents = corpus.documents();
    return std::any_of(documents.begin(), documents.end(), [&](const CorpusDocument& document) {
      return wanted.domain == "*" || document.domain == wanted.domain;
    });
  }

  [[noreturn]] void nothing_long_enough(const MixturePart& wanted, const Part& part) const {
    const char* of_split = split == Split::training ? "training" : "held-out";
    std::string message = "domain " + name_of(wanted) + " has, in the " + of_split + " split, ";
    if (wanted.whole_documents) {
      message += "no document of at least " + std::to_string(settings.tokens) + " tokens";
      if (split == Split::training && has_documents(wanted))
        message += "; a part of the mixture with whole_documents: false joins shorter ones";
    } else {
      message +=
          std::to_string(part.document_first.back()) + " tokens; a sample takes " + std::to_string(settings.tokens);
    }
    if (split == Split::held_out) message += "; a larger held_out sets more documents aside";
    if (wanted.domain != "*")
      message += "; the corpus has the domains " + domains_of(corpus) + " (an empty mixture takes all documents)";
    throw Error(ErrorCode::invalid_argument, message);
  }

  Sample window(const Part& part, uint64_t rank) const {
    const uint64_t epoch = rank / part.windows();
    const auto window = static_cast<int64_t>(
        permuted(rank % part.windows(), part.windows(), random_bits(part.key, epoch, 0x6f72646572)));
    const auto& starts = part.window_first;
    const auto stretch =
        static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), window) - starts.begin() - 1);
    const Cut cut = cut_of(part.stretches[stretch].tokens, settings.tokens);
    const auto phase = static_cast<int64_t>(
        below(random_bits(part.key, epoch, 0x7068617365, stretch), static_cast<uint64_t>(cut.phases)));
    const int64_t begin = part.document_first[part.stretches[stretch].first_document];
    return read(part, begin + phase + (window - starts[stretch]) * settings.tokens);
  }

  // N tokens from `first` of the concatenation of the part's documents.
  Sample read(const Part& part, int64_t first) const {
    const auto& starts = part.document_first;
    auto place = static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), first) - starts.begin() - 1);
    Sample sample{std::vector<text::Token>(static_cast<size_t>(settings.tokens)), part.documents[place]};
    std::span<text::Token> rest(sample.ids);
    for (; !rest.empty(); ++place) {
      const CorpusDocument& document = corpus.documents()[static_cast<size_t>(part.documents[place])];
      const auto here = std::min<size_t>(rest.size(), static_cast<size_t>(starts[place + 1] - first));
      corpus.read(document.first + (first - starts[place]), rest.first(here));
      rest = rest.subspan(here);
      first += static_cast<int64_t>(here);
    }
    return sample;
  }
};

namespace {

std::vector<double> weights_of(const std::vector<MixturePart>& mixture) {
  std::vector<double> weights;
  weights.reserve(mixture.size());
  for (const MixturePart& part : mixture) weights.push_back(part.weight);
  return weights;
}

}  // namespace

Sampler::Sampler(const TokenCorpus& corpus, const SamplerSettings& settings, Split split) {
  check_settings(settings);
  SamplerSettings complete = settings;
  if (complete.mixture.empty()) complete.mixture.emplace_back();
  std::vector<double> weights = weights_of(complete.mixture);
  auto state = std::make_shared<State>(State{corpus, complete, split, MixtureOrder(weights, settings.seed), {}});
  std::unordered_set<std::string_view> named;
  for (const MixturePart& part : complete.mixture) {
    if (part.domain != "*") named.insert(part.domain);
  }
  for (const MixturePart& part : complete.mixture) state->add_part(part, named);
  if (settings.without_empty_parts) {
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = state->parts[i].windows() > 0 ? weights[i] : 0;
    if (std::all_of(weights.begin(), weights.end(), [](double weight) { return weight == 0; }))
      state->nothing_long_enough(complete.mixture.front(), state->parts.front());
    state->order = MixtureOrder(weights, settings.seed);
  }
  state_ = std::move(state);
}

Sample Sampler::at(uint64_t index) const {
  const MixtureOrder::Place place = state_->order.at(index);
  return state_->window(state_->parts[place.part], place.rank);
}

int64_t Sampler::epoch_samples() const {
  double longest = 1;
  for (size_t i = 0; i < state_->parts.size(); ++i) {
    const uint64_t share = state_->order.share(i);
    if (share == 0) continue;
    const auto windows = static_cast<double>(state_->parts[i].windows());
    longest = std::max(longest, windows * static_cast<double>(MixtureOrder::period) / static_cast<double>(share));
  }
  return static_cast<int64_t>(std::ceil(std::min(longest, 9e18)));
}

}  // namespace cepe::data
