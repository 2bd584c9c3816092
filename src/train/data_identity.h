// Whether a run's data is what it is taken for: made with the decoder's tokenizer, and the same as before a stop.
#pragma once

#include <optional>
#include <string>

#include "base/files.h"
#include "data/token_corpus.h"
#include "train/recipe.h"

namespace cepe::train {

// Where decoder.model is, which may be a name; `cache` is where the default model is. Errors: those of
// model::locate_model, naming the field.
base::Path locate_decoder(const Recipe& recipe, const base::Path& cache);

// Warns where nobody can tell: the decoder has no tokenizer that can be read. One made from a config has none yet, and
// takes any corpus. Errors: mismatch, naming field and remedy; those of model::locate_model.
void check_tokenizer(const data::TokenCorpus& corpus, const Recipe& recipe, const base::Path& cache);

// SHA-256 (hexadecimal) of what the recipe's samples are made of, by the indexes of corpus and MDS folders: these know
// sizes and, of a corpus, checksums of the files beside them, which are not read again. `corpus`: the recipe's. Errors:
// not_found, io.
std::string identity_of_data(const Recipe& recipe, const std::optional<data::TokenCorpus>& corpus);

}  // namespace cepe::train
