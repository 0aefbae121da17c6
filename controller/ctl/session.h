// What every command of bunkerctl has at hand: the API, and how to print.
//
// Not thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/ctl/api_client.h"
#include "nlohmann/json_fwd.hpp"

namespace bunker::ctl {

// Exit codes. `exec` ends with the command's own code instead.
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct GlobalOptions {
  bool json = false;
  std::string host;     // default: SCAIGRID_HOST
  std::string ca_file;  // default: the system's
};

class Session {
 public:
  // Reads SCAIGRID_HOST and SCAIGRID_API_KEY; their absence is an error that says so.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const GlobalOptions& options);

  ApiClient& api() { return api_; }
  bool json() const { return json_; }
  // Both outputs are a terminal: bars may be redrawn.
  bool live() const { return live_; }

  // Prints `data` as indented JSON, or nothing else ever to stdout in --json mode.
  void PrintJson(const nlohmann::json& data) const;
  void Print(const std::string& text) const;  // stdout
  void Say(const std::string& text) const;    // stderr, for people; silent with --json

  // Prints the error (as JSON on stderr with --json) and returns the exit code.
  int Fail(const absl::Status& status) const;

 private:
  Session(ApiClient::Options api, bool json);

  ApiClient api_;
  const bool json_;
  const bool live_;
};

}  // namespace bunker::ctl
