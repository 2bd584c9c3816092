// MDS folders of samples whose columns are pickled arrays, as the published preparation writes them.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "formats/mds_writer.h"
#include "formats/numpy_pickle.h"

namespace cepe::test {

using Columns = std::map<std::string, std::vector<std::string>>;  // by name: the value of each sample

template <class T>
std::string pickled(const formats::NumpyType& type, std::vector<int64_t> shape, const std::vector<T>& values) {
  return formats::numpy_pickle({type, std::move(shape), std::as_bytes(std::span(values))});
}
inline std::string pickled_ids(const std::vector<int32_t>& ids, std::vector<int64_t> shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(ids.size())};
  return pickled({'i', 4}, std::move(shape), ids);
}
inline std::string pickled_floats(const std::vector<float>& values, std::vector<int64_t> shape) {
  return pickled({'f', 4}, std::move(shape), values);
}

inline base::Path write_sample_folder(const base::Path& folder, const Columns& columns,
                                      const formats::MdsWriterSettings& settings = {}) {
  std::filesystem::create_directories(folder);
  std::vector<formats::MdsColumn> described;
  for (const auto& [name, values] : columns) described.push_back({name, "pkl", {}});
  formats::MdsWriter writer(folder, described, settings);
  for (size_t i = 0; i < columns.begin()->second.size(); ++i) {
    std::vector<std::string> row;
    for (const auto& [name, values] : columns) row.push_back(values[i]);
    writer.write(row);
  }
  writer.finish();
  return folder;
}

}  // namespace cepe::test
