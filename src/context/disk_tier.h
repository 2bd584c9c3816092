// The disk tier: records in segment files (segment.h), their places in a catalogue (catalogue.h). Tensor-free.
//
// Several processes may share a folder, each appending to a segment of its own. `write` returns true once the records
// are acknowledged: their bytes synced, then the catalogue committed. From there on no crash of the process or the
// machine loses them. What is damaged nevertheless is noticed when it is read, dropped, and said (warning). What cannot
// be opened or read at the moment (too many files are open, no memory) is passed over, said once and stays. A catalogue
// that somebody removes faster than it can be made anew is looked for again after a second. Where the folder cannot be
// used or the disk is full, that is said once, and nothing is kept from then on. A folder that cannot be written (a
// read-only mount, another user's) is read all the same, by a copy of its catalogue; that nothing is kept there is said
// when something should be; so is one whose disk was too full to open it. Links are not followed. Any thread at any
// time: what was acknowledged is read at once, whatever others write meanwhile.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/file_layer.h"
#include "context/catalogue.h"
#include "context/segment.h"

namespace cepe::context {

struct DiskTierOptions {
  base::Path folder;                           // made with mode 0700; its files are 0600
  int64_t max_bytes = int64_t{8} << 30;        // of all segments; what was used longest ago goes first
  int64_t segment_bytes = int64_t{256} << 20;  // of one; less where max_bytes is small
  const char* vfs = nullptr;                   // SQLite's layer of files; a test brings its own
  bool synced = true;  // false: nobody waits for the medium, and a crash of the machine may lose what was acknowledged

  int64_t segment_limit() const;
};

struct StoredDocument {
  std::string source;  // "" where it is not known
  int64_t chunks = 0, bytes = 0;
  int64_t used = 0;  // nanoseconds since 1970: the chunk that was used last
};

struct DiskUsage {
  int64_t chunks = 0, bytes = 0;  // of records
  std::vector<SegmentUse> segments;
  int64_t file_bytes = 0;
  std::vector<StoredDocument> documents;
};

class DiskTier {
 public:
  struct Item {
    ChunkKey key;
    RecordShape shape;
    std::span<const std::byte> values;
    std::string_view source;  // name of its document, or ""
  };

  // Errors: invalid_argument for a negative limit.
  explicit DiskTier(DiskTierOptions options, base::FileLayer& files = base::disk());
  ~DiskTier();

  // Fills `values` and marks the record as used. False where there is none.
  bool read(const ChunkKey& key, const RecordShape& shape, std::span<std::byte> values);
  // The same where the values stand in the file, aligned to 64 bytes, without a copy unless the file layer has to make
  // one; no bytes where there is no such record. Their checksum was looked at once; they last as long as `owner`,
  // whatever becomes of the record, and whoever cuts the file meanwhile makes reading them SIGBUS.
  base::FileLayer::Content map(const ChunkKey& key, const RecordShape& shape);

  // True once all are acknowledged. Records that were used or written since `keep_since` (nanoseconds since 1970) are
  // not evicted for these: a request larger than the limit keeps its beginning instead of pushing itself out, and this
  // returns false.
  bool write(std::span<const Item> items, int64_t keep_since);

  // False where the folder cannot be written, or once it was said that nothing is kept.
  bool keeps();
  // The folder cannot be written, or its disk was full when it was opened: what is damaged in it stays there.
  bool only_reads();
  // Records that `write` left out because other processes held the catalogue, or removed it, all the time.
  int64_t left_out();

  // Times of use go into the catalogue, which a crash may lose; while another process holds it they wait. Segments that
  // were read are closed: those that somebody has removed take up the disk as long as anybody has them open. After
  // whatever is being written.
  void flush();

  // What looks after a folder, each on its own. Errors: io (of collect and clear too where the folder cannot be
  // written), corrupt.
  DiskUsage usage();
  struct Verified {
    int64_t records = 0, bytes = 0;
    int64_t damaged = 0;     // and dropped, if the folder can be written
    int64_t unreadable = 0;  // at the moment, and kept
  };
  Verified verify();              // reads every record
  struct Collected {              // by this call: not what others write or remove meanwhile
    int64_t dropped_records = 0;  // over the limit, or without their bytes
    int64_t removed_files = 0;    // segments, compacted ones too, and files of earlier versions
    int64_t freed_bytes = 0;      // net of what compacting wrote
  };
  // Drops what is over the limit, compacts segments that are half dead or more, removes files that nobody needs. Where
  // the disk has no free byte it begins with segments of which nothing is to stay: that needs none. Errors: io, with
  // the bytes that must be free, where each segment has something that stays.
  Collected collect();
  // Removes every record. How many there were. Where the catalogue cannot be opened or written, as on a disk without a
  // free byte, the files go and it with them.
  DiskUsage clear();

 private:
  enum class Outcome { done, again, refused };

