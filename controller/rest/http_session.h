// One client connection: reads requests one at a time, hands them over, writes the answers.
//
// All of it runs on the server's I/O thread, but for the HttpExchange calls, which post there.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "controller/rest/http_server.h"
#include "controller/rest/http_types.h"
#include "controller/rest/transport.h"
#include "controller/rest/websocket_session.h"

namespace bunker::controller {

// What the sessions of one server share. Outlives them; I/O thread only.
struct HttpShared {
  // Shared, so that an exchange kept past the server's end can still post, to nowhere.
  std::shared_ptr<boost::asio::io_context> io;
  HttpHandler* handler = nullptr;
  HttpLimits limits;
  size_t bodies_bytes = 0;
  bool draining = false;  // answer what runs, then close
};

class HttpSession final : public UpgradedConnection,
                          public std::enable_shared_from_this<HttpSession> {
 public:
  // `on_end` runs once, when the connection is closed.
  HttpSession(std::shared_ptr<HttpShared> shared, std::unique_ptr<Transport> transport,
              std::string peer, std::function<void()> on_end);
  ~HttpSession() override;

  void Start();
  void Close();
  // Closes now if no request is being answered; else after the answer.
  void Drain();

  // Once it is a WebSocket.
  void ReadUpgraded(char* data, size_t size, Transport::Callback done) override;
  void WriteUpgraded(const char* data, size_t size, Transport::Callback done) override;
  void CloseUpgraded() override { Close(); }

 private:
  class Exchange;
  class Parser;
  class Upload;
  // kLingering: the answer ends the connection; what the client still sends is thrown away for a
  // moment, since closing on unread bytes would destroy the answer on its way.
  enum class State {
    kHandshake, kHead, kBody, kHandling, kStreaming, kWriting, kLingering, kUpgraded,
    kClosed
  };

  void StartRead();
  void OnRead(size_t size);
  void Process();
  bool ProcessHead();
  bool ProcessBody();
  bool ExpectationMet(const HttpRequest& head);
  void SendContinue();
  void Dispatch();
  void HandOver(HttpRequest request);
  // ---- a streamed body (http_upload.cc)
  void StartUpload(HttpRequest head);
  void ReadUpload(uint64_t serial, HttpExchange::BodyDone done);
  void PumpUpload();
  void FailUpload(const absl::Status& why);
  bool uploading() const;  // a streamed body that has not ended
  void RefuseRequest(int http_status, std::string_view message);
  void BeginAnswer(uint64_t serial, HttpResponse response);
  void BeginStream(uint64_t serial, HttpResponse head, std::optional<uint64_t> size);
  void QueueEvent(uint64_t serial, std::string bytes);
  void FinishStream(uint64_t serial);
  void AbortAnswer(uint64_t serial);
  void LeaveUpload();
  void AbandonExchange(uint64_t serial);
  void BeginUpgrade(uint64_t serial, UpgradedSocket& socket);
  void DeliverUpgraded(const boost::system::error_code& ec);
  // `size`: of the body; none: a stream's.
  std::string HeadOf(const HttpResponse& response, std::optional<uint64_t> size) const;
  void WriteMore();
  void OnWritten();
  void AnswerDone();
  void EndExchange();
  void ReleaseBody();
  void ArmTimer(absl::Duration after);
  void OnDeadline();

  const std::shared_ptr<HttpShared> shared_;
  const std::unique_ptr<Transport> transport_;
  const std::string peer_;
  std::function<void()> on_end_;
  boost::asio::steady_timer timer_;
  absl::Time body_deadline_ = absl::InfiniteFuture();

  State state_ = State::kHandshake;
  bool reading_ = false;
  bool writing_ = false;
  bool keep_alive_ = true;
  bool linger_ = false;
  bool ending_stream_ = false;
  bool is_head_request_ = false;
  bool is_http_1_0_ = false;
  size_t scanned_ = 0;  // of input_, for line ends
  std::string input_;  // read, not yet consumed
  std::vector<char> chunk_;  // what is read into; larger while a body is streamed
  // What a WebSocket waits for.
  Transport::Callback upgraded_read_;
  char* upgraded_data_ = nullptr;
  size_t upgraded_size_ = 0;
  std::unique_ptr<Parser> parser_;
  std::unique_ptr<Upload> upload_;
  bool wants_continue_ = false;
  std::optional<uint64_t> left_to_send_;  // of an answer whose size was said
  size_t body_counted_ = 0;

  uint64_t serial_ = 0;  // of the request being answered
  std::weak_ptr<Exchange> exchange_;
  struct Output {
    std::string bytes;
    size_t event_bytes = 0;  // what the exchange counted for it
  };
  std::deque<Output> output_;
  size_t written_of_front_ = 0;
};

}  // namespace bunker::controller
