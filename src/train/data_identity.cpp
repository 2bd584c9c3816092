#include "train/data_identity.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "data/corpus_index.h"
#include "data/published.h"
#include "data/tokenizer_fingerprint.h"
#include "model/locate.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;

// Not where the texts lay, and whose tokenizer people say it was: the same corpus may be made anew elsewhere.
void add_corpus(base::Sha256& hash, data::CorpusIndex index) {
  index.made_from = nullptr;
  index.model = "";
  hash.update_text(print_corpus_index(index));
}

void add_samples(base::Sha256& hash, const base::Path& path) {
  for (const base::Path& folder : data::list_mds_folders(path)) {
    hash.update_text(folder.lexically_relative(path).string());
    hash.update_text(base::read_file(folder / formats::mds_index_name, formats::most_mds_index_bytes));
  }
}

}  // namespace

base::Path locate_decoder(const Recipe& recipe, const base::Path& cache) {
  try {
    return model::locate_model(recipe.decoder.model, cache);
  } catch (const Error& error) {
    throw Error(error.code(), std::string("decoder.model: ") + error.what());
  }
}

void check_tokenizer(const data::TokenCorpus& corpus, const Recipe& recipe, const base::Path& cache) {
  if (stage_of(recipe.stage) == Stage::mlm || !recipe.decoder.config.empty()) return;
  const base::Path model = locate_decoder(recipe, cache);
  std::string fingerprint;
  try {
    fingerprint = data::tokenizer_fingerprint(*text::load_tokenizer(model));
  } catch (const Error& error) {
    base::warn("whether data.corpus " + recipe.data.corpus +
               " was made with the decoder's tokenizer is not known: " + error.what());
    return;
  }
  const data::CorpusIndex& index = corpus.index();
  if (fingerprint == index.tokenizer) return;
  const base::Path file = base::Path(recipe.data.corpus) / data::corpus_index_name;
  throw Error(ErrorCode::mismatch,
              file.string() + ": field 'tokenizer': the corpus was made with another tokenizer (model " + index.model +
                  ") than decoder.model " + model.string() + " has; make one with cepe data build --model " +
                  model.string() + ", or pass --allow-mismatch to train on this one all the same");
}

std::string identity_of_data(const Recipe& recipe, const std::optional<data::TokenCorpus>& corpus) {
  base::Sha256 hash;
  const DataSettings& data = recipe.data;
  if (!data.prepared()) add_corpus(hash, corpus->index());
  for (const std::string& folder : {data.samples, data.stored_logits, data.retrieved})
    if (!folder.empty()) add_samples(hash, folder);
  return base::to_hex(hash.finish());
}

}  // namespace cepe::train
