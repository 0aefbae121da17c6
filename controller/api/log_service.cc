// Logs of main and of the console: as one piece, or as they grow.
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "bunker/v1/log.pb.h"
#include "common/base/utf8.h"
#include "controller/api/errors.h"
#include "controller/api/output_feed.h"
#include "controller/api/services.h"

namespace bunker::controller {
namespace {

constexpr absl::Duration kWaitForBunker = absl::Seconds(60);
constexpr size_t kMaxBytes = 1 << 20;  // more than any log keeps

// Gathers what a log holds now, for one answer. The feed's calls don't overlap each other.
class GatheringSink final : public StreamSink {
 public:
  using Finish = Dispatcher::Finish<v1::BunkerLogs>;

  GatheringSink(const v1::GetBunkerLogsRequest& request, Core& core, Finish finish)
      : base64_(request.output() == v1::OUTPUT_ENCODING_BASE64),
        core_(core),
        finish_(std::move(finish)) {
    logs_.set_source(request.source() == v1::LOG_SOURCE_UNSPECIFIED ? v1::LOG_SOURCE_MAIN
                                                                    : request.source());
    logs_.set_offset(request.offset());
    logs_.set_next_offset(request.offset());
  }

  void Listen(std::function<void()> closed, std::function<void()>) override {
    MutexLock lock(mutex_);
    closed_ = std::move(closed);
  }
  // The caller went away.
  void Close() {
    std::function<void()> closed;
    {
      MutexLock lock(mutex_);
      closed = std::exchange(closed_, nullptr);
    }
    if (closed) closed();
  }
  void Begin() override {}
  bool CanSend() override { return true; }
  void Send(const google::protobuf::Message& message) override {
    const auto& event = static_cast<const v1::OutputEvent&>(message);
    if (data_.size() >= kMaxBytes) return;  // a worker that makes it up
    logs_.set_next_offset(event.offset());
    if (event.has_gap()) {
      logs_.set_lost_bytes(logs_.lost_bytes() + event.gap().bytes());
      if (data_.empty()) logs_.set_offset(event.offset());
    }
    data_ += event.has_stderr() ? event.stderr() : event.stdout();
  }
  void Heartbeat() override {}
  void End(const absl::Status& why) override {
    logs_.set_data(base64_ ? absl::Base64Escape(data_) : ToValidUtf8(std::move(data_)));
    absl::StatusOr<v1::BunkerLogs> answer = std::move(logs_);
    if (!why.ok()) answer = why;
    core_.Post([finish = std::move(finish_), answer = std::move(answer)](Engine&, Turn&) mutable {
      finish(std::move(answer));
    });
  }

 private:
  const bool base64_;
  Core& core_;
  Finish finish_;
  v1::BunkerLogs logs_;
  std::string data_;
  Mutex mutex_;
  std::function<void()> closed_ ABSL_GUARDED_BY(mutex_);
};

void Read(GuestTalkBackend* talks, CallContext& context, const v1::GetBunkerLogsRequest& request,
          bool follow, std::shared_ptr<StreamSink> sink) {
  OutputFeed::Start start;
  link::v1::LogRead& read = *start.opening.mutable_log();
  read.set_source(request.source() == v1::LOG_SOURCE_CONSOLE ? link::v1::LogRead::CONSOLE
                                                             : link::v1::LogRead::MAIN);
  read.set_offset(request.offset());
  read.set_follow(follow);
  start.offset = request.offset();
  start.tells_offsets = true;
  start.is_use = false;
  OutputFeed::Run(context, talks, request.bunker(), context.turn.now() + kWaitForBunker,
                  std::move(start), std::move(sink));
}

}  // namespace

void RegisterLogService(const ServiceDeps& deps, Dispatcher* dispatcher) {
  GuestTalkBackend* const talks = deps.talks;
  dispatcher->For("bunker.v1.Logs.GetBunkerLogs")
      .RegisterAsync<v1::GetBunkerLogsRequest, v1::BunkerLogs>(
          [talks](CallContext& context, const v1::GetBunkerLogsRequest& request,
                  GatheringSink::Finish finish) {
            if (request.follow()) {
              const absl::Status why =
                  ValidationError("follow", "is for REST; over gRPC call ReadBunkerLogs");
              context.turn.AfterCommit([finish, why](const absl::Status&) { finish(why); });
              return;
            }
            auto sink = std::make_shared<GatheringSink>(request, context.core, std::move(finish));
            if (context.info.cancel != nullptr) {
              *context.info.cancel = [weak = std::weak_ptr<GatheringSink>(sink)] {
                if (const auto gathering = weak.lock()) gathering->Close();
              };
            }
            Read(talks, context, request, /*follow=*/false, std::move(sink));
          });
  dispatcher->For("bunker.v1.Logs.ReadBunkerLogs")
      .RegisterStream<v1::GetBunkerLogsRequest>(
          [talks](CallContext& context, const v1::GetBunkerLogsRequest& request,
                  std::shared_ptr<StreamSink> sink) {
            Read(talks, context, request, request.follow(), std::move(sink));
          });
}

}  // namespace bunker::controller
