#include "train/event_file.h"

#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "formats/byte_reader.h"

namespace cepe::train {
namespace {

using base::Path;

// CRC-32C (Castagnoli), reflected polynomial 0x82f63b78: RFC 3720, appendix B.4.
constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82f63b78u : 0);
    table[byte] = value;
  }
  return table;
}();

// Masked as in tensorflow/core/lib/hash/crc32c.h: checksums of data that hold checksums stay good ones.
uint32_t masked_crc(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(byte)) & 255];
  return std::rotr(~crc, 15) + 0xa282ead8u;
}

template <class T>
std::string little_endian(T value) {  // as this machine is
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// Protocol buffers' wire format: https://protobuf.dev/programming-guides/encoding
enum Wire { varint_wire = 0, fixed64_wire = 1, bytes_wire = 2, fixed32_wire = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}
std::string field(int number, Wire wire, std::string_view payload) {
  std::string bytes = varint(static_cast<uint64_t>(number) << 3 | wire);
  if (wire == bytes_wire) bytes += varint(payload.size());
  return bytes.append(payload);
}

// Event (tensorflow/core/util/event.proto): wall_time = 1, step = 2, and what happened.
std::string event(int64_t step, std::string_view what) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return field(1, fixed64_wire, little_endian(now.count())) +
         field(2, varint_wire, varint(static_cast<uint64_t>(step))) + std::string(what);
}
// Event.file_version = 3
std::string version_event() { return event(0, field(3, bytes_wire, "brain.Event:2")); }
// Event.session_log = 7, SessionLog.status = 1, START = 1
std::string start_event(int64_t step) { return event(step, field(7, bytes_wire, field(1, varint_wire, varint(1)))); }
// Event.summary = 5; tensorflow/core/framework/summary.proto: Summary.value = 1, Value.tag = 1, Value.simple_value = 2
std::string scalar_event(std::string_view tag, int64_t step, float value) {
  const std::string entry = field(1, bytes_wire, tag) + field(2, fixed32_wire, little_endian(value));
  return event(step, field(5, bytes_wire, field(1, bytes_wire, entry)));
}

// TFRecord (tensorflow/core/lib/io/record_writer.h): length, its checksum, data, their checksum.
std::string record(std::string_view data) {
  const std::string length = little_endian(static_cast<uint64_t>(data.size()));
  return length + little_endian(masked_crc(length)) + std::string(data) + little_endian(masked_crc(data));
}

// The second file within a second gets a number.
Path new_path(const Path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw base::Error(base::ErrorCode::io, folder.string() + ": cannot make this folder: " + error.message());
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now).count();
  const std::string name = "events.out.tfevents." + std::to_string(seconds) + ".cepe";
  Path path = folder / name;
  for (int number = 1; std::filesystem::exists(path, error); ++number) {
    path = folder / (name + "." + std::to_string(number));
  }
  return path;
}

}  // namespace

EventFile::EventFile(const Path& folder, std::optional<int64_t> resume_after_step)
    : file_(new_path(folder), AppendedFile::Start::fresh) {
  file_.append(record(version_event()));
  if (resume_after_step) file_.append(record(start_event(*resume_after_step + 1)));
  flush();
}

void EventFile::scalar(std::string_view tag, int64_t step, double value) {
  if (!formats::is_utf8(tag)) {
    throw base::Error(base::ErrorCode::invalid_argument,
                      "the name of a curve must be UTF-8, found " + formats::in_quotes(tag));
  }
  file_.append(record(scalar_event(tag, step, static_cast<float>(value))));
}

void EventFile::flush() { file_.flush(); }

}  // namespace cepe::train
