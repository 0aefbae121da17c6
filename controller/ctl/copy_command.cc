// Files between here and a bunker.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/base/unique_fd.h"
#include "controller/ctl/commands.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

struct Remote {
  std::string bunker;
  std::string path;
};

// "box:/srv/f"; none: a name here, as "./a:/b" is.
std::optional<Remote> RemoteOf(const std::string& text) {
  const size_t colon = text.find(":/");
  if (colon == std::string::npos || colon == 0) return std::nullopt;
  if (text.find('/') < colon) return std::nullopt;
  return Remote{text.substr(0, colon), text.substr(colon + 1)};
}

// "" where it ends in no name that a file could have.
std::string LastName(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name == "." || name == ".." ? "" : name;
}

absl::Status Failed(const std::string& what) {
  return ErrnoError(errno, what);
}

std::string PathOf(const Remote& remote, const CopyOptions& options) {
  return "/bunkers/" + Segment(remote.bunker) + "/files?path=" + Segment(remote.path) +
         (options.tar ? "&archive=tar" : "");
}

// What is sent: standard input or a file, and its length and mode where it has one.
struct Source {
  UniqueFd fd;
  std::optional<uint64_t> bytes;
  std::optional<unsigned> mode;
};

absl::StatusOr<Source> OpenSource(const std::string& name) {
  Source source;
  source.fd = UniqueFd(name == "-" ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                   : ::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source.fd) return Failed(name);
  struct stat facts {};
  if (::fstat(source.fd.get(), &facts) != 0) return Failed(name);
  if (S_ISDIR(facts.st_mode)) {
    return absl::InvalidArgumentError(
        name + " is a folder: send it as a tar, as in `tar c -C " + name +
        " . | bunkerctl cp --tar - BUNKER:/path`");
  }
  if (S_ISREG(facts.st_mode) && name != "-") {
    source.bytes = static_cast<uint64_t>(facts.st_size);
    source.mode = facts.st_mode & 0777;
  }
  return source;
}

absl::StatusOr<Json> Send(Session& session, Remote remote, const CopyOptions& options) {
  ASSIGN_OR_RETURN(const Source source, OpenSource(options.from));
  if (!options.tar && remote.path.back() == '/') {
    const std::string name = options.from == "-" ? "" : LastName(options.from);
    if (name.empty()) return absl::InvalidArgumentError("name the file in the bunker, too");
    remote.path += name;
  }
  std::string path = PathOf(remote, options);
  if (!options.mode.empty()) {
    path += "&mode=" + Segment(options.mode);
  } else if (source.mode && !options.tar) {
    path += fmt::format("&mode={:04o}", *source.mode);
  }
  return session.api().Upload(
      path, source.bytes, [&](char* room, size_t size) -> absl::StatusOr<size_t> {
        for (;;) {
          const ssize_t got = ::read(source.fd.get(), room, size);
          if (got >= 0) return static_cast<size_t>(got);
          if (errno != EINTR) return Failed(options.from);
        }
      });
}

// A file under a temporary name beside its own, removed unless it is published.
class Target {
 public:
  Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  ~Target() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }

  absl::Status Open(const std::string& path) {
    path_ = path;
    std::string name = path + ".XXXXXX";
    fd_ = UniqueFd(::mkostemp(name.data(), O_CLOEXEC));
    if (!fd_) return Failed(path);
    temporary_ = std::move(name);
    return absl::OkStatus();
  }
  absl::Status Write(std::string_view piece) {
    bytes_ += piece.size();
    return WriteAll(fd_.get(), piece);
  }
  absl::Status Publish() {
    const mode_t mask = ::umask(0);
    ::umask(mask);
    if (::fchmod(fd_.get(), 0666 & ~mask) != 0 || ::fsync(fd_.get()) != 0 ||
        ::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return Failed(path_);
    }
    temporary_.clear();
    return absl::OkStatus();
  }
  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::string path_;
  std::string temporary_;
  UniqueFd fd_;
  uint64_t bytes_ = 0;
};

absl::StatusOr<std::string> PlaceFor(const Remote& remote, const CopyOptions& options) {
  struct stat facts {};
  const bool is_folder = ::stat(options.to.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode);
  if (!is_folder) return options.to;
  const std::string name = LastName(remote.path);
  if (name.empty() || options.tar) {
    return absl::InvalidArgumentError(options.to + " is a folder: name the file to write");
  }
  return options.to + "/" + name;
}

// Null where it went to standard output.
absl::StatusOr<Json> Fetch(Session& session, const Remote& remote, const CopyOptions& options) {
  const std::string path = PathOf(remote, options);
  if (options.to == "-") {
    RETURN_IF_ERROR(session.api().Download(
        path, [](std::string_view piece) { return WriteAll(STDOUT_FILENO, piece); }));
    return Json();
  }
  ASSIGN_OR_RETURN(const std::string place, PlaceFor(remote, options));
  Target target;
  RETURN_IF_ERROR(target.Open(place));
  RETURN_IF_ERROR(session.api().Download(
      path, [&target](std::string_view piece) { return target.Write(piece); }));
  RETURN_IF_ERROR(target.Publish());
  return Json{{"path", target.path()}, {"size", target.bytes()}};
}

}  // namespace

int CopyFile(Session& session, const CopyOptions& options) {
  const auto from = RemoteOf(options.from);
  const auto to = RemoteOf(options.to);
  if (from.has_value() == to.has_value()) {
    session.Fail(absl::InvalidArgumentError(
        "one of the two is in a bunker and the other here: bunkerctl cp FILE BUNKER:/path"));
    return kExitUsage;
  }
  if (from && !options.mode.empty()) {
    session.Fail(absl::InvalidArgumentError("--mode is for files that go into a bunker"));
    return kExitUsage;
  }
  const auto done = to ? Send(session, *to, options) : Fetch(session, *from, options);
  if (!done.ok()) return session.Fail(done.status());
  if (session.json() && !done->is_null()) session.PrintJson(*done);
  return kExitOk;
}

}  // namespace bunker::ctl
