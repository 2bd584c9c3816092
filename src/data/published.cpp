#include "data/published.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "formats/numpy_pickle.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;
using formats::NumpyArray;

constexpr size_t tokens_at_once = size_t{1} << 20;
constexpr formats::NumpyType int64_type{'i', 8};

std::vector<text::Token> ids_in(const NumpyArray& array, int64_t vocabulary, const std::string& where) {
  std::vector<text::Token> ids(static_cast<size_t>(array.count()));
  formats::read_integers(array, 0, 0, vocabulary - 1, ids, where);
  return ids;
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values.data(), values.size()));
}

std::string pickled(std::span<const text::Token> ids) {
  const std::vector<int64_t> wide(ids.begin(), ids.end());
  return formats::numpy_pickle({int64_type, {static_cast<int64_t>(wide.size())}, bytes_of(wide)});
}

std::vector<text::Token> tokens_of(const TokenCorpus& corpus, int64_t first, int64_t count) {
  std::vector<text::Token> ids(static_cast<size_t>(count));
  corpus.read(first, ids);
  return ids;
}

void check_lengths(const TokenCorpus& corpus, int64_t previous, int64_t tokens) {
  int64_t longest = 0;
  for (const CorpusDocument& document : corpus.documents()) longest = std::max(longest, document.tokens);
  if (longest >= previous + tokens) return;
  throw Error(ErrorCode::invalid_argument, "samples of " + std::to_string(previous) + " previous and " +
                                               std::to_string(tokens) +
                                               " tokens: the longest document of the corpus has only " +
                                               std::to_string(longest) + "; ask for fewer");
}

}  // namespace

std::vector<Path> list_mds_folders(const Path& path) {
  namespace filesystem = std::filesystem;
  std::error_code problem;
  std::vector<Path> folders;
  if (filesystem::exists(path / formats::mds_index_name, problem)) folders.push_back(path);
  auto entry = filesystem::recursive_directory_iterator(path, problem);
  for (; !problem && entry != filesystem::recursive_directory_iterator(); entry.increment(problem)) {
    std::error_code none;
    if (entry->is_directory(none) && filesystem::exists(entry->path() / formats::mds_index_name, none))
      folders.push_back(entry->path());
  }
  if (folders.empty()) throw Error(ErrorCode::not_found, path.string() + ": no folder with index.json (MDS) here");
  std::sort(folders.begin(), folders.end());
  return folders;
}

PublishedSamples::PublishedSamples(const Path& folder, int64_t vocabulary) : folder_(folder), vocabulary_(vocabulary) {
  const Path index = folder / formats::mds_index_name;
  shards_ = formats::parse_mds_index(base::read_file(index, formats::most_mds_index_bytes), index.string());
}

void PublishedSamples::open_shard() {
  const formats::MdsShard& shard = shards_[shard_];
  where_ = (folder_ / shard.plain.name).string();
  samples_.reset();
  file_.emplace(folder_, shard);
  samples_.emplace(file_->bytes(), shard, where_);
  sample_ = 0;
}

std::optional<PublishedSample> PublishedSamples::next() {
  while (!samples_ || sample_ == samples_->size()) {
    if (samples_) ++shard_;
    samples_.reset();
    if (shard_ == shards_.size()) return std::nullopt;
    open_shard();
  }
  const std::string where = where_ + ", sample " + std::to_string(sample_);
  const auto values = samples_->at(sample_++);
  const auto& columns = shards_[shard_].columns;
  PublishedSample sample;
  bool tokens = false;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].name == "token_ids") {
      tokens = true;
      sample.tokens = ids_in(formats::mds_array(columns[i], values[i], where), vocabulary_, where + ", token_ids");
    } else if (columns[i].name == "prev_token_ids") {
      sample.previous =
          ids_in(formats::mds_array(columns[i], values[i], where), vocabulary_, where + ", prev_token_ids");
    } else if (columns[i].name == "domain") {
      sample.domain = formats::mds_text(columns[i], values[i], where);
    }
  }
  if (!tokens) throw Error(ErrorCode::unsupported, where_ + ": there is no column 'token_ids'");
  return sample;
}

