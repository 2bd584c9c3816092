#include "data/byte_source.h"

#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"

namespace cepe::data {
namespace {

using base::Error;
using base::ErrorCode;

constexpr size_t input_bytes = size_t{128} << 10;

class PlainSource : public ByteSource {
 public:
  explicit PlainSource(const base::Path& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) throw Error(ErrorCode::io, path.string() + ": cannot open: " + std::strerror(errno));
  }
  size_t read(std::span<char> out) override {
    file_.read(out.data(), static_cast<std::streamsize>(out.size()));
    if (file_.bad()) throw Error(ErrorCode::io, path_.string() + ": cannot read: " + std::strerror(errno));
    return static_cast<size_t>(file_.gcount());
  }
  void rewind() {
    file_.clear();
    file_.seekg(0);
  }

 private:
  base::Path path_;
  std::ifstream file_;
};

[[noreturn]] void cut_short(const base::Path& path, const char* format) {
  throw Error(ErrorCode::corrupt, path.string() + ": the " + format + " data is cut short");
}

class GzipSource : public ByteSource {
 public:
  GzipSource(const base::Path& path, std::unique_ptr<PlainSource> file)
      : path_(path), file_(std::move(file)), input_(input_bytes) {
    if (::inflateInit2(&stream_, 15 + 16) != Z_OK) throw Error(ErrorCode::out_of_memory, "no memory for zlib");
  }
  ~GzipSource() override { ::inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  size_t read(std::span<char> out) override {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min<size_t>(out.size(), size_t{1} << 30));
    const uInt wanted = stream_.avail_out;
    while (stream_.avail_out == wanted) {
      if (stream_.avail_in == 0) refill();
      if (stream_.avail_in == 0) {
        if (!between_members_) cut_short(path_, "gzip");
        return 0;
      }
      if (between_members_) pass_over_zeros();
      if (stream_.avail_in > 0) inflate_piece();
    }
    return wanted - stream_.avail_out;
  }

 private:
  void refill() {
    const size_t count = file_->read(input_);
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(count);
  }

  // What tapes and block devices fill up with behind a member; gzip ignores it too.
  void pass_over_zeros() {
    for (; stream_.avail_in > 0 && *stream_.next_in == 0; --stream_.avail_in) ++stream_.next_in;
  }

  void inflate_piece() {
    if (between_members_ && started_) ::inflateReset(&stream_);  // a file may hold several members
    started_ = true;
    between_members_ = false;
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    if (status == Z_STREAM_END) {
      between_members_ = true;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      const char* reason = stream_.msg ? stream_.msg : "unknown";
      throw Error(ErrorCode::corrupt, path_.string() + ": damaged gzip data: " + reason);
    }
  }

  base::Path path_;
  std::unique_ptr<PlainSource> file_;
  std::vector<char> input_;
  z_stream stream_{};
  bool between_members_ = false;
  bool started_ = false;
};

struct FreeStream {
  void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
};

class ZstdSource : public ByteSource {
 public:
  ZstdSource(const base::Path& path, std::unique_ptr<PlainSource> file)
      : path_(path), file_(std::move(file)), input_(input_bytes), stream_(ZSTD_createDStream()) {
    if (!stream_) throw Error(ErrorCode::out_of_memory, "no memory for zstd");
    // Large dumps are packed with --long=31, and look back over 2 GiB. Memory is taken as it is filled.
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }

  size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0) {
      // Output that did not fit may still wait inside: the end of the input is the end only once nothing comes.
      if (buffer_.pos == buffer_.size && !full_) {
        buffer_ = {input_.data(), file_->read(input_), 0};
        if (buffer_.size == 0) {
          if (!between_frames_) cut_short(path_, "zstd");
          return 0;
        }
      }
      const size_t status = ZSTD_decompressStream(stream_.get(), &output, &buffer_);
      if (ZSTD_isError(status)) {
        throw Error(ErrorCode::corrupt, path_.string() + ": damaged zstd data: " + ZSTD_getErrorName(status));
      }
      between_frames_ = status == 0;
      full_ = output.pos == output.size && !between_frames_;
    }
    return output.pos;
  }

 private:
  base::Path path_;
  std::unique_ptr<PlainSource> file_;
  std::vector<char> input_;
  std::unique_ptr<ZSTD_DStream, FreeStream> stream_;
  ZSTD_inBuffer buffer_{nullptr, 0, 0};
  bool between_frames_ = false;
  bool full_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> open_source(const base::Path& path) {
  std::error_code none;
  if (!std::filesystem::exists(path, none))
    throw Error(ErrorCode::not_found, path.string() + ": there is no such file");
  if (!std::filesystem::is_regular_file(path, none))
    base::refuse_irregular(path, std::filesystem::is_directory(path, none));
  auto file = std::make_unique<PlainSource>(path);
  char magic[4] = {};
  const size_t count = file->read(magic);
  file->rewind();
  const std::string_view begin(magic, count);
  if (begin.starts_with("\x1f\x8b")) return std::make_unique<GzipSource>(path, std::move(file));
  if (begin.starts_with("\x28\xb5\x2f\xfd")) return std::make_unique<ZstdSource>(path, std::move(file));
  if (path.extension() == ".gz" || path.extension() == ".zst") {
    throw Error(ErrorCode::corrupt, path.string() + ": the name says compressed, the content is not");
  }
  return file;
}

}  // namespace cepe::data
