#include "controller/ctl/session.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "common/base/reason.h"
#include "controller/ctl/format.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void Write(std::FILE* stream, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stream);
  std::fflush(stream);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Open(const GlobalOptions& options) {
  ApiClient::Options api;
  api.host = options.host.empty() ? Environment("SCAIGRID_HOST") : options.host;
  api.key = Environment("SCAIGRID_API_KEY");
  api.ca_file = options.ca_file;
  if (api.host.empty()) {
    return absl::InvalidArgumentError(
        "SCAIGRID_HOST is not set: export the controller's URL, such as http://127.0.0.1:7480");
  }
  if (api.key.empty()) {
    return absl::InvalidArgumentError(
        "SCAIGRID_API_KEY is not set: export the key that `bunker-controller init` printed");
  }
  if (api.host.find("://") == std::string::npos) api.host = "http://" + api.host;
  while (api.host.back() == '/') api.host.pop_back();
  return std::unique_ptr<Session>(new Session(std::move(api), options.json));
}

Session::Session(ApiClient::Options api, bool json)
    : api_(std::move(api)), json_(json), live_(!json && ::isatty(STDOUT_FILENO) == 1) {}

void Session::PrintJson(const Json& data) const {
  // On a terminal nothing but ASCII: a tenant's text may hold what a terminal obeys.
  const bool ascii = ::isatty(STDOUT_FILENO) == 1;
  Write(stdout, data.dump(2, ' ', ascii, Json::error_handler_t::replace) + "\n");
}

void Session::Print(const std::string& text) const {
  Write(stdout, text);
}

void Session::Say(const std::string& text) const {
  if (!json_) Write(stderr, text);
}

int Session::Fail(const absl::Status& status) const {
  const std::string message(status.message().data(), status.message().size());
  if (json_) {
    Json error = api_.last_error();
    if (!error.is_object()) {
      const std::string reason = ReasonOf(status);
      error = {{"code", reason.empty() ? "CLIENT_ERROR" : reason}, {"message", message}};
    }
    const Json document = {{"error", error}};
    Write(stderr, document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    Write(stderr, "error: " + PrintableLines(message) + "\n");
  }
  return kExitFailed;
}

}  // namespace bunker::ctl
