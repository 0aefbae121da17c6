#include "agent/reconcile/template_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace bunker::agent {

Template::~Template() {
  std::error_code ignored;  // what is left is swept at the agent's next start
  if (!folder.empty()) std::filesystem::remove_all(folder, ignored);
}

uint64_t Template::BytesNow() const {
  uint64_t now = 0;
  for (const int fd : {snapshot.memory.get(), snapshot.devices.get()}) {
    struct stat info{};
    if (fd >= 0 && fstat(fd, &info) == 0) now += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return std::max(bytes, now);
}

std::shared_ptr<const Template> TemplateStore::Find(const std::string& key, uint64_t disk_mb) {
  List dropped;  // ended without the lock
  MutexLock lock(mutex_);
  auto best = kept_.end();
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if ((*it)->key != key || (*it)->disk_mb > disk_mb) continue;
    if (best == kept_.end() || (*it)->disk_mb > (*best)->disk_mb) best = it;
  }
  if (best == kept_.end()) return nullptr;
  kept_.splice(kept_.begin(), kept_, best);
  TrimLocked(&dropped);
  return kept_.front();
}

absl::Status TemplateStore::Put(std::shared_ptr<const Template> made) {
  if (max_count_ == 0 || made->bytes > max_bytes_) {
    return absl::ResourceExhaustedError(
        "it takes more than all templates may (vm.template_max, vm.template_memory_mb)");
  }
  List dropped;  // ended without the lock
  MutexLock lock(mutex_);
  kept_.push_front(std::move(made));
  TrimLocked(&dropped);
  return absl::OkStatus();
}

void TemplateStore::TrimLocked(List* dropped) {
  while (kept_.size() > 1 && (kept_.size() > max_count_ || BytesLocked() > max_bytes_)) {
    dropped->splice(dropped->end(), kept_, std::prev(kept_.end()));
  }
}

void TemplateStore::Drop(const std::shared_ptr<const Template>& bad) {
  MutexLock lock(mutex_);
  kept_.remove(bad);
}

void TemplateStore::DropImage(const std::string& recipe_digest) {
  MutexLock lock(mutex_);
  kept_.remove_if([&](const auto& kept) { return kept->recipe_digest == recipe_digest; });
}

size_t TemplateStore::count() const {
  MutexLock lock(mutex_);
  return kept_.size();
}

uint64_t TemplateStore::bytes() const {
  MutexLock lock(mutex_);
  return BytesLocked();
}

uint64_t TemplateStore::BytesLocked() const {
  uint64_t bytes = 0;
  for (const auto& kept : kept_) bytes += kept->BytesNow();
  return bytes;
}

}  // namespace bunker::agent
