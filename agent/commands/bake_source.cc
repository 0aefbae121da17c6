#include "agent/commands/bake_source.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string_view>

#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr std::string_view kLayoutPrefix = "oci-layout:";
constexpr std::string_view kTarPrefix = "tar:";

bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (text->substr(0, prefix.size()) != prefix) return false;
  text->remove_prefix(prefix.size());
  return true;
}

bool IsFolder(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<std::string> RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), &::free);
  if (real) return std::string(real.get());
  return WithReason(ErrnoError(errno, "source " + path), "SOURCE_NOT_READABLE");
}

absl::StatusOr<BakeSource> LayoutSource(std::string folder) {
  BakeSource source;
  // A folder's name may hold a colon itself: what is there as a whole has no name behind it.
  const size_t colon = folder.rfind(':');
  if (!IsFolder(folder) && colon != std::string::npos && IsFolder(folder.substr(0, colon))) {
    source.spec.layout_name = folder.substr(colon + 1);
    folder.resize(colon);
  }
  ASSIGN_OR_RETURN(source.tar_root, RealPath(folder));
  if (!IsFolder(source.tar_root)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "SOURCE_NOT_READABLE",
                       "source " + folder + " is no folder: name an archive as tar:FILE");
  }
  source.spec.tar_path = ".";
  return source;
}

absl::StatusOr<BakeSource> TarSource(const std::string& file) {
  BakeSource source;
  ASSIGN_OR_RETURN(const std::string real, RealPath(file));
  if (IsFolder(real)) {
    return ReasonError(absl::StatusCode::kInvalidArgument, "SOURCE_NOT_READABLE",
                       "source " + file + " is a folder: name a layout as oci-layout:DIR");
  }
  const size_t slash = real.rfind('/');
  source.tar_root = slash == 0 ? "/" : real.substr(0, slash);
  source.spec.tar_path = real.substr(slash + 1);
  return source;
}

}  // namespace

absl::StatusOr<BakeSource> ParseBakeSource(const std::string& text) {
  std::string_view rest = text;
  BakeSource source;
  if (TakePrefix(kLayoutPrefix, &rest)) {
    ASSIGN_OR_RETURN(source, LayoutSource(std::string(rest)));
  } else if (TakePrefix(kTarPrefix, &rest)) {
    ASSIGN_OR_RETURN(source, TarSource(std::string(rest)));
  } else {
    source.spec.oci_ref = text;
  }
  source.spec.scope = "platform";
  return source;
}

}  // namespace bunker::agent
