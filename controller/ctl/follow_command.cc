#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

std::string Line(const Json& row) {
  const std::string reason = TextAt(row, "status_reason");
  return Printable(TextAt(row, "name")) + "  " + Printable(TextAt(row, "status")) +
         (reason.empty() ? "" : " (" + Printable(reason) + ")") + "  incarnation " +
         std::to_string(UnsignedAt(row, "incarnation").value_or(0)) + "  " +
         Printable(TextAt(row, "id")) + "\n";
}

}  // namespace

int FollowBunkers(Session& session, const std::string& bunker) {
  const std::string path =
      bunker.empty() ? "/bunkers/events" : "/bunkers/" + Segment(bunker) + "/events";
  std::string shown;  // of one bunker: its usage changes more often than what is printed
  const absl::Status ended = session.api().Stream(
      path, absl::Now() + absl::Hours(24 * 365), [&](const SseEvent& event) {
        if (event.event != "bunker") return true;
        const Json row = Json::parse(event.data, nullptr, /*allow_exceptions=*/false);
        if (session.json()) {
          session.Print(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
          return true;
        }
        std::string line = Line(row);
        if (line == shown) return true;
        session.Print(line);
        shown = std::move(line);
        return true;
      });
  return ended.ok() ? kExitOk : session.Fail(ended);
}

int WatchFiles(Session& session, const std::string& bunker, const std::string& path) {
  const absl::Status ended = session.api().Stream(
      "/bunkers/" + Segment(bunker) + "/files/watch?path=" + Segment(path),
      absl::Now() + absl::Hours(24 * 365), [&](const SseEvent& event) {
        const Json data = Json::parse(event.data, nullptr, /*allow_exceptions=*/false);
        session.Print(session.json()
                          ? data.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"
                          : Printable(event.event) + "  " + Printable(TextAt(data, "name")) + "\n");
        return true;
      });
  return ended.ok() ? kExitOk : session.Fail(ended);
}

}  // namespace bunker::ctl
