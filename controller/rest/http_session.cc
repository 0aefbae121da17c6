#include "controller/rest/http_session.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include <fmt/format.h>

#include "absl/functional/any_invocable.h"
#include "absl/time/clock.h"
#include "common/base/mutex.h"
#include "controller/rest/http_head.h"
#include "controller/rest/http_parser.h"

namespace bunker::controller {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kMaxPipelinedBytes = 64u << 10;
constexpr size_t kReadBytes = 16u << 10;
constexpr size_t kUploadReadBytes = 64u << 10;
constexpr size_t kWriteSliceBytes = 64u << 10;
constexpr auto kLingerTime = absl::Seconds(2);

}  // namespace

// The handle that a handler keeps. It holds the session weakly: the session ends with its
// connection, on the I/O thread.
class HttpSession::Exchange final : public HttpExchange {
 public:
  Exchange(std::shared_ptr<HttpShared> shared, std::weak_ptr<HttpSession> session, uint64_t serial)
      : shared_(std::move(shared)), session_(std::move(session)), serial_(serial) {}

  ~Exchange() override {
    if (answered_) return;
    Post([serial = serial_](HttpSession& session) { session.AbandonExchange(serial); });
  }

  void Send(HttpResponse response) override {
    if (answered_.exchange(true)) return;
    Post([serial = serial_, response = std::move(response)](HttpSession& session) mutable {
      session.BeginAnswer(serial, std::move(response));
    });
  }

  void StartStream(HttpResponse head) override { Start(std::move(head), std::nullopt); }
  void StartBody(HttpResponse head, uint64_t size) override { Start(std::move(head), size); }

  void ReadBody(BodyDone done) override {
    // A session that ends takes what was posted to it along: the caller is told all the same.
    Post([serial = serial_, done = OnceAtLeast(std::move(done))](HttpSession& session) mutable {
      session.ReadUpload(serial, std::move(done));
    });
  }

  void AbortStream() override {
    if (ended_.exchange(true)) return;
    Post([serial = serial_](HttpSession& session) { session.AbortAnswer(serial); });
  }

  bool WriteEvent(std::string bytes, std::string_view last_words) override {
    if (ended_) return false;
    if (queued_bytes_ + bytes.size() > shared_->limits.max_stream_queue_bytes) {
      if (!ended_.exchange(true)) QueueAndEnd(std::string(last_words));
      return false;
    }
    queued_bytes_ += bytes.size();
    Post([serial = serial_, bytes = std::move(bytes)](HttpSession& session) mutable {
      session.QueueEvent(serial, std::move(bytes));
    });
    return true;
  }

  void EndStream() override {
    if (!ended_.exchange(true)) QueueAndEnd("");
  }

  std::shared_ptr<WebSocket> Upgrade(const HttpRequest& request, WebSocketEvents events) override {
    if (answered_.exchange(true)) return nullptr;
    auto socket = MakeWebSocket(shared_->io, request, std::move(events));
    Post([serial = serial_, socket](HttpSession& session) {
      session.BeginUpgrade(serial, *socket);
    });
    return socket;
  }

  void OnClosed(std::function<void()> closed) override {
    {
      MutexLock lock(mutex_);
      if (!gone_) {
        closed_ = std::move(closed);
        return;
      }
    }
    closed();
  }

  size_t QueuedBytes() const override { return queued_bytes_; }

  void OnDrained(std::function<void()> drained) override {
    MutexLock lock(mutex_);
    if (!gone_) drained_ = std::move(drained);
  }

  // The client went away.
  void Gone() {
    ended_ = true;
    std::function<void()> closed;
    {
      MutexLock lock(mutex_);
      gone_ = true;
      closed = std::move(closed_);
      closed_ = nullptr;
      drained_ = nullptr;
    }
    if (closed) closed();
  }

  void Written(size_t bytes) {
    if (bytes == 0 || queued_bytes_.fetch_sub(bytes) != bytes) return;
    std::function<void()> drained;
    {
      MutexLock lock(mutex_);
      drained = drained_;
    }
    if (drained) drained();
  }

 private:
  void Start(HttpResponse head, std::optional<uint64_t> size) {
    if (answered_.exchange(true)) return;
    Post([serial = serial_, head = std::move(head), size](HttpSession& session) mutable {
      session.BeginStream(serial, std::move(head), size);
    });
  }

