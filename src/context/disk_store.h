// A folder of records, one file a chunk: <folder>/<first two digits of the key>/<key>.states. Tensor-free.
//
// Several processes may share it: a record is written under a temporary name and renamed, so a name never stands for
// half a record. Nothing is synced: a killed process loses nothing, and what a power failure spoils the checksum
// notices (512 synced files would cost seconds). Links inside the folder are not followed.
#pragma once

#include "base/files.h"
#include "context/record.h"

namespace cepe::context {

class DiskStore {
 public:
  // Makes the folder (mode 0700; records are 0600). One that cannot be made or that anyone may write to is said once
  // (warning) and not used. Errors: invalid_argument for a negative limit.
  DiskStore(base::Path folder, int64_t max_bytes);

  // What is read or written from now on is not evicted before the next request begins: a request larger than the limit
  // keeps its beginning instead of pushing itself out.
  void begin_request();

  // Fills `values` and marks the record as used. False where there is none; a record that is not what its name says is
  // removed and logged.
  bool read(const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values);

  // Keeps a record, after removing the oldest used ones where the limit would be passed. The first write that the
  // system refuses is said once (warning); then nothing is written any more.
  void write(const ChunkKey& key, const RecordShape& shape, std::span<const std::byte> values);

 private:
  bool make_room(int64_t bytes);
  void evict(int64_t bytes);
  void stop_writing(const std::string& what);

  base::Path folder_;
  int64_t max_bytes_;
  bool readable_ = true, writable_ = true;
  bool scanned_ = false;
  bool full_ = false;  // of what this request uses
  bool full_said_ = false;
  int64_t total_ = 0;          // bytes of all records as of the last scan and our own writes since
  int64_t since_scan_ = 0;     // bytes that we wrote since
  int64_t request_start_ = 0;  // nanoseconds since 1970
};

}  // namespace cepe::context
