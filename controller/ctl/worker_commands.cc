#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

std::string Share(const Json& worker, const std::string& key) {
  const std::string capacity = TextAt(worker, "capacity." + key);
  if (capacity.empty()) return "";
  const std::string used = TextAt(worker, "allocated." + key);
  return (used.empty() ? "0" : used) + "/" + capacity;
}

}  // namespace

int ListWorkers(Session& session) {
  auto workers = session.api().List("/workers");
  if (!workers.ok()) return session.Fail(workers.status());
  if (session.json()) {
    session.PrintJson(*workers);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& worker : *workers) {
    rows.push_back({TextAt(worker, "name"), TextAt(worker, "status"), TextAt(worker, "arch"),
                    TextAt(worker, "isolation"), Share(worker, "cpu_millicores"),
                    Share(worker, "memory_mb"), Share(worker, "disk_mb"), TextAt(worker, "id")});
  }
  session.Print(FormatTable(
      {"NAME", "STATUS", "ARCH", "ISOLATION", "MILLICORES", "MEMORY MB", "DISK MB", "ID"}, rows));
  return kExitOk;
}

int ShowWorker(Session& session, const std::string& worker) {
  auto row = session.api().Get("/workers/" + Segment(worker));
  if (!row.ok()) return session.Fail(row.status());
  if (session.json()) {
    session.PrintJson(*row);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const char* key : {"id", "name", "status", "scope", "arch", "isolation", "version",
                          "last_heartbeat", "cached_images"}) {
    rows.push_back({key, TextAt(*row, key)});
  }
  for (const char* key : {"cpu_millicores", "memory_mb", "disk_mb"}) {
    rows.push_back({key, Share(*row, key) + " used/of"});
  }
  session.Print(FormatTable({"FIELD", "VALUE"}, rows));
  return kExitOk;
}

}  // namespace bunker::ctl
