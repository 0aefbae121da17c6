#include <algorithm>
#include <utility>

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

constexpr int64_t kServerWaitMaxS = 60;  // what one call may wait
constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string BunkerPath(const std::string& bunker) {
  return "/bunkers/" + Segment(bunker);
}

bool ComingUp(const Json& bunker) {
  const std::string status = TextAt(bunker, "status");
  return status == "pending" || status == "provisioning";
}

// "queue 1.2 ms, place 0.3 ms, boot 2.310 s, agent 41.0 ms".
std::string TimingsOf(const Json& bunker) {
  std::string text;
  for (const char* part : {"queue", "place", "fetch", "boot", "agent"}) {
    const auto spent = NumberAt(bunker, std::string("timings.") + part + "_ms");
    if (!spent) continue;
    text += (text.empty() ? "" : ", ") + std::string(part) + " " + FormatMilliseconds(*spent);
  }
  return text;
}

// "r-stats@sha256:278cb8b14f9f".
std::string ImageOf(const Json& bunker) {
  constexpr size_t kDigestShown = 19;
  const std::string digest = TextAt(bunker, "image_digest").substr(0, kDigestShown);
  return TextAt(bunker, "image") + (digest.empty() ? "" : "@" + digest);
}

// "153794us".
std::string BootTimeOf(const Json& bunker) {
  const auto boot_ms = NumberAt(bunker, "timings.boot_ms");
  return boot_ms ? std::to_string(static_cast<int64_t>(*boot_ms * 1000)) + "us" : "";
}

// The code and what it means.
std::string ReasonOf(const Json& bunker) {
  const std::string message = TextAt(bunker, "status_message");
  return TextAt(bunker, "status_reason") + (message.empty() ? "" : ": " + message);
}

std::string Details(const Json& bunker) {
  std::string out;
  const std::pair<const char*, std::string> lines[] = {
      {"id", TextAt(bunker, "id")},
      {"name", TextAt(bunker, "name")},
      {"status", TextAt(bunker, "status")},
      {"reason", ReasonOf(bunker)},
      {"image", TextAt(bunker, "image")},
      {"digest", TextAt(bunker, "image_digest")},
      {"worker", TextAt(bunker, "worker_id")},
      {"incarnation", TextAt(bunker, "incarnation")},
      {"network", TextAt(bunker, "network_profile")},
      {"isolation", TextAt(bunker, "isolation")},
      {"size", TextAt(bunker, "cpu_millicores") + " millicores, " + TextAt(bunker, "memory_mb") +
                   " MiB memory, " + TextAt(bunker, "disk_mb") + " MiB disk"},
      {"time went to", TimingsOf(bunker)},
      {"created", TextAt(bunker, "created_at")},
      {"expires", TextAt(bunker, "expires_at")},
      {"ended", TextAt(bunker, "terminated_at")}};
  for (const auto& [label, value] : lines) {
    if (value.empty()) continue;
    const std::string name(label);
    out += name + std::string(14 - name.size(), ' ') + Printable(value) + "\n";
  }
  return out;
}

// Waits until the bunker runs or failed.
absl::StatusOr<Json> WaitForRunning(Session& session, Json bunker, absl::Time deadline) {
  const std::string path = BunkerPath(TextAt(bunker, "id"));
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

}  // namespace

absl::StatusOr<Json> CreateBunkerBody(const CreateBunkerOptions& options) {
  if (options.image.empty() == options.snapshot.empty()) {
    return absl::InvalidArgumentError("name an image, or a snapshot with --snapshot, not both");
  }
  Json body = Json::object();
  if (!options.image.empty()) body["image"] = options.image;
  if (!options.snapshot.empty()) body["snapshot"] = options.snapshot;
  if (!options.name.empty()) body["name"] = options.name;
  if (!options.network_profile.empty()) body["network_profile"] = options.network_profile;
  if (!options.network_allowlist.empty()) body["network_allowlist"] = options.network_allowlist;
  if (!options.lifecycle_mode.empty()) body["lifecycle_mode"] = options.lifecycle_mode;
  if (!options.on_idle.empty()) body["on_idle"] = options.on_idle;
  if (!options.start) body["start"] = false;
  if (!options.runs_main && !(options.args.empty() && options.restart.empty())) {
    return absl::InvalidArgumentError("--restart and what stands behind -- go with --main");
  }
  if (options.runs_main) {
    body["main"] = Json::object();
    if (!options.args.empty()) body["main"]["args"] = options.args;
    if (!options.restart.empty()) body["main"]["restart"] = options.restart;
  }
  const std::pair<const char*, std::optional<uint64_t>> numbers[] = {
      {"bandwidth_mbit", options.bandwidth_mbit},
      {"disk_bytes_per_s", options.disk_bytes_per_s},
      {"disk_iops", options.disk_iops},
      {"cpu_millicores", options.cpu_millicores},
      {"memory_mb", options.memory_mb},
      {"disk_mb", options.disk_mb},
      {"max_lifetime_s", options.max_lifetime_s},
      {"idle_timeout_s", options.idle_timeout_s}};
  for (const auto& [key, value] : numbers) {
    if (value) body[key] = *value;
  }
  const std::pair<const char*, const std::vector<std::string>*> maps[] = {
      {"env_vars", &options.env},
      {"label_set", &options.labels},
      {"worker_labels", &options.worker_labels}};
  for (const auto& [key, pairs] : maps) {
    if (pairs->empty()) continue;
    ASSIGN_OR_RETURN(body[key], ParsePairs(*pairs, key));
  }
  return body;
}

