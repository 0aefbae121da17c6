#include "agent/cache/blob_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <optional>

#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/sha256.h"
#include "common/base/hex.h"
#include "common/base/status_macros.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {
constexpr size_t kReadBytes = 256u << 10;
constexpr uint64_t kTellBytes = 256u << 10;
constexpr uint64_t kWriteBehindBytes = 8u << 20;
constexpr std::chrono::milliseconds kStopPoll{100};
constexpr double kFastBytesPerSecond = 1 << 20;
constexpr absl::Duration kTurn = absl::Seconds(1);  // enough for who waits to wake up

absl::Status Mismatch(const oci::Digest& digest, std::string_view why) {
  return ReasonError(absl::StatusCode::kDataLoss, "DIGEST_MISMATCH",
                     "blob " + digest.str() + ": " + std::string(why) +
                         "; nothing of it was kept: push the image again, or check the registry's "
                         "storage and what lies between");
}

absl::Status Cancelled() {
  return ReasonError(absl::StatusCode::kCancelled, "CANCELLED",
                     "the download was cancelled because its result is no longer wanted");
}

// Whether the bytes so far may be built upon by the next attempt.
bool KeepsPartial(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "CANCELLED" || reason == "REGISTRY_UNREACHABLE" ||
         reason == "REGISTRY_RATE_LIMITED" || reason == "REGISTRY_AUTH_FAILED";
}

std::optional<oci::Digest> DigestOfName(const std::string& name) {
  auto digest = oci::Digest::Parse("sha256:" + name);
  if (!digest.ok()) return std::nullopt;
  return *digest;
}

bool IsSameFile(int fd, const struct stat& other) {
  struct stat file = {};
  return ::fstat(fd, &file) == 0 && file.st_dev == other.st_dev && file.st_ino == other.st_ino;
}

void RemoveStray(const std::filesystem::path& path, const char* why) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  Log(Severity::kInfo, "blob.removed", {{"file", path.filename().string()}, {"why", why}});
}
}  // namespace

class BlobStore::PinnedBlob final : public oci::Blob {
 public:
  PinnedBlob(std::shared_ptr<State> state, std::string path, oci::Digest digest, uint64_t size,
             uint64_t generation)
      : state_(std::move(state)), path_(std::move(path)), digest_(std::move(digest)), size_(size),
        generation_(generation) {}
  ~PinnedBlob() override {
    MutexLock lock(state_->mutex);
    const auto it = state_->blobs.find(digest_);
    if (it == state_->blobs.end() || it->second.generation != generation_) return;
    --it->second.pins;
    it->second.last_used = absl::Now();
  }
  PinnedBlob(const PinnedBlob&) = delete;
  PinnedBlob& operator=(const PinnedBlob&) = delete;

  const std::string& path() const override { return path_; }
  const oci::Digest& digest() const override { return digest_; }
  uint64_t size_bytes() const override { return size_; }

 private:
  const std::shared_ptr<State> state_;
  const std::string path_;
  const oci::Digest digest_;
  const uint64_t size_;
  const uint64_t generation_;
};

class BlobStore::Writer final : public oci::BlobWriter {
 public:
  Writer(std::shared_ptr<State> state, oci::Digest digest, uint64_t size, UniqueFd fd,
         const Flight& flight)
      : state_(std::move(state)),
        digest_(std::move(digest)),
        size_(size),
        fd_(std::move(fd)),
        origin_(flight.origin),
        yield_(flight.yield) {
    state_->Begin(digest_, fd_.get());
  }