  // Calls `done` with CANCELLED where it is dropped without a call.
  static BodyDone OnceAtLeast(BodyDone done) {
    struct Holder {
      explicit Holder(BodyDone held) : call(std::move(held)) {}
      Holder(const Holder&) = delete;
      Holder& operator=(const Holder&) = delete;
      ~Holder() {
        if (call) call(absl::CancelledError("the client went away"));
      }

      BodyDone call;
    };
    auto holder = std::make_unique<Holder>(std::move(done));
    return [holder = std::move(holder)](absl::StatusOr<std::string> piece) {
      std::exchange(holder->call, nullptr)(std::move(piece));
    };
  }

  void QueueAndEnd(std::string bytes) {
    queued_bytes_ += bytes.size();
    Post([serial = serial_, bytes = std::move(bytes)](HttpSession& session) mutable {
      if (!bytes.empty()) session.QueueEvent(serial, std::move(bytes));
      session.FinishStream(serial);
    });
  }

  // Actions on their way to the I/O thread. Of its own, because what that thread posts to itself
  // may be run after what another thread posted later.
  struct Mailbox {
    Mutex mutex;
    std::deque<absl::AnyInvocable<void(HttpSession&)>> actions ABSL_GUARDED_BY(mutex);

    std::deque<absl::AnyInvocable<void(HttpSession&)>> Take() {
      MutexLock lock(mutex);
      return std::exchange(actions, {});
    }
  };

  void Post(absl::AnyInvocable<void(HttpSession&)> action) {
    {
      MutexLock lock(mailbox_->mutex);
      mailbox_->actions.push_back(std::move(action));
    }
    asio::post(*shared_->io, [weak = session_, mailbox = mailbox_] {
      auto actions = mailbox->Take();
      const auto session = weak.lock();
      if (session == nullptr) return;
      for (auto& one : actions) one(*session);
    });
  }

  const std::shared_ptr<HttpShared> shared_;
  const std::weak_ptr<HttpSession> session_;
  const uint64_t serial_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::atomic<bool> answered_{false};
  std::atomic<bool> ended_{false};
  std::atomic<size_t> queued_bytes_{0};
  Mutex mutex_;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<void()> closed_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> drained_ ABSL_GUARDED_BY(mutex_);
};

HttpSession::HttpSession(std::shared_ptr<HttpShared> shared, std::unique_ptr<Transport> transport,
                         std::string peer, std::function<void()> on_end)
    : shared_(std::move(shared)), transport_(std::move(transport)), peer_(std::move(peer)),
      on_end_(std::move(on_end)), timer_(*shared_->io) {}

HttpSession::~HttpSession() { ReleaseBody(); }

void HttpSession::Start() {
  ArmTimer(shared_->limits.header_timeout);
  transport_->Handshake([self = shared_from_this()](const error_code& ec, size_t) {
    if (self->state_ != State::kHandshake) return;
    if (ec) return self->Close();
    self->state_ = State::kHead;
    self->ArmTimer(self->shared_->limits.header_timeout);
    self->StartRead();
  });
}

void HttpSession::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  timer_.cancel();
  transport_->Close();
  ReleaseBody();
  DeliverUpgraded(asio::error::operation_aborted);
  FailUpload(absl::CancelledError("the client went away"));
  const auto upload = std::exchange(upload_, nullptr);  // may hold the last hold on this
  EndExchange();
  if (on_end_) std::exchange(on_end_, nullptr)();
}

void HttpSession::Drain() {
  keep_alive_ = false;
  if (state_ == State::kHandshake || (state_ == State::kHead && input_.empty()) ||
      state_ == State::kStreaming || state_ == State::kUpgraded)
    Close();
}

void HttpSession::EndExchange() {
  if (const auto exchange = exchange_.lock()) exchange->Gone();
  exchange_.reset();
}

void HttpSession::ArmTimer(absl::Duration after) {
  timer_.expires_after(absl::ToChronoMicroseconds(after));
  timer_.async_wait([weak = weak_from_this()](const error_code& ec) {
    if (ec) return;  // re-armed or cancelled
    if (const auto self = weak.lock()) self->OnDeadline();
  });
}

