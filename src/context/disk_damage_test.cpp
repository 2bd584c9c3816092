// Whatever bit of a segment, a head or the catalogue changes, wrong states are never handed out, and the store goes on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "context/disk_tier.h"
#include "disk_records.h"
#include "meddled_files.h"

namespace cepe::context {
namespace {

using base::Path;
using test::Found;
namespace fs = std::filesystem;

using Bytes = std::map<Path, std::string>;

class DiskDamage : public testing::Test {
 protected:
  Path folder = test::quick_folder() / ("cepe-disk-damage-" + std::to_string(::getpid()));
  void SetUp() override { base::set_log_level(base::LogLevel::error); }
  void TearDown() override {
    base::set_log_level(base::LogLevel::notice);
    fs::remove_all(folder);
  }
  DiskTierOptions options() const { return {folder, int64_t{1} << 30, 2000}; }

  Bytes content() const {
    Bytes bytes;
    for (const auto& entry : fs::directory_iterator(folder)) {
      std::ifstream file(entry.path(), std::ios::binary);
      bytes[entry.path()] = {std::istreambuf_iterator<char>(file), {}};
    }
    return bytes;
  }
  void put_back(const Bytes& bytes) const {
    for (const auto& entry : fs::directory_iterator(folder)) fs::remove(entry.path());
    for (const auto& [path, text] : bytes) std::ofstream(path, std::ios::binary) << text;
  }
};

constexpr int records = 20;

TEST_F(DiskDamage, TenThousandFlippedBitsNeverGiveWrongStates) {
  {
    DiskTier tier(options());
    for (int number = 0; number < records; number += 4)
      ASSERT_TRUE(test::put(tier, {number, number + 1, number + 2, number + 3}, "a book"));
  }
  const Bytes whole = content();
  std::vector<Path> catalogue, segments;
  for (const auto& [path, text] : whole) {
    if (text.empty()) continue;
    (path.extension() == ".pages" ? segments : catalogue).push_back(path);
  }
  ASSERT_EQ(catalogue.size(), 1u);
  ASSERT_GE(segments.size(), 3u);
  std::mt19937_64 random(1);
  int right = 0, nothing = 0;
  int64_t verified_damaged = 0;
  for (int flip = 0; flip < 10000; ++flip) {
    Bytes damaged = whole;
    const bool in_catalogue = flip % 2 == 0;
    std::string& text = damaged[(in_catalogue ? catalogue : segments)[random() % (in_catalogue ? 1 : segments.size())]];
    size_t place = random() % text.size();
    if (flip % 4 == 1) place = place / 256 * 256 + random() % record_head_bytes;  // in a head
    text[place] = static_cast<char>(text[place] ^ (1 << random() % 8));
    put_back(damaged);
    DiskTier tier(options());
    if (flip % 50 == 1) verified_damaged += tier.verify().damaged;
    for (int number = 0; number < records; ++number) {
      const Found found = test::find(tier, number);
      ASSERT_NE(found, Found::wrong) << "flip " << flip << ", record " << number;
      ++(found == Found::right ? right : nothing);
    }
    if (flip % 10 != 0) continue;
    ASSERT_TRUE(test::put(tier, {1000, 3})) << "flip " << flip;
    if (test::has(tier, 1000) && test::has(tier, 3)) continue;
    ASSERT_TRUE(test::put(tier, {1000, 3})) << "flip " << flip;  // now what was wrong with the catalogue is seen
    ASSERT_TRUE(test::has(tier, 1000) && test::has(tier, 3)) << "flip " << flip;
  }
  EXPECT_GT(right, 10000 * records * 9 / 10) << "one bit costs one record at most, or the catalogue is made anew";
  EXPECT_GT(nothing, 4000) << "half of the bits are in records";
  EXPECT_GT(verified_damaged, 50);
}

TEST_F(DiskDamage, ACatalogueThatIsGoneOrRubbishIsMadeAnewFromTheSegments) {
  {
    DiskTier tier(options());
    ASSERT_TRUE(test::put(tier, {1, 2, 3}, "a book"));
  }
  for (const std::string& rubbish : {std::string(), std::string("rubbish"), std::string(40000, 'x')}) {
    std::ofstream(folder / Catalogue::file_name, std::ios::binary) << rubbish;
    DiskTier tier(options());
    for (int number = 1; number <= 3; ++number) EXPECT_TRUE(test::has(tier, number)) << rubbish.size() << " bytes";
    ASSERT_EQ(tier.usage().documents.size(), 1u);
    EXPECT_EQ(tier.usage().documents[0].source, "a book");
  }
  fs::remove(folder / Catalogue::file_name);
  DiskTier tier(options());
  EXPECT_TRUE(test::has(tier, 2));
}

TEST_F(DiskDamage, AnIndexOfSegmentsThatGivesAnotherOneLosesNothingThatIsAddedThen) {
  {
    DiskTier tier(options());
    for (int number = 0; number < records; number += 4)
      ASSERT_TRUE(test::put(tier, {number, number + 1, number + 2, number + 3}, "a book"));
  }
  // An index's cell: three bytes of head, the name, the row's number in a byte. The newest segment has the highest.
  const Path file = folder / Catalogue::file_name;
  std::string bytes = content().at(file);
  constexpr size_t name_bytes = sizeof("segment-0123456789abcdef.pages") - 1;
  constexpr std::string_view head(
      "\x03\x49\x01"
      "segment-",
      11);
  size_t newest = std::string::npos;
  for (size_t at = bytes.find(head); at != std::string::npos; at = bytes.find(head, at + 1)) {
    const size_t number = at + 3 + name_bytes;
    if (newest == std::string::npos || bytes[number] > bytes[newest]) newest = number;
  }
  ASSERT_NE(newest, std::string::npos);
  for (const int other : {-1, 8}) {  // the segment before, and none
    std::string damaged = bytes;
    damaged[newest] = static_cast<char>(damaged[newest] + other);
    std::ofstream(file, std::ios::binary) << damaged;
    DiskTier tier(options());
    ASSERT_TRUE(test::put(tier, {1000 + other, 3}));
    EXPECT_TRUE(test::has(tier, 1000 + other) && test::has(tier, 3)) << other;
    for (int number = 0; number < records; ++number) EXPECT_TRUE(test::has(tier, number)) << other << " " << number;
  }
}

// What was written behind the cut stands where the first one's values stood.
TEST_F(DiskDamage, ARecordThatWasCutOffAndWrittenOverIsNotListedAgainAndHidesNoOther) {
  constexpr RecordShape large{RecordShape::Type::float32, 4, 512};
  const std::vector<std::byte> values(large.payload_bytes(), std::byte{7});
  const std::vector<DiskTier::Item> items = {{test::record_key(1), large, values, "a book"}};
  const DiskTierOptions roomy{folder, int64_t{1} << 30, 20000};
  ASSERT_TRUE(DiskTier(roomy).write(items, wall_clock()));
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".pages") fs::resize_file(entry.path(), 1000);
  std::vector<int> others(40);
  std::iota(others.begin(), others.end(), 2);
  {
    DiskTier tier(roomy);
    ASSERT_TRUE(test::put(tier, others, "another"));
  }
  std::ofstream(folder / Catalogue::file_name, std::ios::binary) << "rubbish";
  DiskTier tier(roomy);
  for (const int number : others) EXPECT_TRUE(test::has(tier, number)) << number;
  ASSERT_EQ(tier.usage().documents.size(), 1u);
  EXPECT_EQ(tier.usage().documents[0].source, "another");
}

TEST_F(DiskDamage, ACatalogueIsMadeAnewAroundWhatTheMediumHasLost) {
  {
    DiskTier tier({folder, int64_t{1} << 30, int64_t{1} << 20});
    std::vector<int> numbers(64);
    std::iota(numbers.begin(), numbers.end(), 0);
    ASSERT_TRUE(test::put(tier, numbers));
  }
  fs::remove(folder / Catalogue::file_name);
  test::MeddledFiles files;
  files.before_read = [](int64_t place, size_t bytes) {
    if (place < 8192 && place + static_cast<int64_t>(bytes) > 4096)
      throw base::Error(base::ErrorCode::corrupt, "cannot read: Input/output error");
  };
  DiskTier tier({folder, int64_t{1} << 30, int64_t{1} << 20}, files);
  for (int number = 0; number < 64; ++number) EXPECT_EQ(test::has(tier, number), number < 16 || number >= 32) << number;
}

TEST_F(DiskDamage, ACatalogueThatIsSpoiltUnderARunningProcessIsMendedByIt) {
  DiskTier tier(options());
  ASSERT_TRUE(test::put(tier, {1, 2, 3}));
  tier.collect();  // all of it is in the file of tables
  for (int round = 0; round < 3; ++round) {
    const Path file = folder / Catalogue::file_name;
    const auto size = fs::file_size(file);
    std::fstream(file, std::ios::in | std::ios::out | std::ios::binary) << std::string(size, 'x');
    {  // what was cached is read anew once another process wrote
      DiskTier other(options());
      EXPECT_TRUE(test::has(other, 1));
      EXPECT_TRUE(test::put(other, {100 + round}));
    }
    EXPECT_TRUE(test::put(tier, {200 + round}));
    for (const int number : {1, 2, 3, 100 + round, 200 + round}) EXPECT_TRUE(test::has(tier, number)) << number;
    tier.collect();
  }
}

TEST_F(DiskDamage, ShortSegmentsCostTheRecordsThatAreCutOffOnly) {
  {
    DiskTier tier(options());
    ASSERT_TRUE(test::put(tier, {1, 2, 3, 4}));
  }
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".pages") fs::resize_file(entry.path(), 2 * 256 + 100);
  DiskTier tier(options());
  EXPECT_TRUE(test::has(tier, 1));
  EXPECT_TRUE(test::has(tier, 2));
  EXPECT_FALSE(test::has(tier, 3));
  EXPECT_FALSE(test::has(tier, 4));
  ASSERT_TRUE(test::put(tier, {3, 4}));
  for (int number = 1; number <= 4; ++number) EXPECT_TRUE(test::has(tier, number)) << number;
}

