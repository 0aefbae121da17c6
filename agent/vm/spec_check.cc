#include "agent/vm/spec_check.h"

#include <errno.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "agent/vm/unix_socket.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr uint32_t kMaxVcpus = 64;
constexpr uint32_t kMinMemoryMb = 64;
constexpr uint32_t kMaxMemoryMb = 1024 * 1024;
constexpr size_t kMaxKernelArgsBytes = 1024;  // the kernel takes 2,048 in all

absl::Status Refuse(const char* field, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("VM spec: ", field, " ", why));
}

absl::StatusOr<struct stat> StatFile(const char* field, const std::string& path) {
  struct stat info{};
  if (lstat(path.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("VM spec: ", field, " ", path));
  }
  if (!S_ISREG(info.st_mode)) return Refuse(field, absl::StrCat(path, " is not a regular file"));
  return info;
}

bool IsPlainWord(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '_' || c == '-' || c == '=' || c == '/' || c == ':';
    if (!plain) return false;
  }
  return true;
}

// "02:62:6b:00:00:02"
bool IsMac(std::string_view text) {
  if (text.size() != 17) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (i % 3 == 2 ? c != ':' : !hex) return false;
  }
  return true;
}

absl::Status CheckSizes(const VmSpec& spec) {
  if (spec.vcpus < 1 || spec.vcpus > kMaxVcpus) {
    return Refuse("vcpus", absl::StrCat("is ", spec.vcpus, ", must be 1 to ", kMaxVcpus));
  }
  if (spec.memory_mb < kMinMemoryMb || spec.memory_mb > kMaxMemoryMb) {
    return Refuse("memory_mb", absl::StrCat("is ", spec.memory_mb, ", must be ", kMinMemoryMb,
                                            " to ", kMaxMemoryMb));
  }
  const uint32_t console = spec.console_kib;
  if (console < 4 || console > 1024 || (console & (console - 1)) != 0) {
    return Refuse("console_kib", "must be a power of two from 4 to 1024");
  }
  if (!spec.nic_mac.empty() && !IsMac(spec.nic_mac)) return Refuse("nic_mac", "is no MAC address");
  if (spec.nic_mac.empty() != (spec.tap_fd < 0))
    return Refuse("tap_fd", "and nic_mac belong together: a network card needs both");
  if (spec.more_cards.size() > (spec.nic_mac.empty() ? 0 : kMaxMoreCards))
    return Refuse("more_cards", "are too many, or stand without a first one");
  for (const VmCard& card : spec.more_cards) {
    if (!IsMac(card.mac) || card.tap_fd < 0)
      return Refuse("more_cards", "each need a MAC address and a tap");
  }
  size_t bytes = 0;
  for (const std::string& word : spec.kernel_args) {
    if (!IsPlainWord(word)) return Refuse("kernel_args", "holds a word that isn't a plain one");
    bytes += word.size() + 1;
  }
  if (bytes > kMaxKernelArgsBytes) return Refuse("kernel_args", "is too long");
  return absl::OkStatus();
}

absl::Status CheckFolder(const VmSpec& spec) {
  struct stat info{};
  if (lstat(spec.folder.c_str(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("VM spec: folder ", spec.folder));
  }
  if (spec.folder[0] != '/' || !S_ISDIR(info.st_mode) || info.st_uid != 0 ||
      (info.st_mode & 0077) != 0) {
    return Refuse("folder", absl::StrCat(spec.folder, " must be an absolute path to a directory ",
                                         "of root's, mode 0700"));
  }
  const std::string name = std::filesystem::path(spec.folder).filename();
  if (!IsPlainWord(name)) return Refuse("folder", "must end in a plain generated name");
  return CheckSocketPath(spec.folder + "/channel.sock");
}

absl::Status CheckFiles(const VmSpec& spec) {
  ASSIGN_OR_RETURN(const struct stat base, StatFile("base_disk", spec.base_disk));
  if (base.st_uid != 0 || (base.st_mode & 0777) != 0444) {
    return Refuse("base_disk",
                  absl::StrCat(spec.base_disk, " must be root's and mode 0444: it is shared, and ",
                               "a VM's user must be able to read it only"));
  }
  ASSIGN_OR_RETURN(const struct stat rw, StatFile("rw_disk", spec.rw_disk));
  if (rw.st_uid != spec.uid || (rw.st_mode & 0777) != 0600) {
    return Refuse("rw_disk", absl::StrCat(spec.rw_disk, " must belong to uid ", spec.uid,
                                          " and be mode 0600: it is this VM's alone"));
  }
  const std::pair<const char*, const std::string&> shared[] = {{"kernel", spec.kernel},
                                                               {"initrd", spec.initrd}};
  for (const auto& [field, path] : shared) {
    struct stat info{};  // followed: an operator may well keep a link to the current one
    if (stat(path.c_str(), &info) != 0) {
      return Annotate(ErrnoError(errno, path),
                      absl::StrCat("VM spec: ", field, " (deploy/guest-kernel makes it; the ",
                                   "agent's config names it)"));
    }
    if (!S_ISREG(info.st_mode) || (info.st_mode & 0444) != 0444) {
      return Refuse(field,
                    absl::StrCat(path, " must be a file that everyone may read (chmod 0444)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckVmSpec(const VmSpec& spec) {
  if (spec.uid == 0) return Refuse("uid", "is root's: take one of the agent's range");
  if (spec.folder.empty()) return Refuse("folder", "is empty");
  RETURN_IF_ERROR(CheckSizes(spec));
  RETURN_IF_ERROR(CheckFolder(spec));
  return CheckFiles(spec);
}

}  // namespace bunker::agent