void HttpSession::OnDeadline() {
  switch (state_) {
    case State::kHead:
      if (input_.empty()) return Close();  // an idle kept connection
      return RefuseRequest(408, "the request's head took too long; send it at once");
    case State::kBody:
      return RefuseRequest(408, "the request's body stopped coming; send it without pauses");
    case State::kHandling:
      if (!uploading()) return;  // bounded by whoever answers
      return FailUpload(absl::InvalidArgumentError(
          "the request's body stopped coming; send it without pauses"));
    case State::kStreaming:
    case State::kUpgraded:
      if (!writing_) return;
      return Close();
    default: return Close();
  }
}

void HttpSession::StartRead() {
  if (reading_ || state_ == State::kClosed || input_.size() >= kMaxPipelinedBytes) return;
  reading_ = true;
  chunk_.resize(uploading() ? kUploadReadBytes : kReadBytes);
  transport_->ReadSome(chunk_.data(), chunk_.size(),
                       [self = shared_from_this()](const error_code& ec, size_t size) {
    self->reading_ = false;
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->OnRead(size);
  });
}

void HttpSession::OnRead(size_t size) {
  if (state_ == State::kLingering) return StartRead();
  if (state_ == State::kHead && input_.empty()) ArmTimer(shared_->limits.header_timeout);
  input_.append(chunk_.data(), size);
  if (state_ == State::kUpgraded) return DeliverUpgraded({});
  Process();
  StartRead();
}

void HttpSession::Process() {
  while (true) {
    if (state_ == State::kHead) {
      if (!ProcessHead()) return;
    } else if (state_ == State::kBody) {
      if (!ProcessBody()) return;
    } else {
      if (state_ == State::kHandling) PumpUpload();
      return;
    }
  }
}

// True once the state changed.
bool HttpSession::ProcessHead() {
  size_t end = std::string::npos;
  for (; end == std::string::npos && scanned_ < input_.size(); ++scanned_) {
    if (input_[scanned_] != '\n') continue;
    if (scanned_ == 0 || input_[scanned_ - 1] != '\r') {
      RefuseRequest(400, "the request has a line end other than CR LF; it is refused");
      return false;
    }
    if (scanned_ >= 3 && input_[scanned_ - 2] == '\n') end = scanned_ + 1;
  }
  const HttpLimits& limits = shared_->limits;
  if ((end == std::string::npos ? input_.size() : end) > limits.max_header_bytes) {
    RefuseRequest(431, fmt::format("the request's head is larger than {} bytes; send fewer or "
                                   "shorter headers", limits.max_header_bytes));
    return false;
  }
  if (end == std::string::npos) return false;
  const std::string wrong = CheckRequestHead(std::string_view(input_).substr(0, end));
  if (!wrong.empty()) {
    RefuseRequest(400, fmt::format("the request has {}; it is refused", wrong));
    return false;
  }
  parser_ = std::make_unique<Parser>(limits);
  auto& parser = parser_->head_;
  error_code ec;
  parser.put(asio::buffer(input_.data(), end), ec);
  if ((ec && ec != http::error::need_more) || !parser.is_header_done()) {
    RefuseRequest(400, "the request's head is not HTTP/1.1; it is refused");
    return false;
  }
  input_.erase(0, end);
  scanned_ = 0;
  keep_alive_ = parser.keep_alive() && !shared_->draining;
  is_http_1_0_ = parser.get().version() == 10;
  is_head_request_ = parser.get().method() == http::verb::head;
  HttpRequest head = HeadOfRequest(parser.get().base(), peer_);
  if (!ExpectationMet(head)) return false;
  if (shared_->handler->StreamsBody(head)) {
    StartUpload(std::move(head));
    return false;
  }
  if (head.content_length.value_or(0) > limits.max_body_bytes) {
    RefuseRequest(413, fmt::format("the body is larger than {} bytes; send less",
                                   limits.max_body_bytes));
    return false;
  }
  parser_->KeepBody(limits);
  state_ = State::kBody;
  body_deadline_ = absl::Now() + limits.body_timeout;
  if (!parser_->body_->is_done() && input_.empty()) SendContinue();
  return true;
}

bool HttpSession::ExpectationMet(const HttpRequest& head) {
  std::string expect(head.Header("expect"));
  for (char& c : expect) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  wants_continue_ = expect == "100-continue" && !is_http_1_0_;
  if (expect.empty() || expect == "100-continue") return true;
  RefuseRequest(417, "the only expectation known here is 100-continue");
  return false;
}