TEST_F(DiskDamage, ACatalogueThatIsRemovedAgainAndAgainIsUsedOnceThatEnds) {
  DiskTier tier(options());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  std::thread remover([&] {
    while (std::chrono::steady_clock::now() < end) {
      std::error_code none;
      for (const char* ending : {"", "-wal", "-shm"})
        fs::remove(folder / (std::string(Catalogue::file_name) + ending), none);
    }
  });
  for (int number = 0; std::chrono::steady_clock::now() < end; ++number) {
    test::put(tier, {number});
    EXPECT_NE(test::find(tier, number), Found::wrong);
  }
  remover.join();
  const auto works = [&] { return test::put(tier, {-1}) && test::find(tier, -1) == Found::right; };
  for (int attempt = 0; attempt < 50 && !works(); ++attempt)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(works());
  EXPECT_TRUE(tier.keeps());
}

TEST_F(DiskDamage, AFolderThatIsRemovedAgainAndAgainWhileItIsOpenedIsUsedOnceThatEnds) {
  for (int round = 0; round < 6; ++round) {
    std::atomic<bool> begun = false, ended = false;
    std::thread remover([&] {
      std::error_code none;
      for (begun = true; !ended;) fs::remove_all(folder, none);
    });
    while (!begun) std::this_thread::yield();
    DiskTier tier(options());
    ended = true;
    remover.join();
    EXPECT_TRUE(tier.keeps()) << round;
    const auto works = [&] { return test::put(tier, {1}) && test::find(tier, 1) == Found::right; };
    for (int attempt = 0; attempt < 30 && !works(); ++attempt)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_TRUE(works()) << round;
    fs::remove_all(folder);
  }
}

