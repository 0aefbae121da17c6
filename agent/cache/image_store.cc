#include "agent/cache/image_store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
constexpr char kTemporaryPrefix[] = ".baking-";
constexpr size_t kMaxRecipeBytes = 1 << 20;
constexpr auto kCancelPoll = std::chrono::milliseconds(200);

bool IsRecipe(const std::string& name) {
  return name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string ToJson(const BakedImage& image) {
  return nlohmann::json{{"recipe_digest", image.recipe_digest},
                        {"rootfs_digest", image.rootfs_digest},
                        {"apparent_bytes", image.apparent_bytes},
                        {"allocated_bytes", image.allocated_bytes},
                        {"blobs", image.blobs}}
             .dump(2) +
         "\n";
}

std::optional<BakedImage> FromJson(const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto string_at = [&](const char* key) {
    return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
  };
  const auto number_at = [&](const char* key) {
    return json.contains(key) && json[key].is_number_unsigned() ? json[key].get<uint64_t>() : 0;
  };
  BakedImage image{string_at("recipe_digest"),
                   string_at("rootfs_digest"),
                   number_at("apparent_bytes"),
                   number_at("allocated_bytes"),
                   {},
                   {}};
  if (json.contains("blobs") && json["blobs"].is_array()) {
    for (const auto& blob : json["blobs"]) {
      if (blob.is_string()) image.blobs.push_back(blob.get<std::string>());
    }
  }
  if (!IsRecipe(image.recipe_digest) || image.rootfs_digest.empty()) return std::nullopt;
  return image;
}

void RemoveTree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error)
    Log(Severity::kWarning, "image_store.remove_failed",
        {{"path", path.string()}, {"error", error.message()}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageStore>> ImageStore::Open(const std::string& folder) {
  RETURN_IF_ERROR(MakeFolders(folder, 0755));
  std::unique_ptr<ImageStore> store(new ImageStore(folder));
  store->Load();
  return store;
}

void ImageStore::Load() {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename();
    if (!IsRecipe(name)) {
      RemoveTree(entry.path());
      continue;
    }
    const auto text = ReadFile(entry.path() / "recipe.json", kMaxRecipeBytes);
    const auto image = text.ok() ? FromJson(*text) : std::nullopt;
    struct stat info {};
    const bool whole = image && image->recipe_digest == name &&
                       ::stat(RootfsPath(name).c_str(), &info) == 0 &&
                       static_cast<uint64_t>(info.st_size) == image->apparent_bytes;
    if (whole) {
      images_[name] = *image;
      if (::stat(RecipePath(name).c_str(), &info) == 0)
        images_[name].last_used = absl::TimeFromTimespec(info.st_mtim);
    } else {
      Log(Severity::kWarning, "image_store.dropped", {{"recipe", name}});
      RemoveTree(entry.path());
    }
  }
}

std::string ImageStore::RecipePath(const std::string& recipe_digest) const {
  return folder_ + "/" + recipe_digest + "/recipe.json";
}

std::string ImageStore::RootfsPath(const std::string& recipe_digest) const {
  return folder_ + "/" + recipe_digest + "/rootfs.ext4";
}

std::optional<BakedImage> ImageStore::Find(const std::string& recipe_digest) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = images_.find(recipe_digest);
  if (it == images_.end()) return std::nullopt;
  return it->second;
}

std::vector<BakedImage> ImageStore::List() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<BakedImage> images;
  for (const auto& [recipe, image] : images_) images.push_back(image);
  return images;
}

absl::StatusOr<std::unique_ptr<ImageStore::Lease>> ImageStore::Acquire(
    const std::string& recipe_digest, CancelToken& cancel) {
  BUNKER_CHECK(IsRecipe(recipe_digest));
  std::string temporary;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    while (leased_.count(recipe_digest) != 0) {
      RETURN_IF_ERROR(cancel.Check());
      released_.wait_for(lock, kCancelPoll);
    }
    leased_.insert(recipe_digest);
    temporary = folder_ + "/" + kTemporaryPrefix + std::to_string(next_temporary_++);
  }
  std::unique_ptr<Lease> lease(new Lease(this, recipe_digest, temporary));
  RETURN_IF_ERROR(MakeFolders(temporary, 0755));
  return lease;
}

ImageStore::Lease::~Lease() {
  RemoveTree(folder_);
  store_->Release(recipe_);
}

std::string ImageStore::Lease::temporary_rootfs_path() const {
  return folder_ + "/rootfs.ext4";
}

void ImageStore::Release(const std::string& recipe) {
  std::lock_guard<std::mutex> lock(mutex_);
  leased_.erase(recipe);
  released_.notify_all();
}

absl::Status ImageStore::Publish(Lease& lease, const BakedImage& image) {
  BUNKER_CHECK(image.recipe_digest == lease.recipe_);
  RETURN_IF_ERROR(WriteFileDurably(lease.folder_ + "/recipe.json", ToJson(image), 0644));
  const std::string final_folder = folder_ + "/" + image.recipe_digest;
  if (::rename(lease.folder_.c_str(), final_folder.c_str()) != 0)
    return ErrnoError(errno, "publishing " + final_folder);
  RETURN_IF_ERROR(SyncFolder(folder_));
  std::lock_guard<std::mutex> lock(mutex_);
  images_[image.recipe_digest] = image;
  images_[image.recipe_digest].last_used = absl::Now();
  return absl::OkStatus();
}

void ImageStore::Pin(const std::string& recipe_digest) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++pins_[recipe_digest];
  TouchLocked(recipe_digest);
}

void ImageStore::Unpin(const std::string& recipe_digest) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto it = pins_.find(recipe_digest);
  BUNKER_CHECK(it != pins_.end());
  if (--it->second == 0) pins_.erase(it);
  TouchLocked(recipe_digest);
}

bool ImageStore::IsPinned(const std::string& recipe_digest) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pins_.count(recipe_digest) != 0;
}

void ImageStore::TouchLocked(const std::string& recipe_digest) {
  const auto it = images_.find(recipe_digest);
  if (it == images_.end()) return;
  it->second.last_used = absl::Now();
  // The file's own time is what outlives this process; losing it costs the order of eviction.
  (void)::utimensat(AT_FDCWD, RecipePath(recipe_digest).c_str(), nullptr, 0);
}

absl::StatusOr<std::string> ImageStore::Retire(const std::string& recipe_digest) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (images_.count(recipe_digest) == 0) return std::string();
  if (pins_.count(recipe_digest) != 0)
    return absl::FailedPreconditionError("image " + recipe_digest + " is in use");
  // A crash between this rename and the deletion leaves a name that Load() sweeps.
  const std::string retired =
      folder_ + "/" + kTemporaryPrefix + "retired-" + std::to_string(next_temporary_++);
  if (::rename((folder_ + "/" + recipe_digest).c_str(), retired.c_str()) != 0)
    return ErrnoError(errno, "retiring image " + recipe_digest);
  images_.erase(recipe_digest);
  return retired;
}

void ImageStore::DeleteRetired(const std::string& folder) {
  RemoveTree(folder);
}

}  // namespace bunker::agent
