// Opening what a tenant named, under the operator's folder and nowhere else.
//
// Paths are resolved by the kernel beneath an open folder (openat2), so that neither `..` nor a
// symlink, nor one swapped in at the last moment, leads out of it.
//
// Thread-safe: free functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/unique_fd.h"

namespace bunker::agent {

struct OpenedFile {
  UniqueFd fd;  // O_RDONLY
  bool is_folder = false;
  uint64_t size_bytes = 0;  // of a regular file
};

// Opens the regular file or folder `path` for an image of `scope`: beneath `tar_root` for
// `platform`, beneath its subfolder named `tenant_id` otherwise. `path` is absolute and starts
// with that folder, or is relative to it. SOURCE_NOT_READABLE, naming cause and remedy.
absl::StatusOr<OpenedFile> OpenInTarRoot(const std::string& tar_root, const std::string& scope,
                                         const std::string& tenant_id, const std::string& path);

// Opens `relative` beneath the folder `folder_fd`. kNotFound where it is not there, else
// kPermissionDenied; SOURCE_NOT_READABLE both.
absl::StatusOr<OpenedFile> OpenBeneath(int folder_fd, const std::string& relative);

// A path of this process by which an open file is opened again; valid while `fd` is open.
std::string PathOfFd(int fd);

}  // namespace bunker::agent
