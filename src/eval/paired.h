// Two measurements of the same documents, compared document by document: what differs between documents, which is far
// more than what differs between models, cancels.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cepe::eval {

struct DocumentNll {
  std::string id;
  double nll = 0;            // nats a token, mean over the document's target tokens
  int64_t tokens = 0;        // those
  std::string targets = {};  // digest of their ids in hexadecimal; "": not known
};

struct Measurement {
  std::string where;  // file and line, for messages
  int64_t context_tokens = 0;
  std::vector<DocumentNll> documents;
};

struct PairedDifference {
  double mean = 0;                       // of ln perplexity over the paired documents, second minus first
  std::optional<double> standard_error;  // of the mean; none for one document
  int64_t documents = 0;                 // in all measurements
  int64_t unpaired = 0;                  // only in some: left out

  double percent() const;                       // by which perplexity changes: 100 (e^mean - 1)
  std::optional<double> percent_error() const;  // its standard error by the delta method: 100 e^mean standard_error
};

// `second` may be several measurements (contexts of different other documents): each document counts there with its
// mean nll over them. Every document weighs the same. Errors: invalid_argument, naming `where` and the document, for an
// id that occurs twice in a measurement, a document with other target tokens (told by their number and their digests),
// or no document in all of them.
PairedDifference paired_difference(const Measurement& first, std::span<const Measurement> second);

}  // namespace cepe::eval
