#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "controller/ctl/commands.h"
#include "controller/ctl/json_read.h"
#include "controller/ctl/progress.h"
#include "nlohmann/json.hpp"

namespace bunker::ctl {
namespace {

using Json = nlohmann::json;

// Times that a stream is opened again before the command gives up on the controller.
constexpr int kReconnectsMax = 20;

CacheRow RowOf(const Json& row) {
  CacheRow result;
  result.worker_id = TextAt(row, "worker_id");
  result.worker_name = TextAt(row, "worker_name");
  result.status = TextAt(row, "status");
  result.stage = TextAt(row, "stage");
  result.bytes_done = UnsignedAt(row, "bytes_done").value_or(0);
  result.bytes_total = UnsignedAt(row, "bytes_total");
  result.rate_bytes_per_s = UnsignedAt(row, "rate_bytes_per_s");
  result.eta_s = NumberAt(row, "eta_s");
  result.error_code = TextAt(row, "error.code");
  result.error_message = TextAt(row, "error.message");
  return result;
}

// Follows one stream until all rows settled (true), the snapshot turned out empty, or it broke.
class Watcher {
 public:
  explicit Watcher(Session& session) : session_(session), view_(session.live()) {}

  bool OnEvent(const SseEvent& event) {
    const Json data = Json::parse(event.data, nullptr, /*allow_exceptions=*/false);
    if (event.event == "synced") {
      synced_ = true;
    } else if (event.event == "removed") {
      view_.Remove(TextAt(data, "worker_id"));
    } else if (data.is_array()) {
      for (const Json& row : data) Take(row);
    } else if (data.is_object()) {
      Take(data);
    }
    return !Done();
  }

  bool Done() const { return synced_ && (view_.row_count() == 0 || view_.Settled()); }
  void Restart() { synced_ = false; }
  const ProgressView& view() const { return view_; }

 private:
  void Take(const Json& data) {
    const CacheRow row = RowOf(data);
    if (row.worker_id.empty()) return;
    const std::string text = view_.Update(row, absl::Now());
    if (session_.json()) {
      session_.Print(data.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    } else {
      session_.Print(text);
    }
  }

  Session& session_;
  ProgressView view_;
  bool synced_ = false;
};

int Verdict(Session& session, const ProgressView& view, const std::string& image) {
  if (view.row_count() == 0) {
    return session.Fail(absl::FailedPreconditionError(
        "no worker is to have this image: put it and a worker into one group (bunkerctl group "
        "attach GROUP --image " +
        image + " --worker WORKER)"));
  }
  if (!view.AnyNotReady()) return kExitOk;
  return session.Fail(absl::FailedPreconditionError(
      "not every worker is ready; mend the cause and run `bunkerctl image warm " + image + "`\n" +
      view.Failures()));
}

}  // namespace

int WatchImage(Session& session, const WatchOptions& options) {
  const absl::Time deadline = absl::Now() + absl::Seconds(static_cast<int64_t>(options.timeout_s));
  Watcher watcher(session);
  const std::string path = "/images/" + Segment(options.image) + "/cache";
  absl::Status broken;
  for (int attempt = 0; attempt < kReconnectsMax && absl::Now() < deadline; ++attempt) {
    watcher.Restart();
    broken = session.api().Stream(path, deadline,
                                  [&](const SseEvent& event) { return watcher.OnEvent(event); });
    if (watcher.Done()) return Verdict(session, watcher.view(), options.image);
    const bool again = broken.ok() || absl::IsDataLoss(broken) || absl::IsUnavailable(broken);
    if (!again || (!broken.ok() && watcher.view().row_count() == 0)) return session.Fail(broken);
    if (!broken.ok()) absl::SleepFor(absl::Milliseconds(500));
  }
  return session.Fail(
      absl::DeadlineExceededError("the image did not settle in time; `bunkerctl image show " +
                                  options.image + "` says where it is"));
}

}  // namespace bunker::ctl
