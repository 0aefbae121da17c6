#include "agent/net/namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "common/proc/subprocess.h"

namespace bunker::agent {
namespace {

constexpr char kFolder[] = "/run/netns/";
constexpr absl::Duration kToolTimeout = absl::Seconds(20);
constexpr size_t kMaxToolOutput = 1 << 20;
constexpr size_t kMaxErrorBytes = 500;

absl::StatusOr<std::string> RunTool(const std::vector<std::string>& argv,
                                    const std::string& input) {
  CommandOptions options;
  options.stdin_data = input;
  options.timeout = kToolTimeout;
  options.max_output_bytes = kMaxToolOutput;
  options.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}, {"LC_ALL", "C"}};
  ASSIGN_OR_RETURN(CommandResult result, RunCommand(argv, options, nullptr));
  if (result.ok()) return std::move(result.stdout_data);
  return absl::InternalError(absl::StrCat(argv[0], ": ", DescribeExit(result.exit), ": ",
                                          result.stderr_data.substr(0, kMaxErrorBytes)));
}

// A name is a mount. In a unit's own mount namespace it would go with the agent, and the next one
// could not enter; made in the host's, it is seen in both.
std::vector<std::string> OnTheHost(std::vector<std::string> argv) {
  std::error_code error;
  const auto ours = std::filesystem::read_symlink("/proc/self/ns/mnt", error);
  const auto hosts = std::filesystem::read_symlink("/proc/1/ns/mnt", error);
  if (error || ours == hosts) return argv;
  argv.insert(argv.begin(), {"/usr/bin/nsenter", "--mount=/proc/1/ns/mnt"});
  return argv;
}

}  // namespace

absl::Status RunNetTool(const std::vector<std::string>& argv, const std::string& input) {
  return RunTool(argv, input).status();
}

absl::StatusOr<std::string> ReadNetTool(const std::vector<std::string>& argv) {
  return RunTool(argv, "");
}

bool NamespaceExists(const std::string& name) {
  struct stat info {};
  return stat(absl::StrCat(kFolder, name).c_str(), &info) == 0;
}

absl::Status MakeNamespace(const std::string& name) {
  if (NamespaceExists(name))
    return absl::AlreadyExistsError(
        absl::StrCat("the network namespace ", name, " is there already"));
  return RunNetTool(OnTheHost({kIpPath, "netns", "add", name}), "");
}

absl::Status RemoveNamespace(const std::string& name) {
  if (!NamespaceExists(name)) return absl::OkStatus();
  return RunNetTool(OnTheHost({kIpPath, "netns", "delete", name}), "");
}

absl::Status InNamespace(const std::string& name, const std::function<absl::Status()>& work) {
  const std::string path = absl::StrCat(kFolder, name);
  const UniqueFd space(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!space) return ErrnoError(errno, path);
  absl::Status status;
  std::thread inside([&] {
    if (setns(space.get(), CLONE_NEWNET) != 0)
      status = ErrnoError(errno, absl::StrCat("entering ", path, " (the agent must be root)"));
    else
      status = work();
  });
  inside.join();
  return status;
}

}  // namespace bunker::agent
