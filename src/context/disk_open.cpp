// Opening a folder of encoded text, and again: where its catalogue is damaged or gone, or the folder can only be read.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "context/disk_tier.h"

namespace cepe::context {
namespace {

using base::Error;
using base::ErrorCode;
using Clock = std::chrono::steady_clock;

constexpr int most_rebuilds = 10;  // of one process: a medium that spoils everything is no use
constexpr int most_openings = 3;   // where somebody removes the catalogue meanwhile
constexpr auto pause_without_catalogue = std::chrono::seconds(1);

base::Path without_links(const base::Path& folder) {
  std::error_code problem;
  base::Path plain = std::filesystem::canonical(folder, problem);
  return problem ? folder : plain;
}

// Tells whether somebody has removed a folder since.
class HeldFolder {
 public:
  explicit HeldFolder(const base::Path& folder)
      : descriptor_(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {}
  ~HeldFolder() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  HeldFolder(const HeldFolder&) = delete;
  HeldFolder& operator=(const HeldFolder&) = delete;
  bool is_removed() const {
    struct stat status {};
    return descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0 && status.st_nlink == 0;
  }

 private:
  int descriptor_;
};

}  // namespace

int64_t DiskTierOptions::segment_limit() const { return std::max<int64_t>(std::min(segment_bytes, max_bytes / 16), 1); }

// While somebody removes files under us.
bool DiskTier::may_pass(const std::exception& error) {
  const auto* plain = dynamic_cast<const Error*>(&error);
  return dynamic_cast<const DatabaseError*>(&error) || (plain && plain->code() == ErrorCode::not_found);
}

// Readers see it, or that there is none, at once.
void DiskTier::use(std::unique_ptr<Catalogue> catalogue) {
  const std::scoped_lock lock(mutex_);
  catalogue_ = std::move(catalogue);
}

void DiskTier::set_unwritable(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  unwritable_ = why;
}

void DiskTier::close_readers() {
  const std::scoped_lock lock(mutex_);
  readers_.clear();
}

void DiskTier::open(bool damaged) {
  const bool was_copied = !unwritable_.empty();  // then damage of the copy tells nothing of the original
  if (options_.vfs) {
    if (!files_.exists(folder_)) files_.create_folder(folder_);
    files_.sync_folder(folder_.parent_path());
  } else {
    make_private_folder(options_.folder);
    const std::scoped_lock lock(mutex_);
    folder_ = without_links(options_.folder);
    unwritable_ = why_unwritable(folder_);
  }
  writer_ = SegmentWriter(files_, folder_, options_.segment_limit());
  if (!unwritable_.empty()) return open_copy(damaged);
  const HeldFolder held(folder_);
  try {
    use(open_catalogue(folder_, files_, options_.vfs, damaged && !was_copied, options_.synced));
  } catch (const DatabaseError& error) {
    if (held.is_removed()) throw Error(ErrorCode::not_found, "its folder was removed while it was opened");
    if (options_.vfs || !error.is_full()) throw;
    const std::string why = explain(error);
    try {
      open_copy(damaged);
    } catch (const base::Interrupted&) {
      throw;
    } catch (const std::exception&) {
      throw error;
    }
    set_unwritable(why);
  }
}

void DiskTier::open_copy(bool damaged) {
  const auto start = Clock::now();
  use(copy_catalogue(folder_, files_, damaged));
  copy_lasts_ = Clock::now() + 20 * (Clock::now() - start);  // whoever writes there may do so all the time
}

void DiskTier::try_open() {
  for (int attempt = 1; attempt <= most_openings; ++attempt) {
    try {
      return open(false);
    } catch (const base::Interrupted&) {
      throw;
    } catch (const DatabaseError& error) {
      if (attempt == most_openings || error.is_busy()) return refuse(explain(error));
    } catch (const std::exception& error) {
      if (!may_pass(error)) return refuse(error.what());
      if (attempt == most_openings) return put_off(error.what());
    }
  }
}

std::string DiskTier::explain(const DatabaseError& error) {
  disk_fails_ = error.is_of_disk();
  if (error.is_busy()) return error.what() + std::string("; another process is writing to it: try again later");
  return error.what() +
         std::string(disk_fails_
                         ? "; where the disk is full, `cepe store gc` with a smaller --cache-size makes room, and "
                           "`cepe store clear` most"
                         : "");
}

void DiskTier::refuse(const std::string& what) {
  {
    const std::scoped_lock lock(mutex_);
    writable_ = false;
  }
  if (std::exchange(refused_, true)) return;
  const bool is_read = !unwritable_.empty() && catalogue_;
  base::warn(options_.folder.string() +
             (is_read               ? ": encoded text is read from it but not kept: "
              : unwritable_.empty() ? ": encoded text is not kept: "
                                    : ": encoded text is neither read nor kept: ") +
             what);
}

// Without a catalogue, for a while: nothing is read or kept.
void DiskTier::put_off(const std::string& what) {
  writer_.close();
  close_readers();
  use(nullptr);
  looks_again_ = Clock::now() + pause_without_catalogue;
  if (what.empty() || std::exchange(put_off_said_, true)) return;
  base::warn((options_.folder / Catalogue::file_name).string() +
             ": removed again and again while it is in use; encoded text is not kept until that ends (" + what + ")");
}

// Another process may have mended it, or removed the folder. Where somebody removed its log alone, others may go on
// with another: what either says is right only once it was made anew.
void DiskTier::reopen() {
  const bool damaged = catalogue_ && catalogue_->has_its_name();
  if (damaged && catalogue_->is_current() && ++rebuilt_ > most_rebuilds)
    throw Error(ErrorCode::corrupt, "its catalogue is damaged again and again");
  writer_.close();
  close_readers();
  use(nullptr);
  open(damaged);
}

// Before a segment goes by what the catalogue says: of one that was removed meanwhile the next may say otherwise.
void DiskTier::require_catalogue() const {
  if (lost_catalogue()) throw DatabaseError(SQLITE_READONLY_DBMOVED, "it was removed while it was in use");
}

}  // namespace cepe::context
