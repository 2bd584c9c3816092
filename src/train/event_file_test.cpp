#include "train/event_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <vector>

#include "base/error.h"
#include "expect_error.h"

namespace cepe::train {
namespace {

using base::Path;

// CRC-32C a bit at a time, most significant first over reversed bytes: not the way it is written.
uint32_t reversed(uint32_t value, int bits) {
  uint32_t result = 0;
  for (int bit = 0; bit < bits; ++bit) result |= (value >> bit & 1) << (bits - 1 - bit);
  return result;
}
uint32_t crc32c(std::string_view bytes) {
  uint32_t remainder = 0xffffffffu;
  for (const char byte : bytes) {
    remainder ^= reversed(static_cast<unsigned char>(byte), 8) << 24;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder << 1 ^ (remainder >> 31 ? 0x1edc6f41u : 0);
  }
  return ~reversed(remainder, 32);
}
uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

// Takes values from the front of a text.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}
  bool done() const { return text_.empty(); }
  std::string_view take(size_t count) {
    if (count > text_.size()) throw std::runtime_error("ends too early");
    const std::string_view taken = text_.substr(0, count);
    text_.remove_prefix(count);
    return taken;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }

 private:
  std::string_view text_;
};

struct Value {
  uint64_t number = 0;  // the bits of numbers of all kinds
  std::string text;
};

// A message of protocol buffers without repeated fields.
std::map<uint64_t, Value> message(std::string_view bytes) {
  std::map<uint64_t, Value> fields;
  Parser parser(bytes);
  while (!parser.done()) {
    const uint64_t key = parser.varint();
    Value value;
    if ((key & 7) == 0) value.number = parser.varint();
    if ((key & 7) == 1) value.number = parser.number<uint64_t>();
    if ((key & 7) == 2) value.text = parser.take(parser.varint());
    if ((key & 7) == 5) value.number = parser.number<uint32_t>();
    if (!fields.emplace(key >> 3, value).second) throw std::runtime_error("a field twice");
  }
  return fields;
}

// The data of each record, its checksums verified.
std::vector<std::string> records(const std::string& file) {
  std::vector<std::string> found;
  Parser parser(file);
  while (!parser.done()) {
    const std::string_view length = parser.take(8);
    EXPECT_EQ(unmasked(parser.number<uint32_t>()), crc32c(length));
    const std::string_view data = parser.take(Parser(length).number<uint64_t>());
    EXPECT_EQ(unmasked(parser.number<uint32_t>()), crc32c(data));
    found.emplace_back(data);
  }
  return found;
}

class Events : public testing::Test {
 protected:
  Path folder = std::filesystem::temp_directory_path() / ("cepe-events-" + std::to_string(::getpid())) / "made";
  void TearDown() override { std::filesystem::remove_all(folder.parent_path()); }

  std::set<Path> files() const {
    std::set<Path> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) found.insert(entry.path());
    return found;
  }
};

int64_t seconds_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST_F(Events, TheTestsOwnChecksumIsThePublishedOne) { EXPECT_EQ(crc32c("123456789"), 0xe3069283u); }

TEST_F(Events, AnIndependentParserReadsWhatWasWritten) {
  const std::string long_tag(300, 'x');
  const struct {
    std::string tag;
    int64_t step;
    double value;
  } scalars[] = {{"loss/train", 0, 2.5},
                 {"loss/\xc3\xa4", 1, -1e-3},
                 {long_tag, int64_t{1} << 40, 1e30},
                 {"nan", 127, std::nan("")},
                 {"large", 128, 1e300}};
  const int64_t before = seconds_now();
  {
    EventFile file(folder);
    for (const auto& [tag, step, value] : scalars) file.scalar(tag, step, value);
  }
  ASSERT_EQ(files().size(), 1u);
  const auto found = records(base::read_file(*files().begin()));
  ASSERT_EQ(found.size(), 1 + std::size(scalars));
  auto first = message(found[0]);
  EXPECT_EQ(first.at(3).text, "brain.Event:2");
  for (size_t i = 0; i < std::size(scalars); ++i) {
    auto event = message(found[i + 1]);
    const double wall_time = std::bit_cast<double>(event.at(1).number);
    EXPECT_GE(wall_time, static_cast<double>(before));
    EXPECT_LE(wall_time, static_cast<double>(before) + 100);
    EXPECT_EQ(static_cast<int64_t>(event.at(2).number), scalars[i].step);
    auto value = message(message(event.at(5).text).at(1).text);
    EXPECT_EQ(value.at(1).text, scalars[i].tag);
    const auto number = std::bit_cast<float>(static_cast<uint32_t>(value.at(2).number));
    const auto expected = static_cast<float>(scalars[i].value);
    EXPECT_TRUE(number == expected || (std::isnan(number) && std::isnan(expected))) << number;
  }
}

TEST_F(Events, TheNameSaysWhenAndNotWhereAndNoFileIsOverwritten) {
  const int64_t before = seconds_now();
  const EventFile first(folder), second(folder), third(folder);
  const int64_t after = seconds_now();
  EXPECT_EQ(files().size(), 3u);
  const std::string name = files().begin()->filename();
  bool expected = false;
  for (int64_t second_between = before; second_between <= after; ++second_between) {
    expected |= name == "events.out.tfevents." + std::to_string(second_between) + ".cepe";
  }
  EXPECT_TRUE(expected) << name;
}

TEST_F(Events, WhatWasFlushedIsInTheFile) {
  EventFile file(folder);
  EXPECT_EQ(records(base::read_file(*files().begin())).size(), 1u) << "TensorBoard knows the file from the start";
  file.scalar("a", 1, 1);
  file.flush();
  EXPECT_EQ(records(base::read_file(*files().begin())).size(), 2u);
}

TEST_F(Events, AResumedRunTellsTheFirstStepThatItWritesAnew) {
  const EventFile file(folder, 41);
  const auto found = records(base::read_file(*files().begin()));
  ASSERT_EQ(found.size(), 2u);
  auto event = message(found[1]);
  EXPECT_EQ(event.at(2).number, 42u);
  EXPECT_EQ(message(event.at(7).text).at(1).number, 1u);
}

TEST_F(Events, ATagThatIsNoTextIsRefused) {
  EventFile file(folder);
  test::expect_error(base::ErrorCode::invalid_argument, "UTF-8", [&] { file.scalar("\xff", 1, 1); });
}

}  // namespace
}  // namespace cepe::train