  void open(bool damaged);
  void open_copy(bool damaged);
  void use(std::unique_ptr<Catalogue> catalogue);
  void set_unwritable(const std::string& why);
  void close_readers();
  void try_open();
  std::string explain(const DatabaseError& error);
  void collect_once();
  void clear_files(DiskUsage& before);
  bool usable() const { return catalogue_ || (looks_again_ && std::chrono::steady_clock::now() >= *looks_again_); }
  template <class Action>
  bool guarded(Action action);
  template <class Action>
  void strictly(Action action);
  void require_writable() const;
  void reopen();
  bool lost_catalogue() const;
  void renew_copy();
  void require_catalogue() const;
  void refuse(const std::string& what);
  void put_off(const std::string& what);
  static bool may_pass(const std::exception& error);

  std::optional<CatalogueRecord> find(const ChunkKey& key);
  bool find_beside(const ChunkKey& key, std::optional<CatalogueRecord>& found);
  enum class Look { sound, gone, damaged, unreadable };
  // "" or what is wrong with a record. Errors: io where it cannot be read now and may be sound.
  using ReadAt = std::function<std::string(base::FileLayer::Reading& segment, const CatalogueRecord& record)>;
  Look look_at(CatalogueRecord& record, const ReadAt& read, std::string& wrong);
  bool look_up(const ChunkKey& key, const ReadAt& read);
  void pass_over(const std::string& why);
  bool drop(const CatalogueRecord& record);
  struct Dropped {                   // of one segment
    int64_t records = 0, first = 0;  // where the first one stood
    std::string why;                 // it was dropped
    void add(const CatalogueRecord& record, const std::string& reason);
  };
  void say_dropped(const std::string& segment, const Dropped& dropped, const std::string& advice = "");
  void drop_with_others(const CatalogueRecord& record, const std::string& wrong);
  int64_t drop_behind_end(const std::string& segment);
  std::shared_ptr<base::FileLayer::Reading> reader(const std::string& segment);

  Outcome try_write(std::span<const Item> items, int64_t keep_since, bool& whole);
  Outcome append(std::span<const Item> items);
  void sync();
  void hurry(bool hurries);
  void offer_segments();
  size_t count_that_fit(std::span<const Item> items, int64_t keep_since);

  // Space (disk_space.cpp).
  bool fits(int64_t bytes);
  using Uses = std::map<ChunkKey, int64_t>;
  Uses uses();
  void forget(const Uses& noted);
  void note_uses();
  void reclaim(int64_t bytes, int64_t keep_since);
  void look_at_files();
  void remove_dead_segments();
  bool remove_dead_segment(const std::string& name);
  bool remove_unwanted_segments(int64_t& least_bytes);
  void remove_segment_file(const std::string& name, int64_t bytes);
  int64_t bytes_to_drop(int64_t bytes);
  bool compact(const std::string& name);
  bool compact_deadest(int64_t least_percent);
  void remove_orphans();

  DiskTierOptions options_;
  base::FileLayer& files_;

  // Whoever writes, or opens the catalogue, holds `writing_`, for as long as that takes, and for what readers use too
  // `mutex_` as well, for a moment: he changes these with both, and reads them with either. Never the other way round.
  std::mutex writing_, mutex_;
  base::Path folder_;  // without links
  std::unique_ptr<Catalogue> catalogue_;
  std::string unwritable_;  // why the folder cannot be written, and is read by a copy
  bool writable_ = true;
  int64_t left_out_ = 0;

  // With `mutex_`.
  std::map<std::string, std::shared_ptr<base::FileLayer::Reading>> readers_;
  Uses touched_;
  bool passed_over_said_ = false;

  // With `writing_`.
  SegmentWriter writer_;
  std::set<std::string> said_damaged_;                // segments
  std::chrono::steady_clock::time_point copy_lasts_;  // the catalogue's copy is not made anew before
  // Without a catalogue: when it is looked for again.
  std::optional<std::chrono::steady_clock::time_point> looks_again_;
  bool put_off_said_ = false;
  bool refused_ = false;     // and said so
  bool disk_fails_ = false;  // the last error of the catalogue was of a disk that is full, or broken
  bool looked_for_orphans_ = false;
  bool full_said_ = false;
  Collected collected_;      // since `collect` began
  int64_t full_since_ = -1;  // the request for which nothing more can go
  int rebuilt_ = 0;
  unsigned dropped_ = 0;  // damaged records
};

// What to do where so many bytes of chunks that stay cannot be written anew.
std::string room_needed(int64_t bytes);

// "" or why a folder, or its catalogue, cannot be written by this user.
std::string why_unwritable(const base::Path& folder);

// Once the folder is there and private (made with mode 0700, the folders above it with the usual one). Errors: io with
// what is wrong with it; not_found where somebody removes it again and again.
void make_private_folder(const base::Path& folder);

// Files of earlier versions, one a chunk: <two digits>/<key>.states. Removes them and nothing else: their number and
// bytes.
std::pair<int64_t, int64_t> remove_earlier_records(const base::Path& folder);

}  // namespace cepe::context