PublishedDocuments::PublishedDocuments(const Path& file, int64_t vocabulary)
    : file_(file), where_(file.string()), vocabulary_(vocabulary), array_(formats::parse_npy(file_.bytes(), where_)) {
  if (array_.shape.size() != 1 || array_.count() == 0)
    throw Error(ErrorCode::unsupported, where_ + ": expected one row of [number of documents][lengths][tokens]");
  documents_ = formats::integer_at(array_, 0, where_);
  int64_t left = array_.count() - 1;
  if (documents_ < 0 || documents_ > left) {
    throw Error(ErrorCode::corrupt, where_ + ": " + std::to_string(documents_) + " documents in an array of " +
                                        std::to_string(array_.count()) + " numbers");
  }
  left -= documents_;
  for (int64_t i = 0; i < documents_; ++i) {
    const int64_t length = formats::integer_at(array_, 1 + i, where_);
    if (length < 0 || length > left) {
      throw Error(ErrorCode::corrupt, where_ + ": document " + std::to_string(i) + " of length " +
                                          std::to_string(length) + " with " + std::to_string(left) + " tokens left");
    }
    left -= length;
  }
  if (left != 0) {
    throw Error(ErrorCode::corrupt, where_ + ": " + std::to_string(left) + " tokens belong to no document");
  }
  place_ = 1 + documents_;
}

std::optional<std::vector<text::Token>> PublishedDocuments::next() {
  if (document_ == documents_) return std::nullopt;
  const int64_t length = formats::integer_at(array_, 1 + document_++, where_);
  std::vector<text::Token> ids(static_cast<size_t>(length));
  formats::read_integers(array_, place_, 0, vocabulary_ - 1, ids, where_);
  place_ += length;
  return ids;
}

void write_published_documents(const TokenCorpus& corpus, const Path& file) {
  std::vector<int64_t> head{static_cast<int64_t>(corpus.documents().size())};
  for (const CorpusDocument& document : corpus.documents()) head.push_back(document.tokens);
  base::FileWriter writer(file);
  base::Progress progress("writing", corpus.tokens(), "tokens");
  const std::array<int64_t, 1> shape{static_cast<int64_t>(head.size()) + corpus.tokens()};
  writer.write(formats::npy_header(int64_type, shape));
  writer.write(bytes_of(head));
  for (int64_t first = 0; first < corpus.tokens(); first += static_cast<int64_t>(tokens_at_once)) {
    base::throw_if_interrupted();
    const auto ids = tokens_of(corpus, first, std::min<int64_t>(tokens_at_once, corpus.tokens() - first));
    writer.write(bytes_of(std::vector<int64_t>(ids.begin(), ids.end())));
    progress.advance(static_cast<int64_t>(ids.size()));
  }
  writer.commit();
}

int64_t write_published_samples(const TokenCorpus& corpus, int64_t previous, int64_t tokens, const Path& folder,
                                const formats::MdsWriterSettings& settings) {
  constexpr int64_t most = int64_t{1} << 26;
  if (tokens < 1 || tokens > most || previous < 0 || previous > most) {
    throw Error(ErrorCode::invalid_argument, "samples of " + std::to_string(previous) + " previous and " +
                                                 std::to_string(tokens) + " tokens; expected 0 to 2^26 and 1 to 2^26");
  }
  check_lengths(corpus, previous, tokens);
  std::vector<formats::MdsColumn> columns{{"domain", "str", {}}, {"token_ids", "pkl", {}}};
  if (previous > 0) columns.insert(columns.begin() + 1, {"prev_token_ids", "pkl", {}});
  formats::MdsWriter writer(folder, columns, settings);
  base::Progress progress("writing", corpus.tokens(), "tokens");
  int64_t written = 0;
  for (const CorpusDocument& document : corpus.documents()) {
    for (int64_t begin = 0; begin + previous + tokens <= document.tokens; begin += tokens) {
      base::throw_if_interrupted();
      const auto ids = tokens_of(corpus, document.first + begin, previous + tokens);
      const std::span<const text::Token> all(ids);
      std::vector<std::string> values{document.domain, pickled(all.subspan(static_cast<size_t>(previous)))};
      if (previous > 0) values.insert(values.begin() + 1, pickled(all.first(static_cast<size_t>(previous))));
      writer.write(values);
      ++written;
    }
    progress.advance(document.tokens);
  }
  writer.finish();
  return written;
}

}  // namespace cepe::data
