#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "train/checkpoint_step.h"

namespace cepe::train {
namespace {

using base::Error;
using base::ErrorCode;
using base::Path;

// Beside step-00001200 may stand, after a crash, the same name with one of these:
constexpr std::string_view partial = ".partial";    // being written
constexpr std::string_view replaced = ".replaced";  // complete, making way for a second save of the same step
constexpr std::string_view removed = ".removed";    // being removed

std::string name_of(int64_t step) {
  char name[40];
  std::snprintf(name, sizeof(name), "step-%08lld", static_cast<long long>(step));
  return name;
}

std::optional<int64_t> step_of(std::string_view name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return std::nullopt;
  int64_t step = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  return step >= 0 && name == name_of(step) ? std::optional(step) : std::nullopt;
}

// The name without `ending`, where it is one of ours with it.
std::optional<std::string> without(std::string_view name, std::string_view ending) {
  if (!name.ends_with(ending)) return std::nullopt;
  name.remove_suffix(ending.size());
  return step_of(name) ? std::optional(std::string(name)) : std::nullopt;
}

Path with(const Path& path, std::string_view ending) { return path.string() + std::string(ending); }

// A path with a parent, whatever was given.
Path plain(const Path& folder) {
  const Path path = std::filesystem::absolute(folder).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

// With what is missing above it, each synced into its parent.
void make_folder(base::FileLayer& files, const Path& folder) {
  if (!files.exists(folder)) {
    if (folder.has_relative_path()) make_folder(files, folder.parent_path());
    files.create_folder(folder);
  }
  files.sync_folder(folder.parent_path());
}

void remove_if_there(base::FileLayer& files, const Path& path) {
  if (files.exists(path)) files.remove(path);
}

}  // namespace

CheckpointFolder::CheckpointFolder(const Path& folder, int64_t keep, base::FileLayer& files)
    : folder_(plain(folder)), keep_(keep), files_(files) {
  if (keep < 1) {
    throw Error(ErrorCode::invalid_argument,
                folder.string() + ": checkpoints to keep must be 1 or more, found " + std::to_string(keep));
  }
  make_folder(files_, folder_);
  settle_leftovers();
}

CheckpointFolder::CheckpointFolder(const Path& folder, base::FileLayer& files, Reading)
    : folder_(plain(folder)), keep_(1), files_(files) {}

CheckpointFolder CheckpointFolder::to_read(const Path& folder, base::FileLayer& files) {
  return {folder, files, Reading{}};
}

Path CheckpointFolder::path_of(int64_t step) const { return folder_ / name_of(step); }

void CheckpointFolder::settle_leftovers() {
  for (const std::string& name : files_.list(folder_)) {
    if (const auto complete = without(name, replaced)) settle_replaced(*complete);
    if (without(name, removed)) files_.remove(folder_ / name);
    if (!without(name, partial)) continue;
    base::notice((folder_ / name).string() + ": removing a checkpoint that was never completed");
    files_.remove(folder_ / name);
  }
}

// The one that made way comes back where the new one never arrived. It goes only when the new one is on the medium: the
// program may have been killed before it could see to that.
void CheckpointFolder::settle_replaced(const std::string& name) {
  const Path path = folder_ / name;
  if (!files_.exists(path)) files_.rename(with(path, replaced), path);
  files_.sync_folder(folder_);
  remove_if_there(files_, with(path, replaced));
}

std::vector<int64_t> CheckpointFolder::listed_steps() const {
  std::vector<int64_t> steps;
  if (!files_.exists(folder_)) return steps;
  for (const std::string& name : files_.list(folder_)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::vector<int64_t> CheckpointFolder::steps() const {
  std::vector<int64_t> steps = listed_steps();
  std::erase_if(steps, [this](int64_t step) { return !is_complete(files_, path_of(step), step); });
  return steps;
}

std::optional<int64_t> CheckpointFolder::newest() const {
  const std::vector<int64_t> complete = steps();
  return complete.empty() ? std::nullopt : std::optional(complete.back());
}

void CheckpointFolder::save(int64_t step, const CheckpointState& content) {
  if (step < 0) throw Error(ErrorCode::invalid_argument, "a checkpoint's step must be 0 or more");
  for (const int64_t other : listed_steps()) {
    if (other <= step || damaged_.contains(other)) continue;
    throw Error(ErrorCode::invalid_argument, folder_.string() + ": holds step " + std::to_string(other) +
                                                 ", newer than the step to be saved, " + std::to_string(step) +
                                                 "; continue from it or use another folder");
  }
  const Path unfinished = with(path_of(step), partial);
  remove_if_there(files_, unfinished);
  try {
    write_step(files_, unfinished, step, content);
    publish(step);
  } catch (...) {
    withdraw(step);
    throw;
  }
  damaged_.erase(step);
  remove_old(step);
}

// Makes room on a full disk. What it cannot do now the next start does.
void CheckpointFolder::withdraw(int64_t step) {
  try {
    const Path path = path_of(step);
    remove_if_there(files_, with(path, partial));
    if (files_.exists(with(path, replaced))) settle_replaced(name_of(step));
  } catch (const std::exception&) {  // the error that led here is the one to tell
  }
}

// A crash that keeps only the first renaming is settled at the next start; either of the others leaves a whole one.
void CheckpointFolder::publish(int64_t step) {
  const Path path = path_of(step);
  if (files_.exists(path)) {
    remove_if_there(files_, with(path, replaced));
    files_.rename(path, with(path, replaced));
  }
  files_.rename(with(path, partial), path);
  files_.sync_folder(folder_);
}

// Here the new one is safe. What goes wrong is a warning: there is nothing to mend about the save.
void CheckpointFolder::remove_old(int64_t saved) {
  try {
    remove_if_there(files_, with(path_of(saved), replaced));
    const std::vector<int64_t> present = listed_steps();
    int64_t kept = 1;
    for (auto step = present.rbegin(); step != present.rend(); ++step) {
      if (*step == saved) continue;
      if (!damaged_.contains(*step) && kept < keep_) {
        ++kept;
      } else {
        remove_step(*step);
      }
    }
  } catch (const Error& problem) {
    base::warn("removing old checkpoints: " + std::string(problem.what()));
  }
}

// Loses its name first: what has the name of a checkpoint is whole.
void CheckpointFolder::remove_step(int64_t step) {
  const Path doomed = with(path_of(step), removed);
  remove_if_there(files_, doomed);
  files_.rename(path_of(step), doomed);
  files_.sync_folder(folder_);
  files_.remove(doomed);
  damaged_.erase(step);
}

std::optional<std::pair<int64_t, CheckpointState>> CheckpointFolder::load_newest() {
  const std::vector<int64_t> present = listed_steps();
  for (auto step = present.rbegin(); step != present.rend(); ++step) {
    try {
      return std::pair(*step, read_step(files_, path_of(*step), *step));
    } catch (const Error& problem) {
      if (problem.code() == ErrorCode::out_of_memory || problem.code() == ErrorCode::internal) throw;
      base::warn("the checkpoint of step " + std::to_string(*step) + " is damaged: " + problem.what());
      damaged_.insert(*step);
    }
  }
  if (present.empty()) return std::nullopt;
  throw Error(ErrorCode::corrupt, folder_.string() + ": none of the checkpoints here is intact (" +
                                      std::to_string(present.size()) + "); use another folder to begin from the start");
}

}  // namespace cepe::train