  // Hashes what an earlier attempt left; more than the blob's size is no start to build upon.
  absl::Status Resume() {
    std::string buffer(kReadBytes, '\0');
    for (;;) {
      const ssize_t n = ::read(fd_.get(), buffer.data(), buffer.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError(errno, "read the partial blob " + digest_.str());
      if (n == 0) break;
      offset_ += static_cast<uint64_t>(n);
      if (offset_ > size_) return Restart();
      hash_.Update(buffer.data(), static_cast<size_t>(n));
    }
    Tell();
    return absl::OkStatus();
  }

  uint64_t offset() const override { return offset_; }
  bool ShouldYield() const override { return yield_; }

  absl::Status Restart() override {
    if (::ftruncate(fd_.get(), 0) != 0 || ::lseek(fd_.get(), 0, SEEK_SET) != 0)
      return ErrnoError(errno, "truncate the partial blob " + digest_.str());
    offset_ = 0;
    flushed_ = 0;
    hash_ = Sha256();
    Tell();
    return absl::OkStatus();
  }

  absl::Status Write(std::string_view data) override {
    if (data.size() > size_ - offset_) {
      return Mismatch(digest_, "the registry sends more than the " + std::to_string(size_) +
                                   " bytes that the manifest declares");
    }
    if (absl::Status status = WriteAll(fd_.get(), data); !status.ok()) {
      if (ReasonOf(status) != "DISK_FULL") status = WithReason(status, "INTERNAL");
      return Annotate(status, "writing blob " + digest_.str() +
                                  " (free space in the agent's state folder)");
    }
    hash_.Update(data);
    offset_ += data.size();
    // In pieces that are worth the waking of those who wait for them.
    if (offset_ - told_ >= kTellBytes || offset_ == size_) Tell();
    // On its way to the disk as it comes, so that the sync at the end has little left to do.
    if (offset_ - flushed_ >= kWriteBehindBytes) {
      (void)::sync_file_range(fd_.get(), static_cast<off_t>(flushed_),
                              static_cast<off_t>(offset_ - flushed_), SYNC_FILE_RANGE_WRITE);
      flushed_ = offset_;
    }
    return absl::OkStatus();
  }

  std::string FinishHex() { return HexEncode(hash_.Finish()); }
  int fd() const { return fd_.get(); }

 private:
  void Tell() {
    told_ = offset_;
    state_->Tell(digest_, origin_, offset_);
  }

  const std::shared_ptr<State> state_;
  const oci::Digest digest_;
  const uint64_t size_;
  const UniqueFd fd_;
  const std::string& origin_;  // the flight's, which outlives the writer
  const std::atomic<bool>& yield_;
  uint64_t told_ = 0;
  uint64_t flushed_ = 0;
  uint64_t offset_ = 0;
  Sha256 hash_;
};

absl::StatusOr<std::unique_ptr<BlobStore>> BlobStore::Open(const std::string& folder,
                                                           absl::Duration partial_life,
                                                           absl::Duration patience) {
  std::unique_ptr<BlobStore> store(new BlobStore(folder, patience));
  RETURN_IF_ERROR(MakeFolders(folder + "/sha256", 0700));
  RETURN_IF_ERROR(MakeFolders(folder + "/partial", 0700));
  store->lock_.reset(::open((folder + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!store->lock_) return ErrnoError(errno, "open " + folder + "/lock");
  if (::flock(store->lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(folder +
                                         " is used by another process: one agent per state folder");
  }
  RETURN_IF_ERROR(store->Recover(partial_life));
  return store;
}

BlobStore::~BlobStore() = default;

absl::Status BlobStore::Recover(absl::Duration partial_life) {
  RETURN_IF_ERROR(RecoverBlobs());
  return RecoverPartials(partial_life);
}

absl::Status BlobStore::RecoverBlobs() {
  std::error_code error;
  MutexLock lock(state_->mutex);
  for (const auto& file : std::filesystem::directory_iterator(folder_ + "/sha256", error)) {
    const auto digest = DigestOfName(file.path().filename().string());
    struct stat info;
    if (!digest || ::lstat(file.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      RemoveStray(file.path(), "not a blob");
      continue;
    }
    state_->blobs[*digest] = {.size_bytes = static_cast<uint64_t>(info.st_size),
                              .last_used = absl::TimeFromTimespec(info.st_atim),
                              .pins = 0,
                              .generation = state_->next_generation++};
  }
  if (error) return ErrnoError(error.value(), "list " + folder_ + "/sha256");
  return absl::OkStatus();
}

absl::Status BlobStore::RecoverPartials(absl::Duration partial_life) {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder_ + "/partial", error)) {
    struct stat info;
    const auto digest = DigestOfName(file.path().filename().string());
    if (!digest || ::lstat(file.path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
      RemoveStray(file.path(), "not a partial blob");
    } else if (absl::Now() - absl::TimeFromTimespec(info.st_mtim) > partial_life) {
      RemoveStray(file.path(), "an old partial blob");
    }
  }
  if (error) return ErrnoError(error.value(), "list " + folder_ + "/partial");
  return absl::OkStatus();
}

std::string BlobStore::PathOf(const oci::Digest& digest) const {
  return folder_ + "/sha256/" + digest.hex();
}
std::string BlobStore::PartialPathOf(const oci::Digest& digest) const {
  return folder_ + "/partial/" + digest.hex();
}

std::shared_ptr<const oci::Blob> BlobStore::PinLocked(const oci::Digest& digest) {
  const auto it = state_->blobs.find(digest);
  if (it == state_->blobs.end()) return nullptr;
  ++it->second.pins;
  it->second.last_used = absl::Now();
  return std::make_shared<PinnedBlob>(state_, PathOf(digest), digest, it->second.size_bytes,
                                      it->second.generation);
}

void BlobStore::Follower::Tell(uint64_t bytes) {
  if (stale_ || bytes == told_) return;
  if (bytes < told_) {
    stale_ = true;
    return;
  }
  told_ = bytes;
  on_bytes_(bytes);
}

void BlobStore::State::Begin(const oci::Digest& digest, int fd) {
  struct stat file = {};
  (void)::fstat(fd, &file);
  MutexLock lock(mutex);
  const auto [first, last] = followers.equal_range(digest);
  for (auto it = first; it != last; ++it)
    if (!IsSameFile(it->second->fd(), file)) it->second->stale_ = true;
}

void BlobStore::State::Tell(const oci::Digest& digest, const std::string& origin, uint64_t bytes) {
  MutexLock lock(mutex);
  if (const auto flight = flights.find(digest); flight != flights.end())
    flight->second->bytes = bytes;
  const auto [first, last] = followers.equal_range(digest);
  for (auto it = first; it != last; ++it) {
    if (it->second->origin_ == origin || bytes < it->second->told_) it->second->Tell(bytes);
  }
}

void BlobStore::State::Complete(const oci::Digest& digest, const std::string& path,
                                uint64_t bytes) {
  struct stat file = {};
  (void)::lstat(path.c_str(), &file);
  const auto [first, last] = followers.equal_range(digest);
  for (auto it = first; it != last; ++it) {
    if (!IsSameFile(it->second->fd(), file)) it->second->stale_ = true;
    it->second->Tell(bytes);
  }
}

absl::StatusOr<std::unique_ptr<BlobStore::Follower>> BlobStore::Follow(
    const oci::Digest& digest, const std::string& origin, std::function<void(uint64_t)> on_bytes) {
  MutexLock lock(state_->mutex);
  const auto blob = state_->blobs.find(digest);
  const bool whole = blob != state_->blobs.end();
  const std::string path = whole ? PathOf(digest) : PartialPathOf(digest);
  const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (whole ? 0 : O_CREAT);
  UniqueFd fd(::open(path.c_str(), flags, 0600));
  struct stat file = {};
  if (!fd || ::fstat(fd.get(), &file) != 0) return ErrnoError(errno, "open " + path);
  std::unique_ptr<Follower> follower(
      new Follower(*this, digest, origin, std::move(fd), std::move(on_bytes)));
  if (whole) follower->Tell(blob->second.size_bytes);
  if (const auto flight = state_->flights.find(digest); flight != state_->flights.end()) {
    // Just renamed, or just begun anew: not the file that was opened here.
    if (static_cast<uint64_t>(file.st_size) < flight->second->bytes) follower->stale_ = true;
    if (flight->second->origin == origin) follower->Tell(flight->second->bytes);
  }
  state_->followers.emplace(digest, follower.get());
  return follower;
}

BlobStore::Follower::~Follower() {
  MutexLock lock(state_->mutex);
  std::erase_if(state_->followers, [this](const auto& entry) { return entry.second == this; });
  struct stat file = {};
  // Made by Follow() for a fetch that never began.
  if (::lstat(store_.PartialPathOf(digest_).c_str(), &file) == 0 && file.st_size == 0)
    store_.DropPartialLocked(digest_);
}

void BlobStore::DropPartialLocked(const oci::Digest& digest) {
  if (state_->flights.contains(digest) || state_->followers.contains(digest)) return;
  ::unlink(PartialPathOf(digest).c_str());
}

void BlobStore::DropPartial(const oci::Digest& digest) {
  MutexLock lock(state_->mutex);
  DropPartialLocked(digest);
}

void BlobStore::DropPartials(absl::Duration unused) {
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(folder_ + "/partial", error)) {
    const auto digest = DigestOfName(file.path().filename().string());
    struct stat info = {};
    if (!digest || ::lstat(file.path().c_str(), &info) != 0) continue;
    if (absl::Now() - absl::TimeFromTimespec(info.st_mtim) < unused) continue;
    DropPartial(*digest);
  }
}

std::shared_ptr<const oci::Blob> BlobStore::Find(const oci::Digest& digest) {
  MutexLock lock(state_->mutex);
  return PinLocked(digest);
}

absl::StatusOr<BlobStore::Claim> BlobStore::Join(const oci::Digest& digest, uint64_t size_bytes,
                                                 const std::string& origin,
                                                 const std::function<bool()>& stop) {
  MutexLock lock(state_->mutex);
  for (;;) {
    if (stop && stop()) return Cancelled();
    if (const auto found = state_->blobs.find(digest); found != state_->blobs.end()) {
      if (found->second.size_bytes == size_bytes) return Claim{PinLocked(digest), nullptr};
      return Mismatch(digest, "the manifest declares " + std::to_string(size_bytes) +
                                  " bytes, the content of that digest has " +
                                  std::to_string(found->second.size_bytes));
    }
    const auto slot = state_->flights.find(digest);
    if (slot == state_->flights.end()) {
      if (LetsOthersGo(digest, origin)) {
        state_->changed.wait_for(lock.native(), kStopPoll);
        continue;
      }
      const auto flight = std::make_shared<Flight>();
      flight->origin = origin;
      state_->flights[digest] = flight;
      return Claim{nullptr, flight};
    }
    const std::shared_ptr<Flight> other = slot->second;
    RETURN_IF_ERROR(WaitFor(*other, origin, stop, lock));
    // Another's failure is ours where we would ask the same place in the same name.
    const bool shared = other->origin == origin && ReasonOf(other->result) != "CANCELLED" &&
                        !other->Yielded();
    if (!other->result.ok() && shared) return other->result;
  }
}

bool BlobStore::LetsOthersGo(const oci::Digest& digest, const std::string& origin) {
  const auto yielded = state_->yielded.find(digest);
  if (yielded == state_->yielded.end()) return false;
  if (yielded->second.origin == origin && MonotonicTime() < yielded->second.until) return true;
  state_->yielded.erase(yielded);
  return false;
}

absl::Status BlobStore::WaitFor(Flight& other, const std::string& origin,
                                const std::function<bool()>& stop, MutexLock& lock) {
  absl::Duration since = MonotonicTime();
  uint64_t bytes = other.bytes;
  while (!other.done) {
    state_->changed.wait_for(lock.native(), kStopPoll);
    if (other.done) break;
    if (stop && stop()) return Cancelled();
    const absl::Duration waited = MonotonicTime() - since;
    const bool silent = other.bytes == bytes && waited >= patience_ / 5;
    if (other.origin == origin || (waited < patience_ && !silent)) continue;
    const double gained = static_cast<double>(other.bytes) - static_cast<double>(bytes);
    if (gained < kFastBytesPerSecond * absl::ToDoubleSeconds(waited)) other.yield = true;
    since += waited;
    bytes = other.bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const oci::Blob>> BlobStore::GetOrFetch(
    const oci::Digest& digest, uint64_t size_bytes, const std::string& origin, const Fetch& fetch,
    const std::function<bool()>& stop) {
  BUNKER_CHECK(!digest.empty());
  for (;;) {
    ASSIGN_OR_RETURN(const Claim claim, Join(digest, size_bytes, origin, stop));
    if (claim.blob != nullptr) return claim.blob;
    const absl::Status result = RunFetch(digest, size_bytes, fetch, *claim.flight);
    MutexLock lock(state_->mutex);
    claim.flight->done = true;
    claim.flight->result = result;
    state_->flights.erase(digest);
    if (result.ok()) {
      state_->changed.notify_all();
      state_->yielded.erase(digest);
      state_->blobs[digest] = {.size_bytes = size_bytes, .last_used = absl::Now(), .pins = 0,
                               .generation = state_->next_generation++};
      state_->Complete(digest, PathOf(digest), size_bytes);
      return PinLocked(digest);
    }
    const bool yielded = claim.flight->Yielded();
    if (yielded) state_->yielded[digest] = {origin, MonotonicTime() + kTurn};
    state_->changed.notify_all();
    if (!yielded || (stop && stop())) return result;
  }
}
// Said before anything is transferred: a disk that is filled to the brim hurts others first.
absl::Status BlobStore::CheckRoom(const oci::Digest& digest, uint64_t missing_bytes) const {
  struct statvfs info;
  if (::statvfs(folder_.c_str(), &info) != 0) return ErrnoError(errno, "statvfs " + folder_);
  const uint64_t free_bytes =
      std::min(uint64_t{info.f_bavail} * info.f_frsize, budget_bytes_.load());
  if (missing_bytes <= free_bytes) return absl::OkStatus();
  return ReasonError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                     "blob " + digest.str() + " needs " + std::to_string(missing_bytes) +
                         " bytes more and the agent's state folder may take " +
                         std::to_string(free_bytes) + ": make room there, or use another worker");
}

absl::Status BlobStore::RunFetch(const oci::Digest& digest, uint64_t size_bytes,
                                 const Fetch& fetch, const Flight& flight) {
  bool resumed = false;
  absl::Status status = FetchOnce(digest, size_bytes, fetch, flight, &resumed);
  // What a crash left behind may be damaged where the download is not: once more, from nothing.
  if (resumed && ReasonOf(status) == "DIGEST_MISMATCH")
    status = FetchOnce(digest, size_bytes, fetch, flight, &resumed);
  return status;
}

absl::Status BlobStore::FetchOnce(const oci::Digest& digest, uint64_t size_bytes,
                                  const Fetch& fetch, const Flight& flight, bool* resumed) {
  const std::string partial = PartialPathOf(digest);
  UniqueFd fd(::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return ErrnoError(errno, "create " + partial);
  Writer writer(state_, digest, size_bytes, std::move(fd), flight);
  absl::Status status = writer.Resume();
  *resumed = writer.offset() > 0;
  if (status.ok()) status = CheckRoom(digest, size_bytes - writer.offset());
  if (status.ok() && writer.offset() < size_bytes) status = fetch(writer);
  if (status.ok()) status = Publish(writer, digest, size_bytes);
  if (!status.ok() && (!KeepsPartial(status) || writer.offset() == 0)) ::unlink(partial.c_str());
  return status;
}

absl::Status BlobStore::Publish(Writer& writer, const oci::Digest& digest, uint64_t size_bytes) {
  if (writer.offset() != size_bytes) {
    return Mismatch(digest, "only " + std::to_string(writer.offset()) + " of " +
                                std::to_string(size_bytes) + " bytes came");
  }
  if (const std::string hex = writer.FinishHex(); hex != digest.hex())
    return Mismatch(digest, "its content has the digest sha256:" + hex);
  if (::fchmod(writer.fd(), 0400) != 0) return ErrnoError(errno, "chmod blob " + digest.str());
  if (::fsync(writer.fd()) != 0) return ErrnoError(errno, "fsync blob " + digest.str());
  if (::rename(PartialPathOf(digest).c_str(), PathOf(digest).c_str()) != 0)
    return ErrnoError(errno, "rename blob " + digest.str());
  return SyncFolder(folder_ + "/sha256");
}

std::vector<BlobInfo> BlobStore::List() const {
  MutexLock lock(state_->mutex);
  std::vector<BlobInfo> list;
  for (const auto& [digest, entry] : state_->blobs)
    list.push_back({digest, entry.size_bytes, entry.last_used, entry.pins});
  return list;
}

uint64_t BlobStore::UsedBytes() const {
  MutexLock lock(state_->mutex);
  uint64_t total = 0;
  for (const auto& [digest, entry] : state_->blobs) total += entry.size_bytes;
  return total;
}

absl::Status BlobStore::Remove(const oci::Digest& digest) {
  MutexLock lock(state_->mutex);
  const auto it = state_->blobs.find(digest);
  if (it == state_->blobs.end()) return absl::OkStatus();
  if (it->second.pins > 0)
    return absl::FailedPreconditionError("blob " + digest.str() + " is in use");
  if (::unlink(PathOf(digest).c_str()) != 0 && errno != ENOENT)
    return ErrnoError(errno, "remove blob " + digest.str());
  state_->blobs.erase(it);
  return absl::OkStatus();
}

absl::Status BlobStore::Discard(const oci::Digest& digest) {
  MutexLock lock(state_->mutex);
  if (::unlink(PathOf(digest).c_str()) != 0 && errno != ENOENT)
    return ErrnoError(errno, "remove blob " + digest.str());
  state_->blobs.erase(digest);
  return absl::OkStatus();
}

}  // namespace bunker::agent
