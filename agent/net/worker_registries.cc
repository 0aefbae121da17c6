#include "agent/net/worker_registries.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>
#include <sstream>

#include "agent/net/name_set.h"
#include "common/base/files.h"
#include "common/proc/subprocess.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxFileBytes = 256 * 1024;
constexpr size_t kMaxFiles = 200;
constexpr size_t kMaxHosts = 100;
constexpr absl::Duration kAskTimeout = absl::Seconds(15);

std::string WithoutComments(const std::string& text) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find_first_not_of(" \t");
    if (first != std::string::npos && line[first] != '#' && line[first] != ';') kept += line + "\n";
  }
  return kept;
}

std::string ReadOrEmpty(const fs::path& path) {
  return ReadFile(path, kMaxFileBytes).value_or("");
}

std::string AptSources() {
  std::string text = WithoutComments(ReadOrEmpty("/etc/apt/sources.list"));
  std::error_code error;
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator("/etc/apt/sources.list.d", error)) {
    const std::string kind = entry.path().extension();
    if (kind != ".list" && kind != ".sources") continue;
    if (++files > kMaxFiles) break;
    std::istringstream lines(WithoutComments(ReadOrEmpty(entry.path())));
    for (std::string line; std::getline(lines, line);) {
      const bool source =
          line.rfind("deb", 0) == 0 || line.rfind("URIs:", 0) == 0 || line[0] == ' ';
      if (source) text += line + "\n";
    }
  }
  return text;
}

// Lines of ini files whose key is one of `keys`.
std::string Settings(const std::vector<std::string>& paths, const std::set<std::string>& keys) {
  std::string found;
  for (const std::string& path : paths) {
    std::istringstream lines(WithoutComments(ReadOrEmpty(path)));
    for (std::string line; std::getline(lines, line);) {
      const size_t equals = line.find('=');
      if (equals == std::string::npos) continue;
      std::string key = line.substr(0, equals);
      key.erase(0, key.find_first_not_of(" \t"));
      key.erase(key.find_last_not_of(" \t") + 1);
      if (keys.count(key) != 0 || key.find(":registry") != std::string::npos) found += line + "\n";
    }
  }
  return found;
}

// What the first `program` of the PATH that can answer prints.
std::string Ask(const std::string& program, const std::vector<std::string>& arguments) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  CommandOptions options;
  options.timeout = kAskTimeout;
  options.env = {{"PATH", folders.str()}, {"LC_ALL", "C"}, {"HOME", "/root"}};
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::vector<std::string> argv = {folder + "/" + program};
    if (folder.empty() || folder[0] != '/' || access(argv[0].c_str(), X_OK) != 0) continue;
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    const absl::StatusOr<CommandResult> result = RunCommand(argv, options, nullptr);
    if (result.ok() && result->ok()) return result->stdout_data;
  }
  return "";
}

std::string PipIndexes() {
  const std::vector<std::string> files = {"/etc/pip.conf", "/etc/xdg/pip/pip.conf",
                                          "/root/.config/pip/pip.conf", "/root/.pip/pip.conf"};
  std::string text = Settings(files, {"index-url", "extra-index-url", "find-links"});
  for (const char* name : {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"}) {
    if (const char* value = std::getenv(name)) text += std::string(value) + "\n";
  }
  if (!HostsInText(text).empty()) return text;
  // The index it was built with, and where that keeps its files.
  return Ask("python3", {"-I", "-c",
                         "from pip._internal.models.index import PyPI as index\n"
                         "print(index.url, 'https://' + index.file_storage_domain)"});
}

std::string NpmRegistries() {
  const std::string text = Settings({"/etc/npmrc", "/usr/etc/npmrc", "/root/.npmrc"}, {"registry"});
  return HostsInText(text).empty() ? Ask("npm", {"config", "get", "registry"}) : text;
}

}  // namespace

std::vector<std::string> HostsInText(const std::string& text) {
  std::set<std::string> hosts;
  for (size_t at = text.find("://"); at != std::string::npos; at = text.find("://", at + 3)) {
    const bool http = (at >= 4 && text.compare(at - 4, 4, "http") == 0) ||
                      (at >= 5 && text.compare(at - 5, 5, "https") == 0);
    std::string authority =
        text.substr(at + 3, text.find_first_of("/ \t\r\n\"'?#", at + 3) - at - 3);
    authority.erase(0, authority.rfind('@') + 1);
    const std::string name = CanonicalName(authority.substr(0, authority.find(':')));
    if (http && !name.empty() && hosts.size() < kMaxHosts) hosts.insert(name);
  }
  return {hosts.begin(), hosts.end()};
}

std::vector<std::string> WorkerRegistries() {
  return HostsInText(AptSources() + "\n" + PipIndexes() + "\n" + NpmRegistries());
}

}  // namespace bunker::agent
