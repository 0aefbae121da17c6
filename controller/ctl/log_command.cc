#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/format.h"
#include "controller/ctl/json_read.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

constexpr absl::Duration kTimeout = absl::Seconds(90);
constexpr absl::Duration kReconnectPause = absl::Seconds(1);
constexpr int kReconnectsMax = 20;  // in a row, without anything told in between

std::string PathOf(const LogOptions& options, const std::string& more) {
  std::string path = "/bunkers/" + Segment(options.bunker) + "/logs?" + more;
  if (!options.source.empty()) path += "&source=" + Segment(options.source);
  return path;
}

int Follow(Session& session, const LogOptions& options) {
  std::string offset = "0";
  absl::Status ended;
  for (int tries = 0; tries < kReconnectsMax; ++tries) {
    bool done = false;
    ended = session.api().Stream(
        PathOf(options, "follow=true&offset=" + offset), absl::Now() + absl::Hours(24 * 365),
        [&](const SseEvent& event) {
          tries = 0;
          if (!event.id.empty()) offset = event.id;
          const Json data = Json::parse(event.data, nullptr, /*allow_exceptions=*/false);
          done = event.event == "exit";
          if (session.json()) {
            session.Print(data.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
          } else if (event.event == "gap") {
            session.Say(std::to_string(UnsignedAt(data, "bytes").value_or(0)) + " bytes lost\n");
          } else {
            session.Print(PrintableLines(TextAt(data, "data")));
          }
          return !done;
        });
    if (done) return kExitOk;
    if (!ended.ok() && !absl::IsUnavailable(ended)) break;
    absl::SleepFor(kReconnectPause);
  }
  return ended.ok() ? kExitOk : session.Fail(ended);
}

}  // namespace

int ShowLogs(Session& session, const LogOptions& options) {
  if (options.follow) return Follow(session, options);
  const auto logs = session.api().Call("GET", PathOf(options, "offset=0"), nullptr, kTimeout);
  if (!logs.ok()) return session.Fail(logs.status());
  if (session.json()) {
    session.PrintJson(*logs);
  } else {
    session.Print(PrintableLines(TextAt(*logs, "data")));
  }
  return kExitOk;
}

}  // namespace bunker::ctl
