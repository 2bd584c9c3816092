#include "data/sample_folders.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "base/error.h"
#include "data/published.h"
#include "formats/mds.h"

namespace cepe::data {

using base::Error;
using base::ErrorCode;

struct OpenShard {
  formats::MdsShard shard;
  std::string where;
  formats::MdsShardFile file;
  formats::MdsSamples samples;

  OpenShard(const base::Path& folder, const formats::MdsShard& opened)
      : shard(opened),
        where((folder / opened.plain.name).string()),
        file(folder, shard),
        samples(file.bytes(), shard, where) {}

  std::optional<size_t> column(std::string_view name) const {
    for (size_t i = 0; i < shard.columns.size(); ++i) {
      if (shard.columns[i].name == name) return i;
    }
    return std::nullopt;
  }
};

namespace {

constexpr int64_t most_unpacked_bytes = int64_t{2} << 30;

struct Folder {
  base::Path path;
  std::string name;  // as seen from the path that was given
  int64_t samples = 0;
};

struct ShardPlace {
  size_t folder = 0;
  formats::MdsShard shard;
  std::shared_ptr<const OpenShard> open;  // nullptr: not yet, or no longer
};

}  // namespace

struct SampleFolders::State {
  base::Path path;
  std::vector<Folder> folders;
  std::vector<ShardPlace> shards;
  std::vector<int64_t> first;  // sample of each shard, and the end of the last
  std::mutex mutex;
  std::deque<size_t> unpacked;  // shards that are held in memory, the one used last at the end
  int64_t unpacked_bytes = 0;

  std::shared_ptr<const OpenShard> open(size_t number) {
    const std::scoped_lock lock(mutex);
    ShardPlace& place = shards[number];
    if (!place.open) place.open = std::make_shared<const OpenShard>(folders[place.folder].path, place.shard);
    std::shared_ptr<const OpenShard> opened = place.open;
    if (place.shard.packed) used(number);
    return opened;
  }

  void used(size_t number) {
    const auto known = std::find(unpacked.begin(), unpacked.end(), number);
    if (known == unpacked.end()) {
      unpacked_bytes += shards[number].shard.plain.bytes;
    } else {
      unpacked.erase(known);
    }
    unpacked.push_back(number);
    while (unpacked.size() > 1 && unpacked_bytes > most_unpacked_bytes) {
      ShardPlace& oldest = shards[unpacked.front()];
      unpacked_bytes -= oldest.shard.plain.bytes;
      oldest.open.reset();
      unpacked.pop_front();
    }
  }
};

bool SampleFolders::Sample::has(std::string_view column) const { return shard_->column(column).has_value(); }

std::string SampleFolders::Sample::where(std::string_view column) const {
  return shard_->where + ", sample " + std::to_string(place_) + ", column '" + std::string(column) + "'";
}

formats::NumpyArray SampleFolders::Sample::array(std::string_view column) const {
  const std::optional<size_t> found = shard_->column(column);
  if (!found) {
    throw Error(ErrorCode::unsupported, shard_->where + ": there is no column '" + std::string(column) + "'");
  }
  const std::string here = shard_->where + ", sample " + std::to_string(place_);
  return formats::mds_array(shard_->shard.columns[*found], shard_->samples.at(place_)[*found], here);
}

SampleFolders::SampleFolders(const base::Path& path) : state_(std::make_shared<State>()) {
  state_->path = path;
  state_->first.push_back(0);
  for (const base::Path& folder : list_mds_folders(path)) {
    const base::Path index = folder / formats::mds_index_name;
    Folder found{folder, folder.lexically_relative(path).string(), 0};
    for (formats::MdsShard& shard :
         formats::parse_mds_index(base::read_file(index, formats::most_mds_index_bytes), index.string())) {
      found.samples += shard.samples;
      state_->first.push_back(state_->first.back() + shard.samples);
      state_->shards.push_back({state_->folders.size(), std::move(shard), nullptr});
    }
    state_->folders.push_back(std::move(found));
  }
  if (size() == 0) throw Error(ErrorCode::invalid_argument, path.string() + ": there is no sample in it");
}

int64_t SampleFolders::size() const { return state_->first.back(); }

SampleFolders::Sample SampleFolders::at(int64_t sample) const {
  if (sample < 0 || sample >= size()) {
    throw Error(ErrorCode::invalid_argument,
                state_->path.string() + ": sample " + std::to_string(sample) + " of " + std::to_string(size()));
  }
  const auto& first = state_->first;
  const auto shard = static_cast<size_t>(std::upper_bound(first.begin(), first.end(), sample) - first.begin() - 1);
  Sample found;
  found.shard_ = state_->open(shard);
  found.place_ = sample - first[shard];
  return found;
}

void SampleFolders::expect_parallel(const SampleFolders& other) const {
  const auto described = [](const SampleFolders& folders, size_t place) {
    if (place >= folders.state_->folders.size()) return std::string("no more folder");
    const Folder& folder = folders.state_->folders[place];
    return "'" + folder.name + "' with " + std::to_string(folder.samples) + " samples";
  };
  const size_t count = std::max(state_->folders.size(), other.state_->folders.size());
  for (size_t i = 0; i < count; ++i) {
    const std::string here = described(*this, i), there = described(other, i);
    if (here == there) continue;
    std::string message = state_->path.string();
    message += " has " + here + ", ";
    message += other.state_->path.string();
    message += " has " + there + "; expected the same samples in the same folders of both";
    throw Error(ErrorCode::invalid_argument, message);
  }
}

}  // namespace cepe::data
