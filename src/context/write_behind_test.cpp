#include "context/write_behind.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <vector>

namespace cepe::context {
namespace {

constexpr int64_t bytes_of_record = 100;

// A slow disk: the first write lasts until `go_on`.
struct SlowDisk : testing::Test {
  std::mutex mutex;
  std::vector<int64_t> written;  // requests, a record each
  std::promise<void> begun, go_on;
  bool is_first = true;  // on the writer's thread

  void write(const std::vector<PendingRecord>& records) {
    if (std::exchange(is_first, false)) {
      begun.set_value();
      go_on.get_future().wait();
    }
    const std::scoped_lock lock(mutex);
    for (const PendingRecord& record : records) written.push_back(record.keep_since);
  }
  static std::vector<PendingRecord> of_request(int64_t number, size_t count) {
    PendingRecord record;
    record.shape = {RecordShape::Type::bytes, 1, bytes_of_record};
    record.packed = at::zeros({1, bytes_of_record}, at::kByte);
    record.keep_since = number;
    return std::vector<PendingRecord>(count, record);
  }
};

TEST_F(SlowDisk, LetsWhatHasWaitedLongestGoRatherThanHoldTheMemoryOfAll) {
  WriteBehind writer(bytes_of_record, [this](const std::vector<PendingRecord>& records) { write(records); });
  const auto push = [&](int64_t number, size_t count) {
    return writer.push_in_place_of_oldest(of_request(number, count), 5 * bytes_of_record);
  };
  EXPECT_EQ(push(1, 3), 0);
  begun.get_future().wait();  // one of them is being written, two wait
  EXPECT_EQ(push(2, 3), 0);
  EXPECT_EQ(push(3, 2), 2) << "of the first request";
  EXPECT_EQ(push(4, 9), 5) << "one larger than the limit waits alone";
  EXPECT_EQ(push(5, 1), 9);
  go_on.set_value();
  writer.drain();
  EXPECT_EQ(written, (std::vector<int64_t>{1, 5}));
}

TEST_F(SlowDisk, GivesWhatWaitsOrIsBeingWrittenUntilItIsWritten) {
  WriteBehind writer(bytes_of_record, [this](const std::vector<PendingRecord>& records) { write(records); });
  std::vector<ChunkKey> keys(3);
  std::vector<PendingRecord> records = of_request(1, 2);
  for (size_t i = 0; i < keys.size(); ++i) keys[i][0] = static_cast<std::byte>(i);
  for (size_t i = 0; i < records.size(); ++i) records[i].key = keys[i];
  const at::Tensor packed = records.front().packed;
  writer.push(std::move(records));
  begun.get_future().wait();
  const std::vector<at::Tensor> found = writer.find(keys);
  EXPECT_TRUE(found[0].is_same(packed));
  EXPECT_TRUE(found[1].is_same(packed));
  EXPECT_FALSE(found[2].defined());
  go_on.set_value();
  writer.drain();
  for (const at::Tensor& none : writer.find(keys)) EXPECT_FALSE(none.defined());
}

TEST(WriteBehindWoken, IsAskedOnceForWhatNeedNotBeDoneBeforeAnAnswer) {
  std::vector<size_t> asked;  // records
  {
    WriteBehind writer(bytes_of_record,
                       [&](const std::vector<PendingRecord>& records) { asked.push_back(records.size()); });
    writer.wake();
    writer.drain();
    EXPECT_EQ(asked, (std::vector<size_t>{0}));
    writer.push(SlowDisk::of_request(1, 1));
    writer.drain();
  }
  EXPECT_EQ(asked, (std::vector<size_t>{0, 1}));
}

}  // namespace
}  // namespace cepe::context
