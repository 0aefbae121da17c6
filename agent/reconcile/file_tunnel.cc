#include "agent/reconcile/file_tunnel.h"

#include <utility>

#include "common/base/log.h"
#include "common/base/reason.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kMaxWaitForGuest = absl::Seconds(30);
constexpr absl::Duration kGuestPoll = absl::Milliseconds(50);

// The link's messages and the guest's are the same on the wire.
template <typename To, typename From>
To Recoded(const From& from) {
  To to;
  [[maybe_unused]] const bool parsed = to.ParseFromString(from.SerializeAsString());
  return to;
}

}  // namespace

void FileTunnel::Serve(const Parts& parts, const link::v1::OpenTunnel& request,
                       std::shared_ptr<Tunnel> tunnel) {
  std::shared_ptr<FileTunnel> file(new FileTunnel(parts, request, tunnel));
  parts.live.insert(file);
  tunnel->Serve(file.get());
}

FileTunnel::Poster FileTunnel::MakePoster() {
  return [&loop = parts_.loop, weak = weak_from_this()](Task task) {
    loop.Post([weak, task = std::move(task)] {
      if (const auto self = weak.lock()) task(*self);
    });
  };
}

void FileTunnel::OnFile(const link::v1::FileStart& start) {
  start_ = Recoded<guest::v1::FileStart>(start);
  auto channel = parts_.bunkers.FindChannel(bunker_id_, incarnation_);
  if (!channel.ok()) return Fail(channel.status());
  WaitForGuest(*channel, Deadline(kMaxWaitForGuest));
}

// A timer and not a thread waits: a guest that stays away must not hold up other bunkers.
void FileTunnel::WaitForGuest(const std::shared_ptr<GuestChannel>& channel,
                              const Deadline& deadline) {
  if (ended_) return;
  if (channel->ready() || deadline.Expired()) return Begin(channel);
  parts_.loop.AddTimer(kGuestPoll, [weak = weak_from_this(), channel, deadline] {
    if (const auto self = weak.lock()) self->WaitForGuest(channel, deadline);
  });
}

void FileTunnel::Begin(const std::shared_ptr<GuestChannel>& channel) {
  channel_ = channel;
  const Poster post = MakePoster();
  FileCallbacks callbacks;
  callbacks.on_head = [post](const guest::v1::FileHead& head) {
    post([head](FileTunnel& file) {
      if (!file.ended_) file.tunnel_->SendFileHead(Recoded<link::v1::FileHead>(head));
    });
  };
  callbacks.on_data = [post](std::string_view data) {
    auto copy = std::make_shared<std::string>(data);
    post([copy](FileTunnel& file) { file.OnData(std::move(*copy)); });
  };
  callbacks.on_room = [post] { post([](FileTunnel& file) { file.Pump(); }); };
  callbacks.on_end = [post](const guest::v1::FileEnd& end) {
    post([end](FileTunnel& file) { file.OnEnd(end); });
  };
  callbacks.on_error = [post](const absl::Status& status) {
    post([status](FileTunnel& file) { file.Fail(status); });
  };
  auto handle = channel->StartFile(start_, std::move(callbacks));
  if (!handle.ok()) return Fail(handle.status());
  handle_ = *std::move(handle);
  parts_.bunkers.CountExec(bunker_id_, incarnation_, +1);
  Pump();
}

void FileTunnel::OnStdin(std::string data) {
  data_ = std::move(data);
  data_taken_ = 0;
  data_waiting_ = true;
  Pump();
}

void FileTunnel::Pump() {
  if (ended_ || !handle_ || !data_waiting_) return;
  data_taken_ += handle_->TryWrite(std::string_view(data_).substr(data_taken_));
  if (data_taken_ < data_.size()) return;
  data_waiting_ = false;
  tunnel_->StdinTaken();
}

void FileTunnel::OnFileCommit(uint64_t size) {
  if (handle_ && !ended_) handle_->Commit(size);
}

void FileTunnel::OnCancel() {
  Fail(ReasonError(absl::StatusCode::kCancelled, "CANCELLED", "it was cancelled"));
}

void FileTunnel::OnData(std::string data) {
  if (ended_) return;
  const size_t size = data.size();
  if (tunnel_->SendFileData(std::move(data))) {
    handle_->AckData(size);
  } else {
    unacked_bytes_ += size;
  }
}

void FileTunnel::OnWritable() {
  if (handle_ && unacked_bytes_ > 0) handle_->AckData(std::exchange(unacked_bytes_, 0));
}

bool FileTunnel::End() {
  if (std::exchange(ended_, true)) return false;
  if (handle_) parts_.bunkers.CountExec(bunker_id_, incarnation_, -1);
  handle_.reset();  // gives up what is not finished
  return true;
}

void FileTunnel::OnEnd(const guest::v1::FileEnd& end) {
  if (!End()) return;
  link::v1::FileEnd told;
  *told.mutable_row() = Recoded<link::v1::FileRow>(end.row());
  told.set_has_more(end.has_more());
  told.set_entries(end.entries());
  tunnel_->SendFileEnd(std::move(told));
}

void FileTunnel::Fail(const absl::Status& status) {
  if (!End()) return;
  Log(Severity::kInfo, "file.failed",
      {{"bunker", bunker_id_}, {"error", std::string(status.message())}});
  tunnel_->SendError(status);
}

void FileTunnel::OnClosed(const absl::Status&) {
  End();
  channel_.reset();
  parts_.live.erase(shared_from_this());  // may be the end of this object
}

}  // namespace bunker::agent