void HttpSession::SendContinue() {
  if (!std::exchange(wants_continue_, false) || writing_) return;
  output_.push_back({"HTTP/1.1 100 Continue\r\n\r\n"});
  WriteMore();
}

bool HttpSession::ProcessBody() {
  auto& parser = *parser_->body_;
  if (!parser.is_done() && !input_.empty()) {
    error_code ec;
    const size_t used = parser.put(asio::buffer(input_), ec);
    input_.erase(0, used);
    if (ec == http::error::body_limit) {
      RefuseRequest(413, fmt::format("the body is larger than {} bytes; send less",
                                     shared_->limits.max_body_bytes));
      return false;
    }
    if (ec && ec != http::error::need_more) {
      RefuseRequest(400, "the request's body is not framed as HTTP/1.1 says; it is refused");
      return false;
    }
    const size_t size = parser.get().body().capacity();
    shared_->bodies_bytes += size - body_counted_;
    body_counted_ = size;
    if (shared_->bodies_bytes > shared_->limits.max_bodies_bytes) {
      RefuseRequest(503, "too many large bodies are on their way; try again in a moment");
      return false;
    }
    if (input_.size() > kMaxPipelinedBytes && !parser.is_done()) {
      RefuseRequest(400, "the request's body is not framed as HTTP/1.1 says; it is refused");
      return false;
    }
  }
  if (!parser.is_done()) {
    ArmTimer(std::min(shared_->limits.progress_timeout, body_deadline_ - absl::Now()));
    return false;
  }
  Dispatch();
  return false;
}

void HttpSession::Dispatch() {
  auto message = parser_->body_->release();
  parser_.reset();
  HttpRequest request = HeadOfRequest(message.base(), peer_);
  request.body = std::move(message.body());
  state_ = State::kHandling;
  timer_.cancel();
  HandOver(std::move(request));
}

void HttpSession::HandOver(HttpRequest request) {
  auto exchange = std::make_shared<Exchange>(shared_, weak_from_this(), ++serial_);
  exchange_ = exchange;
  shared_->handler->Handle(std::move(request), std::move(exchange));
}

void HttpSession::RefuseRequest(int http_status, std::string_view message) {
  keep_alive_ = false;
  linger_ = true;
  input_.clear();
  ReleaseBody();
  state_ = State::kHandling;
  BeginAnswer(++serial_, shared_->handler->ProtocolError(http_status, message));
}

void HttpSession::ReleaseBody() {
  shared_->bodies_bytes -= std::exchange(body_counted_, 0);
}

std::string HttpSession::HeadOf(const HttpResponse& response,
                                std::optional<uint64_t> size) const {
  std::string head = fmt::format(
      "HTTP/1.1 {} {}\r\n", response.status,
      std::string(http::obsolete_reason(static_cast<http::status>(response.status))));
  for (const auto& [name, value] : response.headers)
    head += fmt::format("{}: {}\r\n", name, value);
  head += fmt::format("Date: {}\r\n", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(),
                                                       absl::UTCTimeZone()));
  if (size && response.status != 304) {
    head += fmt::format("Content-Length: {}\r\n", *size);
  } else if (!size && !is_http_1_0_) {
    head += "Transfer-Encoding: chunked\r\n";
  }
  head += keep_alive_ ? (is_http_1_0_ ? "Connection: keep-alive\r\n" : "")
                      : "Connection: close\r\n";
  return head + "\r\n";
}

void HttpSession::BeginAnswer(uint64_t serial, HttpResponse response) {
  if (serial != serial_ || state_ != State::kHandling) return;
  ReleaseBody();
  LeaveUpload();
  state_ = State::kWriting;
  output_.push_back({HeadOf(response, response.body.size())});
  if (!response.body.empty() && !is_head_request_) output_.push_back({std::move(response.body)});
  WriteMore();
}

void HttpSession::BeginStream(uint64_t serial, HttpResponse head, std::optional<uint64_t> size) {
  if (serial != serial_ || state_ != State::kHandling) return;
  ReleaseBody();
  LeaveUpload();
  if (is_http_1_0_ && !size) keep_alive_ = false;
  state_ = State::kStreaming;
  ending_stream_ = false;
  left_to_send_ = size;
  output_.push_back({HeadOf(head, size)});
  WriteMore();
}

