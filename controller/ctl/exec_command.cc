#include <unistd.h>

#include <csignal>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/time/time.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr size_t kStdinBytesMax = 8U << 20;
constexpr int kExitTimedOut = 124;
constexpr int kExitNotRun = 125;  // the command did not start, or its fate is unknown

absl::StatusOr<std::string> ReadStdin() {
  std::string input;
  char buffer[65536];
  for (;;) {
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoError(errno, "reading standard input");
    if (count == 0) return input;
    input.append(buffer, static_cast<size_t>(count));
    if (input.size() > kStdinBytesMax) {
      return absl::ResourceExhaustedError("standard input is larger than 8 MiB");
    }
  }
}

absl::StatusOr<Json> ExecBody(const ExecOptions& options) {
  Json body = {{"timeout_s", options.timeout_s}, {"output", "base64"}};
  if (options.shell.empty()) {
    body["command"] = options.argv;
  } else {
    body["command"] = options.shell;
  }
  if (!options.cwd.empty()) body["cwd"] = options.cwd;
  if (!options.user.empty()) body["user"] = options.user;
  if (!options.env.empty()) {
    ASSIGN_OR_RETURN(body["env"], ParsePairs(options.env, "--env"));
  }
  if (options.send_stdin) {
    ASSIGN_OR_RETURN(body["stdin"], ReadStdin());
  }
  return body;
}

// "SIGKILL" or "9" to 9; 0 where the host has no such signal.
int SignalNumber(const std::string& name) {
  if (name.empty()) return 0;
  if (name.find_first_not_of("0123456789") == std::string::npos && name.size() < 3) {
    return std::stoi(name);
  }
  for (int number = 1; number < NSIG; ++number) {
    const char* abbreviation = ::sigabbrev_np(number);
    if (abbreviation != nullptr &&
        (name == abbreviation || name == std::string("SIG") + abbreviation)) {
      return number;
    }
  }
  return 0;
}

int ExitCodeOf(Session& session, const Json& result) {
  if (TrueAt(result, "timed_out")) {
    session.Say("bunkerctl: the command ran out of its time and was killed with its children\n");
    return kExitTimedOut;
  }
  const std::string signal = TextAt(result, "signal");
  if (!signal.empty()) {
    session.Say("bunkerctl: the command was ended by " + Printable(signal) + "\n");
    return 128 + SignalNumber(signal);
  }
  return static_cast<int>(NumberAt(result, "exit_code").value_or(kExitNotRun));
}

}  // namespace

int ExecInBunker(Session& session, const ExecOptions& options) {
  if (options.argv.empty() == options.shell.empty()) {
    session.Fail(
        absl::InvalidArgumentError("name one command: after --, or as --shell 'a string'"));
    return kExitUsage;
  }
  auto body = ExecBody(options);
  if (!body.ok()) {
    session.Fail(body.status());
    return kExitNotRun;
  }
  const absl::Duration timeout =
      absl::Seconds(static_cast<int64_t>(options.timeout_s)) + absl::Seconds(60);
  auto result =
      session.api().Call("POST", "/bunkers/" + Segment(options.bunker) + "/exec", *body, timeout);
  if (!result.ok()) {
    session.Fail(result.status());
    return kExitNotRun;
  }
  if (session.json()) {
    session.PrintJson(*result);
    return ExitCodeOf(session, *result);
  }
  for (const auto& [key, fd] :
       {std::pair("stdout", STDOUT_FILENO), std::pair("stderr", STDERR_FILENO)}) {
    std::string bytes;
    if (!absl::Base64Unescape(TextAt(*result, key), &bytes)) {
      session.Fail(absl::DataLossError(std::string(key) + " of the answer is no base64"));
      return kExitNotRun;
    }
    if (!WriteAll(fd, bytes).ok()) return kExitNotRun;
  }
  if (TrueAt(*result, "truncated")) {
    session.Say("bunkerctl: output was cut at 1 MiB a stream: stdout had " +
                TextAt(*result, "stdout_bytes") + " bytes, stderr " +
                TextAt(*result, "stderr_bytes") + "\n");
  }
  return ExitCodeOf(session, *result);
}

}  // namespace bunker::ctl
