// The samples of published MDS folders by number: of a folder with index.json, or of all such folders below a path (one
// a domain), one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/files.h"
#include "formats/numpy_array.h"

namespace cepe::data {

struct OpenShard;

class SampleFolders {
 public:
  // One sample; its shard stays open as long as it is there.
  class Sample {
   public:
    bool has(std::string_view column) const;
    // Shard, sample and column, for messages.
    std::string where(std::string_view column) const;
    // Errors: unsupported where there is no such column or it is no array of numbers; corrupt.
    formats::NumpyArray array(std::string_view column) const;

   private:
    friend class SampleFolders;
    std::shared_ptr<const OpenShard> shard_;
    int64_t place_ = 0;  // in the shard
  };

  // Errors: not_found, corrupt, unsupported; invalid_argument where there is no sample.
  explicit SampleFolders(const base::Path& path);

  int64_t size() const;
  // Any sample, from any number of threads. Plain shards stay mapped once they were used; of packed ones the last few
  // stay unpacked (2 GiB). Errors: not_found, corrupt, io.
  Sample at(int64_t sample) const;

  // Sample i here and sample i of `other` belong together: as many in folders of the same names.
  // Errors: invalid_argument, naming what differs.
  void expect_parallel(const SampleFolders& other) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace cepe::data
