// HttpSession's part for bodies that are not kept in memory: what the handler has not asked for is
// not read, and stays with the client; an answer that can't be whole is cut.
#include <boost/asio/buffer.hpp>
#include <utility>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "controller/rest/http_parser.h"

namespace bunker::controller {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kPieceBytes = 64u << 10;

std::string Lower(boost::beast::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return lower;
}

}  // namespace

HttpRequest HeadOfRequest(const http::request_header<>& head, const std::string& peer) {
  HttpRequest request;
  request.method = std::string(head.method_string());
  request.target = std::string(head.target());
  for (const auto& field : head)
    request.headers.emplace_back(Lower(field.name_string()), std::string(field.value()));
  request.peer = peer;
  uint64_t length = 0;
  if (absl::SimpleAtoi(std::string(request.Header("content-length")), &length))
    request.content_length = length;
  return request;
}

bool HttpSession::uploading() const { return upload_ != nullptr && !upload_->parser_.is_done(); }

void HttpSession::StartUpload(HttpRequest head) {
  upload_ = std::make_unique<Upload>(std::move(*parser_), shared_from_this());
  parser_.reset();
  head.has_streamed_body = true;
  state_ = State::kHandling;
  timer_.cancel();
  HandOver(std::move(head));
}

void HttpSession::ReadUpload(uint64_t serial, HttpExchange::BodyDone done) {
  if (serial != serial_ || state_ != State::kHandling || upload_ == nullptr || upload_->done_)
    return done(absl::CancelledError("the client went away"));
  upload_->done_ = std::move(done);
  if (!upload_->failed_.ok()) return FailUpload(upload_->failed_);
  PumpUpload();
}

void HttpSession::PumpUpload() {
  if (upload_ == nullptr || !upload_->done_) return;
  auto& parser = upload_->parser_;
  std::string piece;
  if (!parser.is_done() && !input_.empty()) {
    piece.resize(kPieceBytes);
    auto& body = parser.get().body();
    body.data = piece.data();
    body.size = piece.size();
    body.more = true;
    error_code ec;
    const size_t used = parser.put(asio::buffer(input_), ec);
    input_.erase(0, used);
    piece.resize(kPieceBytes - body.size);
    if (ec && ec != http::error::need_more && ec != http::error::need_buffer)
      return FailUpload(absl::InvalidArgumentError(
          "the request's body is not framed as HTTP/1.1 says; it is refused"));
  }
  if (piece.empty() && !parser.is_done()) {
    SendContinue();
    ArmTimer(shared_->limits.progress_timeout);
    return StartRead();
  }
  timer_.cancel();
  std::exchange(upload_->done_, nullptr)(std::move(piece));
  StartRead();
}

void HttpSession::FailUpload(const absl::Status& why) {
  if (upload_ == nullptr) return;
  upload_->failed_ = why;
  timer_.cancel();
  if (upload_->done_) std::exchange(upload_->done_, nullptr)(why);
}

void HttpSession::AbortAnswer(uint64_t serial) {
  if (serial != serial_ || state_ != State::kStreaming || ending_stream_) return;
  transport_->Reset();
  Close();
}

// The answer begins: what is left of the body is of no use.
void HttpSession::LeaveUpload() {
  if (upload_ == nullptr) return;
  if (uploading()) {
    keep_alive_ = false;
    linger_ = true;
    input_.clear();
  }
  wants_continue_ = false;
  timer_.cancel();
  const auto left = std::exchange(upload_, nullptr);
  if (left->done_) left->done_(absl::CancelledError("the request was answered"));
}

}  // namespace bunker::controller