absl::StatusOr<Json> ParsePairs(const std::vector<std::string>& pairs, const std::string& flag) {
  Json object = Json::object();
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(flag + " takes KEY=VALUE, not \"" + pair + "\"");
    }
    object[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return object;
}

int CreateBunker(Session& session, const CreateBunkerOptions& options) {
  auto body = CreateBunkerBody(options);
  if (!body.ok()) return session.Fail(body.status());
  const absl::Time started = absl::Now();
  const absl::Time deadline = started + absl::Seconds(static_cast<int64_t>(options.wait_s));
  auto bunker = session.api().Call("POST", "/bunkers", *body, kTimeout);
  if (!bunker.ok()) return session.Fail(bunker.status());
  const bool waits = options.wait && options.start;
  if (waits) bunker = WaitForRunning(session, *std::move(bunker), deadline);
  if (!bunker.ok()) return session.Fail(bunker.status());
  if (session.json()) {
    session.PrintJson(*bunker);
  } else {
    session.Print(Details(*bunker));
    if (waits) {
      session.Print("waited        " +
                    FormatMilliseconds(absl::ToDoubleMilliseconds(absl::Now() - started)) + "\n");
    }
  }
  const std::string status = TextAt(*bunker, "status");
  if (!waits || status == "running") return kExitOk;
  return session.Fail(absl::FailedPreconditionError(
      ComingUp(*bunker) ? "the bunker is still coming up: look again with `bunkerctl bunker show " +
                              TextAt(*bunker, "id") + "`"
                        : "the bunker is " + status + ": " + ReasonOf(*bunker)));
}

int ListBunkers(Session& session, const std::string& status, bool wide) {
  auto bunkers =
      session.api().List("/bunkers" + (status.empty() ? "" : "?status=" + Segment(status)));
  if (!bunkers.ok()) return session.Fail(bunkers.status());
  if (session.json()) {
    session.PrintJson(*bunkers);
    return kExitOk;
  }
  std::vector<std::string> headings = {"NAME",   "STATE", "CREATED AT", "IMAGE",
                                       "MEMORY", "ARGS",  "BOOT TIME"};
  for (const char* more : {"WORKER", "NETWORK", "ID"}) {
    if (wide) headings.emplace_back(more);
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& bunker : *bunkers) {
    rows.push_back({TextAt(bunker, "name"), TextAt(bunker, "status"), AgeAt(bunker, "created_at"),
                    ImageOf(bunker), TextAt(bunker, "memory_mb") + " MiB",
                    JoinedAt(bunker, "args", " "), BootTimeOf(bunker), TextAt(bunker, "worker_id"),
                    TextAt(bunker, "network_profile"), TextAt(bunker, "id")});
  }
  session.Print(FormatTable(headings, rows));
  return kExitOk;
}

int ShowBunker(Session& session, const std::string& bunker) {
  auto row = session.api().Get(BunkerPath(bunker));
  if (!row.ok()) return session.Fail(row.status());
  if (session.json()) {
    session.PrintJson(*row);
  } else {
    session.Print(Details(*row));
  }
  return kExitOk;
}

int RemoveBunker(Session& session, const std::string& bunker, bool snapshot) {
  const std::string path = BunkerPath(bunker) + (snapshot ? "?snapshot=true" : "");
  auto row = session.api().Call("DELETE", path, nullptr, kTimeout);
  if (!row.ok()) return session.Fail(row.status());
  if (session.json()) {
    session.PrintJson(*row);
  } else {
    const std::string last = TextAt(*row, "final_snapshot_id");
    session.Print(last.empty() ? "removed " + bunker + "\n"
                               : bunker + " ends once the snapshot " + last + " is ready\n");
  }
  return kExitOk;
}

}  // namespace bunker::ctl
