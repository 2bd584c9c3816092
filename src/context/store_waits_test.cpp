// An answer about what is stored waits for nothing that is written: neither for other text, nor for times of use.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "context/context_store.h"
#include "context/projection_store.h"
#include "disk_records.h"
#include "temporary_folder.h"
#include "tiny_encoder.h"
#include "tiny_models.h"

namespace cepe::context {
namespace {

// How often SQLite makes the thread that has this wait for others.
class Waits {
 public:
  Waits() : system_(sqlite3_vfs_find(nullptr)), before_(system_->xSleep) {
    count_ = 0;
    real_ = before_;
    system_->xSleep = [](sqlite3_vfs* vfs, int microseconds) {
      ++count_;
      return real_(vfs, microseconds);
    };
  }
  ~Waits() { system_->xSleep = before_; }
  Waits(const Waits&) = delete;
  Waits& operator=(const Waits&) = delete;
  int count() const { return count_; }

 private:
  sqlite3_vfs* system_;
  int (*before_)(sqlite3_vfs*, int);
  inline static int (*real_)(sqlite3_vfs*, int);
  inline static thread_local int count_ = 0;
};

int64_t last_use(const base::Path& folder) {
  const DiskUsage usage = DiskTier({.folder = folder}).usage();
  int64_t last = 0;
  for (const StoredDocument& document : usage.documents) last = std::max(last, document.used);
  return last;
}

// Another process writes to the folder for as long as it likes; while it does, the writer's thread waits.
template <class Ask>
void expect_no_waiting(const base::Path& folder, Ask ask) {
  Database other(folder / Catalogue::file_name, nullptr);
  const Transaction held(other);  // may itself wait: times of use are being noted
  const Waits waits;
  ask();
  EXPECT_EQ(waits.count(), 0);
}

TEST(StoreWaits, ForNoOtherTextWithStates) {
  const test::TemporaryFolder folder;
  const base::Path chunks = folder.path() / "chunks";
  const model::Adapter adapter = test::tiny_adapter();
  StoreOptions options{.folder = chunks, .write_behind = true};
  ContextStore(adapter, options).get_or_encode(test::some_chunks());
  const int64_t before = last_use(chunks);
  ContextStore store(adapter, options);
  expect_no_waiting(chunks, [&] {
    store.get_or_encode(split(test::some_ids(8, 40), 8, 0));
    store.get_or_encode(test::some_chunks());
  });
  EXPECT_EQ(store.counters().encoded, 1);
  store.flush();
  EXPECT_EQ(store.left_out(), 0);
  EXPECT_EQ(test::kept_chunks(chunks), 6);
  EXPECT_GT(last_use(chunks), before);
}

TEST(StoreWaits, ForNoOtherTextWithKeysAndValues) {
  const at::NoGradGuard none;
  const test::TemporaryFolder folder;
  const base::Path kept = folder.path() / "kept";
  const model::CepeModel model = test::tiny_model(41);
  ContextStore states(*model.adapter, {});
  const auto context = [&](text::Token first) {
    std::vector<text::Token> ids(40);
    std::iota(ids.begin(), ids.end(), first);
    return states.get_or_encode(split(ids, 8, 0));
  };
  model::ContextStates stored = context(0), again = context(0), other = context(40);
  const ProjectionStoreOptions options{.folder = kept, .least_bytes = 1, .least_bytes_a_second = 0};
  ProjectionStore(model, options).keep(stored);
  const int64_t before = last_use(kept);
  ProjectionStore store(model, options);
  store.keep(again);  // opens the folder
  again = context(0);
  expect_no_waiting(kept, [&] {
    store.keep(other);
    store.keep(again);
  });
  EXPECT_EQ(store.counters().made, 5);
  EXPECT_EQ(store.counters().read, 10);
  store.flush();
  EXPECT_EQ(DiskTier({.folder = kept}).usage().chunks, 10);
  EXPECT_GT(last_use(kept), before);
}

}  // namespace
}  // namespace cepe::context
