// A registered image: what the tenant asked for, and what the first worker that resolved it found.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "controller/model/enum_names.h"
#include "controller/model/scope.h"

namespace bunker::controller {

enum class Arch { kUnspecified, kX86_64, kAarch64 };
inline constexpr EnumName<Arch> kArchNames[] = {
    {Arch::kUnspecified, ""}, {Arch::kX86_64, "X86_64"}, {Arch::kAarch64, "AARCH64"}};
inline std::span<const EnumName<Arch>> EnumNames(Arch) { return kArchNames; }

enum class SourceKind { kOci, kTar };
inline constexpr EnumName<SourceKind> kSourceKindNames[] = {{SourceKind::kOci, "oci"},
                                                            {SourceKind::kTar, "tar"}};
inline std::span<const EnumName<SourceKind>> EnumNames(SourceKind) { return kSourceKindNames; }

struct BuildSource {
  SourceKind kind = SourceKind::kOci;
  std::string ref;   // kOci
  std::string path;  // kTar
  bool operator==(const BuildSource&) const = default;
};

enum class ImageOrigin { kCustomize, kImageSave };
inline constexpr EnumName<ImageOrigin> kImageOriginNames[] = {
    {ImageOrigin::kCustomize, "CUSTOMIZE"}, {ImageOrigin::kImageSave, "IMAGE_SAVE"}};
inline std::span<const EnumName<ImageOrigin>> EnumNames(ImageOrigin) { return kImageOriginNames; }

enum class ScanStatus { kPending, kPassed, kFailed, kSkipped };
inline constexpr EnumName<ScanStatus> kScanStatusNames[] = {{ScanStatus::kPending, "pending"},
                                                            {ScanStatus::kPassed, "passed"},
                                                            {ScanStatus::kFailed, "failed"},
                                                            {ScanStatus::kSkipped, "skipped"}};
inline std::span<const EnumName<ScanStatus>> EnumNames(ScanStatus) { return kScanStatusNames; }

// Of the OCI image config.
struct ImageConfig {
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::vector<std::string> env;  // NAME=value, in order
  std::string working_dir;
  std::string user;
  std::vector<std::string> exposed_ports;
  bool operator==(const ImageConfig&) const = default;
};

// What a ref turned out to be: committed once, from the first worker that told, then the same for
// every worker and for ever.
struct ResolvedImage {
  std::string repository;
  std::string manifest_digest;  // of the platform's manifest: sha256:<64 hex>
  std::string index_digest;     // of the list it came from, or empty
  uint64_t layers_bytes = 0;
  std::vector<std::string> diff_ids;
  ImageConfig config;
  bool operator==(const ResolvedImage&) const = default;
};

// The reference's tag names other content by now. It is shown, not followed.
struct TagMoved {
  std::string digest;
  absl::Time seen_at;
  bool operator==(const TagMoved&) const = default;
};

// What the ModelArts adapter keeps beside the row: words of its own API.
struct ModelArtsFields {
  std::string swr_path;        // as it was sent
  std::string canonical_path;  // normalised; unique at its owner
  std::string service_type = "UNKNOWN";
  std::vector<std::string> services = {"NOTEBOOK", "SSH"};
  std::string visibility = "PRIVATE";
  std::string workspace_id = "0";
  bool operator==(const ModelArtsFields&) const = default;
};

struct Image {
  std::string id;  // img_…
  std::string name;
  std::string display_name;
  std::string description;
  BuildSource build_source;
  uint32_t size_mib = 0;
  uint32_t default_cpu_millicores = 1000;
  uint32_t default_memory_mb = 512;
  uint32_t default_disk_mb = 1024;
  Ownership ownership;
  std::string owner;  // the user who registered it
  bool lazy_pull = false;
  std::vector<std::string> preinstalled;
  Arch arch = Arch::kUnspecified;  // as asked for; until resolved "any"
  std::vector<std::string> resource_category = {"CPU"};
  ImageOrigin origin = ImageOrigin::kCustomize;
  std::vector<std::string> tags;
  std::optional<ModelArtsFields> modelarts;  // registered through that adapter

  std::optional<ResolvedImage> resolved;
  std::string rootfs_digest;     // fsverity-sha256:<64 hex>, of the first worker that baked it
  uint64_t allocated_bytes = 0;  // of the baked file

  std::string pull_secret;    // the name of a registry credential, as it was when it was chosen
  std::string credential_id;  // that it is

  std::optional<TagMoved> tag_moved;
  std::optional<absl::Time> tag_check_at;  // when the tag is looked up next

  bool active = true;
  ScanStatus scan_status = ScanStatus::kPending;
  std::string scan_summary;  // of the last scan that ended
  std::optional<absl::Time> scanned_at;
  absl::Time created_at;
  absl::Time updated_at;

  // The contract's size_in_bytes: the baked file's allocated bytes, before that the layers'.
  uint64_t size_in_bytes() const {
    if (allocated_bytes > 0) return allocated_bytes;
    return resolved ? resolved->layers_bytes : 0;
  }
  // The command that it runs: its entrypoint, and its cmd or what is given in place of that.
  std::vector<std::string> args(const std::vector<std::string>& in_place_of_cmd = {}) const;
  // The contract's url: repository@digest; "" until resolved.
  std::string url() const;
};

}  // namespace bunker::controller
