// `run`, `bunker explain` and `api`.
#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/base/status_macros.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kTimeout = absl::Seconds(60);
constexpr int64_t kServerWaitMaxS = 60;  // what one call may wait

absl::StatusOr<Json> RunBody(const RunOptions& options) {
  Json body = {{"image", options.image}};
  if (!options.name.empty()) body["name"] = options.name;
  if (!options.memory.empty()) {
    ASSIGN_OR_RETURN(body["memory_mb"], ParseMemory(options.memory, "-m"));
  }
  if (!options.metro.empty()) body["worker_labels"] = {{"metro", options.metro}};
  if (options.replicas) body["replicas"] = *options.replicas;
  if (!options.env.empty()) {
    ASSIGN_OR_RETURN(body["env_vars"], ParsePairs(options.env, "--env"));
  }
  body["main"] = Json::object();
  if (!options.args.empty()) body["main"]["args"] = options.args;
  return body;
}

bool ComingUp(const Json& bunker) {
  const std::string status = TextAt(bunker, "status");
  return status == "pending" || status == "provisioning";
}

absl::StatusOr<Json> WaitFor(Session& session, Json bunker, absl::Time deadline) {
  const std::string path = "/bunkers/" + Segment(TextAt(bunker, "id"));
  while (ComingUp(bunker) && absl::Now() < deadline) {
    const int64_t left_s = absl::ToInt64Seconds(deadline - absl::Now()) + 1;
    const int64_t wait_s = std::min(left_s, kServerWaitMaxS);
    ASSIGN_OR_RETURN(
        bunker,
        session.api().Call("GET", path + "?wait_status=running&wait_s=" + std::to_string(wait_s),
                           nullptr, absl::Seconds(wait_s) + kTimeout));
  }
  return bunker;
}

// The tree of one started bunker.
std::string TreeOf(const Json& bunker) {
  const bool runs = TextAt(bunker, "status") == "running";
  const auto boot_ms = NumberAt(bunker, "timings.boot_ms");
  const std::string reason = TextAt(bunker, "status_reason");
  const std::pair<const char*, std::string> lines[] = {
      {"name", TextAt(bunker, "name")},
      {"uuid", TextAt(bunker, "uuid")},
      {"state", TextAt(bunker, "status") + (reason.empty() ? "" : " (" + reason + ")")},
      {"image", TextAt(bunker, "url").empty() ? TextAt(bunker, "image") : TextAt(bunker, "url")},
      {"boot time", boot_ms ? FormatMilliseconds(*boot_ms) : ""},
      {"memory", TextAt(bunker, "memory_mb") + " MiB"},
      {"private ip", TextAt(bunker, "private_ip")},
      {"args", JoinedAt(bunker, "args", " ")}};
  std::vector<std::pair<std::string, std::string>> shown;
  for (const auto& [label, value] : lines) {
    if (!value.empty()) shown.emplace_back(label, value);
  }
  std::string out = std::string(runs ? "[●] Started" : "[!] Not running") + "\n │\n";
  constexpr size_t kWidth = 16;
  for (size_t i = 0; i < shown.size(); ++i) {
    out += i + 1 < shown.size() ? " ├" : " └";
    for (size_t k = shown[i].first.size(); k < kWidth; ++k) out += "─";
    out += " " + shown[i].first + ": " + Printable(shown[i].second) + "\n";
  }
  return out;
}

}  // namespace

absl::StatusOr<uint64_t> ParseMemory(const std::string& text, const std::string& flag) {
  const size_t unit_at = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string unit = text.substr(unit_at);
  uint64_t number = 0;
  const bool numeric = absl::SimpleAtoi(text.substr(0, unit_at), &number);
  if (numeric && number < (uint64_t{1} << 40)) {
    if (unit.empty() || unit == "M" || unit == "Mi" || unit == "MiB" || unit == "MB") return number;
    if (unit == "G" || unit == "Gi" || unit == "GiB" || unit == "GB") return number * 1024;
  }
  return absl::InvalidArgumentError(flag + " takes a size such as 512MiB or 2GiB, not \"" + text +
                                    "\"");
}

int RunImage(Session& session, const RunOptions& options) {
  const auto body = RunBody(options);
  if (!body.ok()) {
    session.Fail(body.status());
    return kExitUsage;
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(static_cast<int64_t>(options.wait_s));
  auto made = session.api().Call("POST", "/bunkers", *body, kTimeout);
  if (!made.ok()) return session.Fail(made.status());
  Json bunkers = made->is_array() ? *made : Json::array({*made});
  bool all_run = true;
  for (Json& bunker : bunkers) {
    auto settled = WaitFor(session, bunker, deadline);
    if (!settled.ok()) return session.Fail(settled.status());
    bunker = *std::move(settled);
    all_run = all_run && TextAt(bunker, "status") == "running";
    if (!session.json()) session.Print(TreeOf(bunker));
  }
  if (session.json()) session.PrintJson(made->is_array() ? bunkers : bunkers[0]);
  if (all_run) return kExitOk;
  return session.Fail(
      absl::FailedPreconditionError("not everything runs: `bunkerctl bunker show NAME` says why"));
}

int ExplainPlacement(Session& session, const CreateBunkerOptions& options) {
  const auto body = CreateBunkerBody(options);
  if (!body.ok()) return session.Fail(body.status());
  const auto answer = session.api().Call("POST", "/placement/explain", *body, kTimeout);
  if (!answer.ok()) return session.Fail(answer.status());
  if (session.json()) {
    session.PrintJson(*answer);
    return kExitOk;
  }
  const Json* workers = &*answer;
  if (answer->is_object() && answer->contains("workers")) workers = &(*answer)["workers"];
  std::vector<std::vector<std::string>> rows;
  for (const Json& row : *workers) {
    rows.push_back({TextAt(row, "worker_name"), TextAt(row, "eligible"), TextAt(row, "score"),
                    TextAt(row, "predicate"), TextAt(row, "shortfall"), TextAt(row, "remedy"),
                    TextAt(row, "eta_s")});
  }
  session.Print(
      FormatTable({"WORKER", "ELIGIBLE", "SCORE", "FAILED", "SHORTFALL", "REMEDY", "ETA S"}, rows));
  return kExitOk;
}

int CallApi(Session& session, const std::string& method, const std::string& path,
            const std::string& data) {
  Json body;
  if (!data.empty()) {
    body = Json::parse(data, nullptr, /*allow_exceptions=*/false);
    if (body.is_discarded()) {
      session.Fail(absl::InvalidArgumentError("--data is no JSON"));
      return kExitUsage;
    }
  }
  const auto answer = session.api().Call(method, path, body, kTimeout);
  if (!answer.ok()) return session.Fail(answer.status());
  session.PrintJson(*answer);
  return kExitOk;
}

}  // namespace bunker::ctl