void HttpSession::QueueEvent(uint64_t serial, std::string bytes) {
  if (serial != serial_ || state_ != State::kStreaming || ending_stream_) return;
  const size_t counted = bytes.size();
  if (left_to_send_) {
    if (counted > *left_to_send_) return Close();
    *left_to_send_ -= counted;
  } else if (!is_http_1_0_) bytes = fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
  output_.push_back({std::move(bytes), counted});
  WriteMore();
}

void HttpSession::FinishStream(uint64_t serial) {
  if (serial != serial_ || state_ != State::kStreaming || ending_stream_) return;
  if (left_to_send_.value_or(0) > 0) return AbortAnswer(serial);
  ending_stream_ = true;
  if (!left_to_send_ && !is_http_1_0_) output_.push_back({"0\r\n\r\n"});
  WriteMore();
  if (output_.empty() && !writing_) AnswerDone();
}

void HttpSession::BeginUpgrade(uint64_t serial, UpgradedSocket& socket) {
  if (serial != serial_ || state_ != State::kHandling) return;
  ReleaseBody();
  timer_.cancel();
  state_ = State::kUpgraded;
  socket.Start(shared_from_this());
}

void HttpSession::ReadUpgraded(char* data, size_t size, Transport::Callback done) {
  upgraded_read_ = std::move(done);
  upgraded_data_ = data;
  upgraded_size_ = size;
  if (state_ == State::kClosed) return DeliverUpgraded(asio::error::operation_aborted);
  if (!input_.empty() || size == 0) return DeliverUpgraded({});
  StartRead();
}

void HttpSession::DeliverUpgraded(const error_code& ec) {
  if (!upgraded_read_) return;
  const size_t size = ec ? 0 : std::min(upgraded_size_, input_.size());
  input_.copy(upgraded_data_, size);
  input_.erase(0, size);
  asio::post(*shared_->io,
             [done = std::exchange(upgraded_read_, nullptr), ec, size] { done(ec, size); });
}

void HttpSession::WriteUpgraded(const char* data, size_t size, Transport::Callback done) {
  if (state_ == State::kClosed) {
    asio::post(*shared_->io, [done] { done(asio::error::operation_aborted, 0); });
    return;
  }
  writing_ = true;
  ArmTimer(shared_->limits.progress_timeout);
  const size_t slice = std::min(size, kWriteSliceBytes);
  transport_->Write(data, slice, [self = shared_from_this(), slice, done](const error_code& ec,
                                                                          size_t) {
    self->writing_ = false;
    self->timer_.cancel();
    done(ec, ec ? 0 : slice);
  });
}

void HttpSession::AbandonExchange(uint64_t serial) {
  if (serial == serial_ && state_ == State::kHandling) Close();
}

void HttpSession::WriteMore() {
  if (writing_ || output_.empty() || state_ == State::kClosed) return;
  writing_ = true;
  if (state_ != State::kBody) ArmTimer(shared_->limits.progress_timeout);
  const std::string& front = output_.front().bytes;
  const size_t size = std::min(front.size() - written_of_front_, kWriteSliceBytes);
  transport_->Write(front.data() + written_of_front_, size,
                    [self = shared_from_this(), size](const error_code& ec, size_t) {
    self->writing_ = false;
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->written_of_front_ += size;
    self->OnWritten();
  });
}

void HttpSession::OnWritten() {
  if (written_of_front_ == output_.front().bytes.size()) {
    if (const auto exchange = exchange_.lock()) exchange->Written(output_.front().event_bytes);
    output_.pop_front();
    written_of_front_ = 0;
  }
  if (!output_.empty()) return WriteMore();
  if (state_ == State::kWriting || (state_ == State::kStreaming && ending_stream_)) AnswerDone();
}

void HttpSession::AnswerDone() {
  exchange_.reset();
  if (!keep_alive_) {
    if (!linger_) return Close();
    state_ = State::kLingering;
    input_.clear();
    transport_->ShutdownSend();
    ArmTimer(kLingerTime);
    return StartRead();
  }
  state_ = State::kHead;
  scanned_ = 0;
  is_head_request_ = false;
  ArmTimer(input_.empty() ? shared_->limits.progress_timeout : shared_->limits.header_timeout);
  Process();
  StartRead();
}

}  // namespace bunker::controller
