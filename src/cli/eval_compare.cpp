// cepe eval compare: two or more outputs of cepe eval lm --json --by-document, compared document by document.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/parse_values.h"
#include "cli/commands.h"
#include "cli/standard_streams.h"
#include "data/line_reader.h"
#include "eval/paired.h"

namespace cepe::cli {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t max_line_bytes = size_t{64} << 20;
constexpr double max_nll = 700;  // e^700 is about the largest perplexity that a double holds

struct CompareOptions {
  std::string first;
  std::vector<std::string> second;
  std::string lengths;  // empty: those that all files have
  bool json = false;
};

using ByLength = std::map<int64_t, eval::Measurement>;
using LengthPairs = std::vector<std::pair<int64_t, int64_t>>;

eval::DocumentNll parse_document(const base::Json& json, const std::string& where) {
  eval::DocumentNll document = {base::json_string(json, "id", where), base::json_number(json, "nll", where),
                                base::json_integer(json, "tokens", where),
                                base::json_string(json, "targets", where, "")};
  const std::string named = where + ": document '" + document.id + "': ";
  if (document.nll < -max_nll || document.nll > max_nll)
    throw Error(ErrorCode::corrupt, named + "nll " + std::to_string(document.nll) + " is none of a text");
  if (document.tokens < 1)
    throw Error(ErrorCode::corrupt, named + "tokens " + std::to_string(document.tokens) + ": must be at least 1");
  return document;
}

eval::Measurement parse_measurement(const std::string& line, const std::string& where) {
  const base::Json json = base::parse_json(line, where);
  eval::Measurement measurement = {where, base::json_integer(json, "context_tokens", where), {}};
  if (!base::json_has(json, "by_document") || !json["by_document"].is_array()) {
    throw Error(ErrorCode::corrupt, where +
                                        ": no array 'by_document'; it is there where cepe eval lm is run with "
                                        "--json --by-document");
  }
  for (const base::Json& document : json["by_document"])
    measurement.documents.push_back(parse_document(document, where));
  return measurement;
}

ByLength read_measurements(const std::string& file) {
  data::LineReader lines(data::open_source(file), max_line_bytes);
  ByLength measurements;
  std::string line;
  for (auto status = lines.next(line); status != data::LineReader::Status::end; status = lines.next(line)) {
    const std::string where = file + ":" + std::to_string(lines.number());
    if (status == data::LineReader::Status::too_long)
      throw Error(ErrorCode::corrupt, where + ": a line of more than " + std::to_string(max_line_bytes) + " bytes");
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    eval::Measurement measurement = parse_measurement(line, where);
    const auto [place, added] = measurements.emplace(measurement.context_tokens, measurement);
    if (!added) {
      throw Error(ErrorCode::corrupt, where + ": context_tokens " + std::to_string(measurement.context_tokens) +
                                          " is also in " + place->second.where);
    }
  }
  if (measurements.empty()) throw Error(ErrorCode::corrupt, file + ": no results of cepe eval lm in it");
  return measurements;
}

// "2048:8192,0:0". Errors: invalid_argument.
LengthPairs parse_length_pairs(const std::string& text) {
  LengthPairs pairs;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) {
    const size_t colon = part.find(':');
    if (colon == std::string::npos)
      throw Error(ErrorCode::invalid_argument, "--lengths '" + text + "': expected pairs such as 2K:8K");
    pairs.emplace_back(base::parse_counts(part.substr(0, colon), "--lengths").front(),
                       base::parse_counts(part.substr(colon + 1), "--lengths").front());
  }
  return pairs;
}

LengthPairs common_lengths(const ByLength& first, const std::vector<ByLength>& second) {
  std::vector<const ByLength*> files = {&first};
  for (const ByLength& other : second) files.push_back(&other);
  LengthPairs pairs;
  for (const ByLength* file : files) {
    for (const auto& [length, measurement] : *file) {
      const auto has_it = [wanted = length](const ByLength* other) { return other->contains(wanted); };
      const bool everywhere = std::all_of(files.begin(), files.end(), has_it);
      if (everywhere && file == &first) pairs.emplace_back(length, length);
      if (everywhere) continue;
      base::notice(measurement.where + ": context_tokens " + std::to_string(length) +
                   " is not in all files and is left out");
    }
  }
  if (pairs.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "no context_tokens is in all files; pair a length of the first with one of the others by --lengths");
  }
  return pairs;
}