// Another process, which does one thing after another as it is told.
class OtherProcess {
 public:
  explicit OtherProcess(const std::vector<std::function<bool()>>& steps) {
    if (::pipe2(orders_, O_CLOEXEC) != 0 || ::pipe2(answers_, O_CLOEXEC) != 0 || (child_ = ::fork()) < 0) std::abort();
    if (child_ > 0) return;
    char done = 1;
    for (const auto& step : steps) {
      if (::read(orders_[0], &done, 1) != 1) ::_exit(1);
      done = step() ? 1 : 0;
      if (::write(answers_[1], &done, 1) != 1) ::_exit(1);
    }
    ::_exit(0);
  }
  ~OtherProcess() {
    for (const int end : {orders_[0], orders_[1], answers_[0], answers_[1]}) ::close(end);
    ::waitpid(child_, nullptr, 0);
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;
  bool step() {
    char done = 0;
    return ::write(orders_[1], &done, 1) == 1 && ::read(answers_[0], &done, 1) == 1 && done == 1;
  }

 private:
  int orders_[2] = {}, answers_[2] = {};
  pid_t child_ = 0;
};

// Then one process goes on with a log, or memory of what is in it, that the next one does not know.
TEST_F(DiskDamage, ACatalogueOfWhichOnlyTheLogIsRemovedLosesNothingThatTwoProcessesAcknowledge) {
  const std::vector<int> ours = {1, 20, 21, 22, 23, 24, 25}, theirs = {2, 3, 4, 5, 6, 7, 8, 9};
  const auto put_each = [](DiskTier& tier, const std::vector<int>& numbers) {
    return std::ranges::all_of(numbers, [&](int number) { return test::put(tier, {number}); });
  };
  const auto has_all = [&](DiskTier& tier) {
    const auto found = [&](int number) { return test::has(tier, number); };
    return std::ranges::all_of(ours, found) && std::ranges::all_of(theirs, found);
  };
  for (const std::vector<std::string>& endings :
       std::vector<std::vector<std::string>>{{"-wal"}, {"-shm"}, {"-wal", "-shm"}}) {
    SCOPED_TRACE(endings.front() + " and " + std::to_string(endings.size() - 1));
    std::optional<DiskTier> tier;  // each process has its own
    OtherProcess other({[&] { return put_each(tier.emplace(options()), theirs); }, [&] { return has_all(*tier); },
                        [&] { return tier.reset(), true; }});
    tier.emplace(options());
    ASSERT_TRUE(test::put(*tier, {1}));
    for (const std::string& ending : endings) ASSERT_TRUE(fs::remove(folder / (Catalogue::file_name + ending)));
    ASSERT_TRUE(other.step());
    EXPECT_TRUE(put_each(*tier, ours));
    EXPECT_TRUE(has_all(*tier));
    EXPECT_TRUE(other.step());
    tier.reset();
    EXPECT_TRUE(other.step());
    tier.emplace(options());
    EXPECT_TRUE(has_all(*tier));
    tier.reset();
    fs::remove_all(folder);
  }
}

// Where it can neither be made anew (the name is a folder's) nor used.
TEST_F(DiskDamage, ACatalogueThatCannotBeMadeAnewIsLookedForAgainLater) {
  const Path catalogue = folder / Catalogue::file_name;
  DiskTier tier(options());
  ASSERT_TRUE(test::put(tier, {1}));
  fs::remove(catalogue);
  fs::create_directory(catalogue);
  base::set_log_level(base::LogLevel::warning);
  testing::internal::CaptureStderr();
  for (const int number : {2, 3}) EXPECT_FALSE(test::put(tier, {number}));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_NE(said.find(catalogue.string() + ": removed again and again"), std::string::npos) << said;
  EXPECT_TRUE(tier.keeps());
  EXPECT_EQ(tier.left_out(), 2);
  fs::remove_all(catalogue);
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  EXPECT_TRUE(test::put(tier, {2}));
  for (const int number : {1, 2}) EXPECT_EQ(test::find(tier, number), Found::right) << number;
}

}  // namespace
}  // namespace cepe::context
