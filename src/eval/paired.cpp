#include "eval/paired.h"

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"

namespace cepe::eval {
namespace {

using ById = std::map<std::string, DocumentNll>;

[[noreturn]] void refuse(const std::string& message) { throw base::Error(base::ErrorCode::invalid_argument, message); }

ById by_id(const Measurement& measurement) {
  ById documents;
  for (const DocumentNll& document : measurement.documents) {
    if (!documents.emplace(document.id, document).second)
      refuse(measurement.where + ": document '" + document.id + "' occurs twice, so it cannot be paired");
  }
  return documents;
}

void check_targets(const DocumentNll& document, const DocumentNll& same, const Measurement& first,
                   const Measurement& second) {
  const std::string named = second.where + ": document '" + document.id + "' has ";
  if (same.tokens != document.tokens) {
    refuse(named + std::to_string(same.tokens) + " target tokens, and " + std::to_string(document.tokens) + " in " +
           first.where + ": not the same targets");
  }
  if (!same.targets.empty() && !document.targets.empty() && same.targets != document.targets) {
    refuse(named + "other target tokens than in " + first.where +
           ", so the two cannot be compared; give both runs of cepe eval lm the same --room, --seed, --samples, "
           "--decoder-tokens and --target-tokens, the same texts in the same order and the same tokenizer");
  }
}

// The mean nll of the document over the measurements; nothing where one of them lacks it.
std::optional<double> mean_nll(const DocumentNll& document, std::span<const ById> found, const Measurement& first,
                               std::span<const Measurement> second) {
  double sum = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const auto same = found[i].find(document.id);
    if (same == found[i].end()) return std::nullopt;
    check_targets(document, same->second, first, second[i]);
    sum += same->second.nll;
  }
  return sum / static_cast<double>(found.size());
}

std::optional<double> error_of_mean(const std::vector<double>& values, double mean) {
  if (values.size() < 2) return std::nullopt;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const auto count = static_cast<double>(values.size());
  return std::sqrt(squares / (count - 1) / count);
}

}  // namespace

double PairedDifference::percent() const { return 100 * std::expm1(mean); }

std::optional<double> PairedDifference::percent_error() const {
  if (!standard_error) return std::nullopt;
  return 100 * std::exp(mean) * *standard_error;
}

PairedDifference paired_difference(const Measurement& first, std::span<const Measurement> second) {
  if (second.empty()) refuse(first.where + ": nothing to compare it with");
  std::set<std::string> ids;
  for (const auto& [id, document] : by_id(first)) ids.insert(id);
  std::vector<ById> found;
  for (const Measurement& measurement : second) {
    found.push_back(by_id(measurement));
    for (const auto& [id, document] : found.back()) ids.insert(id);
  }
  std::vector<double> differences;
  double sum = 0;
  for (const DocumentNll& document : first.documents) {
    const std::optional<double> nll = mean_nll(document, found, first, second);
    if (!nll) continue;
    differences.push_back(*nll - document.nll);
    sum += differences.back();
  }
  if (differences.empty())
    refuse(first.where + " and " + second.front().where + ": no document is in all measurements");
  PairedDifference result;
  result.documents = static_cast<int64_t>(differences.size());
  result.unpaired = static_cast<int64_t>(ids.size()) - result.documents;
  result.mean = sum / static_cast<double>(differences.size());
  result.standard_error = error_of_mean(differences, result.mean);
  return result;
}

}  // namespace cepe::eval