const eval::Measurement& of_length(const ByLength& measurements, int64_t length, const std::string& file) {
  const auto found = measurements.find(length);
  if (found != measurements.end()) return found->second;
  throw Error(ErrorCode::invalid_argument,
              "--lengths: no line of " + file + " has context_tokens " + std::to_string(length));
}

std::string difference_line(const std::pair<int64_t, int64_t>& lengths, const eval::PairedDifference& found) {
  const auto or_null = [](std::optional<double> value) { return value ? base::OrderedJson(*value) : nullptr; };
  const base::OrderedJson line = {
      {"context_tokens", lengths.first}, {"other_context_tokens", lengths.second},
      {"documents", found.documents},    {"unpaired", found.unpaired},
      {"difference", found.mean},        {"stderr", or_null(found.standard_error)},
      {"percent", found.percent()},      {"percent_stderr", or_null(found.percent_error())}};
  return line.dump() + "\n";
}

std::string table_head() {
  return " context  compared  documents  unpaired  difference    stderr  perplexity      stderr\n";
}

std::string table_row(const std::pair<int64_t, int64_t>& lengths, const eval::PairedDifference& found) {
  const auto shown = [](std::optional<double> value, const char* format) {
    std::array<char, 48> text = {"-"};
    if (value) std::snprintf(text.data(), text.size(), format, *value);
    return std::string(text.data());
  };
  std::array<char, 256> line{};
  std::snprintf(line.data(), line.size(), "%8lld  %8lld  %9lld  %8lld  %10s  %8s  %10s  %10s\n",
                static_cast<long long>(lengths.first), static_cast<long long>(lengths.second),
                static_cast<long long>(found.documents), static_cast<long long>(found.unpaired),
                shown(found.mean, "%+.5f").c_str(), shown(found.standard_error, "%.5f").c_str(),
                shown(found.percent(), "%+.3f %%").c_str(), shown(found.percent_error(), "%.3f %%").c_str());
  return line.data();
}

void compare(const CompareOptions& options) {
  const LengthPairs asked = parse_length_pairs(options.lengths);
  const ByLength first = read_measurements(options.first);
  std::vector<ByLength> second;
  for (const std::string& file : options.second) second.push_back(read_measurements(file));
  std::string output = options.json ? "" : table_head();
  for (const auto& lengths : asked.empty() ? common_lengths(first, second) : asked) {
    std::vector<eval::Measurement> others;
    for (size_t i = 0; i < second.size(); ++i)
      others.push_back(of_length(second[i], lengths.second, options.second[i]));
    const auto found = eval::paired_difference(of_length(first, lengths.first, options.first), others);
    output += options.json ? difference_line(lengths, found) : table_row(lengths, found);
  }
  write_output(output);
}

}  // namespace

void add_eval_compare(CLI::App& group, CommonOptions& common) {
  const auto options = std::make_shared<CompareOptions>();
  CLI::App* command = add_command(
      group, "compare",
      "Change of perplexity from one output of eval lm --json --by-document to others, paired by document",
      "cepe eval compare own.jsonl other-1.jsonl other-2.jsonl --json", common, [options] { compare(*options); });
  command->add_option("A", options->first, "the output from which changes are counted")->check(not_empty())->required();
  command
      ->add_option("B", options->second, "the output compared with it; of several, each document's mean nll is taken")
      ->check(not_empty())
      ->required();
  command->add_option("--lengths", options->lengths,
                      "pairs A:B of context lengths to compare, such as 0:8K,2K:8K; default: the equal ones");
  command->add_flag("--json", options->json, "a JSON object a line instead of a table");
}

}  // namespace cepe::cli
