// ProjectionStore: keys and values of chunks in all layers, in 8 bits, kept on disk from one process to the next, so
// that the first question about a document that was asked before need not make them. They are several times the states'
// bytes (`cepe info`), and to make them takes many times as long as to look whether those on disk are sound. On a CPU
// only.
//
// They stand in a disk tier of their own: what is damaged is noticed, dropped and made anew. Nobody waits for the
// medium (they can be made again), so a crash of the machine may lose some. What is found is not copied: attention
// reads it where the system keeps the files' pages, which all processes share and which it may drop and read again.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "context/disk_tier.h"
#include "context/write_behind.h"
#include "model/cepe_model.h"
#include "model/page_projections.h"

namespace cepe::context {

struct ProjectionStoreOptions {
  base::Path folder;                        // made with mode 0700 when the first are kept
  int64_t max_bytes = int64_t{4} << 30;     // on disk; oldest used go first
  int64_t least_bytes = int64_t{64} << 20;  // of a context's; making fewer takes no time worth the disk
  // What waits to be written holds its memory. Where the disk is so slow that more would wait, beside the context that
  // was made last, what has waited longest is not written: it can be made again.
  int64_t most_waiting_bytes = int64_t{2} << 30;
  // Where the disk gives less a second, by the first so many bytes, making them is quicker.
  int64_t least_bytes_a_second = int64_t{400} << 20, bytes_to_judge = int64_t{128} << 20;
};

// Of pages in contexts that were large enough.
struct ProjectionCounters {
  int64_t read = 0;  // those that waited to be written, too
  int64_t made = 0;
  int64_t dropped = 0;  // of those made: not written, since too much waited or the disk did not take them
};

class ProjectionStore {
 public:
  // The model must have an adapter, outlive the store and stay as it is. Errors: invalid_argument for a negative limit.
  ProjectionStore(const model::CepeModel& model, ProjectionStoreOptions options);
  // After all is written, with progress where that takes long; Ctrl-C leaves out the rest.
  ~ProjectionStore();
  ProjectionStore(const ProjectionStore&) = delete;
  ProjectionStore& operator=(const ProjectionStore&) = delete;

  // As model::keep_projections in 8 bits. What the disk has of the pages is read, and what waits to be written is used;
  // what neither has is made, and written soon after, on another thread. Contexts that are small, larger than the
  // limit, or whose pages have no keys are made whole and not written. Any thread at any time.
  void keep(model::ContextStates& context);
  // Ahead of questions: what the disk has not of these chunks, however few, is made and written, whatever time the
  // disk takes to read or write. Their states must have keys. Takes the memory of their keys and values. Any thread at
  // any time.
  // What was stored since `keep_since` (nanoseconds since 1970) is not evicted for these.
  void store(model::ContextStates chunks, int64_t keep_since);
  // Until all is written, or an interrupt.
  void flush();
  // False once it was said that nothing is kept, or before anything was asked for.
  bool keeps();
  ProjectionCounters counters() const;
  const ProjectionStoreOptions& options() const { return options_; }

 private:
  enum class Found : char { yes, no, not_looked_for };
  enum class Patience { answers_wait, nobody_waits };
  void open();
  std::vector<PendingRecord> keep_all(model::ContextStates& context, std::span<const int64_t> page_rows,
                                      int64_t keep_since, Patience patience);
  void push(std::vector<PendingRecord> records, Patience patience);
  void write(const std::vector<PendingRecord>& records);
  std::vector<Found> find(std::vector<PendingRecord>& records, Patience patience);
  std::vector<Found> find_waiting(std::vector<PendingRecord>& records);
  bool find_on_disk(PendingRecord& record);
  bool is_worth_it(const model::ContextStates& context, std::span<const int64_t> page_rows) const;
  std::vector<PendingRecord> records_of(const model::ContextStates& context, std::span<const int64_t> page_rows,
                                        int64_t keep_since) const;

  const model::CepeModel& model_;
  ProjectionStoreOptions options_;
  std::mutex opening_;                       // of the two below, which stay as they are once they are there
  std::optional<base::Digest> fingerprint_;  // once somebody asked
  std::optional<DiskTier> disk_;             // likewise
  mutable std::mutex mutex_;                 // of the three below
  std::condition_variable written_changed_;
  ProjectionCounters counters_;
  int64_t pushed_ = 0, written_ = 0;   // records
  std::optional<WriteBehind> writer_;  // last: it writes until it is gone
};

// Fingerprint of what makes keys and values of states: the weights of all layers, and their form.
base::Digest projection_fingerprint(const model::CepeModel& model);

}  // namespace cepe::context
