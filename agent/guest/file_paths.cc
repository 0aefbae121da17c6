#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>

#include "agent/guest/file_ops.h"

namespace bunker::guest {
namespace {

constexpr size_t kMaxQuotedBytes = 200;

std::string_view WithoutTrailingSlashes(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

v1::FileRow::Type TypeOf(mode_t mode) {
  if (S_ISREG(mode)) return v1::FileRow::FILE;
  if (S_ISDIR(mode)) return v1::FileRow::FOLDER;
  if (S_ISLNK(mode)) return v1::FileRow::SYMLINK;
  return v1::FileRow::OTHER;
}

}  // namespace

std::string BaseName(std::string_view path) {
  path = WithoutTrailingSlashes(path);
  const size_t slash = path.rfind('/');
  if (path == "/" || slash == std::string_view::npos) return std::string(path);
  return std::string(path.substr(slash + 1));
}

std::string ParentOf(std::string_view path) {
  path = WithoutTrailingSlashes(path);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || slash == 0) return "/";
  return std::string(path.substr(0, slash));
}

std::string Quoted(std::string_view path) {
  const bool is_long = path.size() > kMaxQuotedBytes;
  return '"' + std::string(path.substr(0, kMaxQuotedBytes)) + (is_long ? "…\"" : "\"");
}

void FillRow(const struct stat& facts, std::string_view name, v1::FileRow* row) {
  row->set_name(std::string(name));
  row->set_type(TypeOf(facts.st_mode));
  row->set_size(static_cast<uint64_t>(facts.st_size));
  row->set_mode(facts.st_mode & 07777);
  row->set_uid(facts.st_uid);
  row->set_gid(facts.st_gid);
  row->set_modified_ns(static_cast<int64_t>(facts.st_mtim.tv_sec) * 1'000'000'000 +
                       facts.st_mtim.tv_nsec);
}

FileResult StatPath(const std::string& path, v1::FileRow* row) {
  struct stat facts{};
  if (lstat(path.c_str(), &facts) != 0) return FileErrno(Quoted(path));
  FillRow(facts, BaseName(path), row);
  if (S_ISLNK(facts.st_mode)) {
    char target[PATH_MAX];
    const ssize_t size = readlink(path.c_str(), target, sizeof(target));
    if (size > 0) row->set_link_target(std::string(target, static_cast<size_t>(size)));
  }
  return {};
}

}  // namespace bunker::guest
