#include "controller/rest/shell_socket.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "bunker/v1/bunker.pb.h"
#include "common/base/mutex.h"
#include "controller/api/errors.h"
#include "controller/rest/envelope.h"
#include "controller/rest/json_value.h"

namespace bunker::controller {
namespace {

constexpr size_t kMaxQueuedBytes = 64u << 10;
constexpr uint16_t kNormal = 1000;
constexpr uint16_t kPolicy = 1008;
constexpr uint32_t kMaxCells = 1000;

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return lower;
}

int ExitCodeOf(const v1::ExecExit& exit) {
  if (exit.has_exit_code()) return exit.exit_code();
  for (int signal = 1; signal < NSIG; ++signal) {
    const char* name = ::sigabbrev_np(signal);
    if (name != nullptr && exit.signal() == std::string("SIG") + name) return 128 + signal;
  }
  return 128;
}

const JsonValue* Member(const JsonValue& object, std::string_view name) {
  for (const auto& [key, value] : object.members) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool ReadCells(const JsonValue& object, std::string_view name, uint32_t* cells) {
  const JsonValue* value = Member(object, name);
  return value != nullptr && value->kind == JsonValue::Kind::kNumber &&
         absl::SimpleAtoi(value->text, cells) && *cells >= 1 && *cells <= kMaxCells;
}

// {"resize":{"cols","rows"}}; anything else is no message of ours.
bool ReadResize(const std::string& text, TerminalSink::Input* input) {
  JsonLimits limits;
  limits.max_nodes = 16;
  limits.max_bytes = 1024;
  JsonValue json;
  JsonError error;
  if (!ParseJson(text, limits, &json, &error) || json.members.size() != 1) return false;
  const JsonValue* resize = Member(json, "resize");
  return resize != nullptr && resize->members.size() == 2 &&
         ReadCells(*resize, "cols", &input->columns) && ReadCells(*resize, "rows", &input->rows);
}

// A request that is no WebSocket's: it can only be refused.
class RefusedSink final : public StreamSink {
 public:
  RefusedSink(std::string request_id, std::shared_ptr<HttpExchange> exchange)
      : request_id_(std::move(request_id)), exchange_(std::move(exchange)) {}
  void Listen(std::function<void()>, std::function<void()>) override {}
  void Begin() override {}
  bool CanSend() override { return true; }
  void Send(const google::protobuf::Message&) override {}
  void Heartbeat() override {}
  void End(const absl::Status& why) override {
    exchange_->Send(ErrorResponse(ViewOf(why), request_id_));
  }

 private:
  const std::string request_id_;
  const std::shared_ptr<HttpExchange> exchange_;
};

class ShellSocket final : public TerminalSink,
                          public std::enable_shared_from_this<ShellSocket> {
 public:
  ShellSocket(std::string request_id, HttpRequest request, std::shared_ptr<HttpExchange> exchange)
      : request_id_(std::move(request_id)),
        request_(std::move(request)),
        exchange_(std::move(exchange)) {}

  void Listen(std::function<void()> closed, std::function<void()> drained) override {
    drained_ = std::move(drained);
    exchange_->OnClosed(std::move(closed));
  }
  void OnInput(std::function<void(Input)> input) override { input_ = std::move(input); }

  void Begin() override {
    WebSocketEvents events;
    events.on_message = [weak = weak_from_this()](bool is_text, std::string message) {
      if (const auto self = weak.lock()) self->OnMessage(is_text, std::move(message));
    };
    events.on_drained = drained_;
    socket_ = exchange_->Upgrade(request_, std::move(events));
  }

  bool CanSend() override { return socket_ == nullptr || socket_->QueuedBytes() < kMaxQueuedBytes; }

  void Send(const google::protobuf::Message& message) override {
    if (socket_ == nullptr) return;
    const auto& event = static_cast<const v1::OutputEvent&>(message);
    if (event.has_exit()) {
      socket_->Send(true, fmt::format("{{\"exit\":{}}}", ExitCodeOf(event.exit())));
    } else if (!event.stdout().empty()) {
      socket_->Send(false, event.stdout());
    }
  }

  void Heartbeat() override {}  // the socket pings by itself

  void ReadOn() override {
    if (socket_ != nullptr) socket_->ReadOn();
  }

  void End(const absl::Status& why) override {
    if (socket_ == nullptr) {
      const absl::Status told = why.ok() ? absl::InternalError("a shell without a word") : why;
      return exchange_->Send(ErrorResponse(ViewOf(told), request_id_));
    }
    if (why.ok()) return socket_->Close(kNormal, "");
    const ErrorView view = ViewOf(why);
    std::string text = "{\"error\":{\"code\":";
    AppendJsonString(&text, view.row->reason);
    text += ",\"message\":";
    AppendJsonString(&text, view.message);
    socket_->Send(true, text + "}}");
    socket_->Close(kPolicy, view.row->reason);
  }

 private:
  void OnMessage(bool is_text, std::string message) {
    Input input;
    if (!is_text) {
      input.data = std::move(message);
    } else if (!ReadResize(message, &input)) {
      socket_->Send(true, "{\"error\":{\"code\":\"VALIDATION_ERROR\",\"message\":\"a text is "
                          "{\\\"resize\\\":{\\\"cols\\\",\\\"rows\\\"}}, 1 to 1000; what is typed "
                          "is binary\"}}");
      return socket_->ReadOn();
    }
    input_(std::move(input));
  }

  const std::string request_id_;
  const HttpRequest request_;
  const std::shared_ptr<HttpExchange> exchange_;
  // Set before the feed lets anything come.
  std::function<void(Input)> input_;
  std::function<void()> drained_;
  std::shared_ptr<WebSocket> socket_;
};

}  // namespace

bool WantsWebSocket(const HttpRequest& request) {
  return Lower(request.Header("upgrade")) == "websocket" &&
         Lower(request.Header("connection")).find("upgrade") != std::string::npos &&
         request.Header("sec-websocket-version") == "13" &&
         !request.Header("sec-websocket-key").empty();
}

absl::Status CheckOrigin(const HttpRequest& request, const std::vector<std::string>& allowed) {
  const std::string origin = Lower(request.Header("origin"));
  if (origin.empty()) return absl::OkStatus();
  const std::string host = Lower(request.Header("host"));
  if (origin == "http://" + host || origin == "https://" + host) return absl::OkStatus();
  for (const std::string& one : allowed) {
    if (origin == Lower(one)) return absl::OkStatus();
  }
  return ApiError("AUTHZ_PERMISSION_DENIED",
                  "a page of another origin asks for this shell; the operator allows origins with "
                  "rest.allowed_origins");
}

std::shared_ptr<StreamSink> MakeShellSocket(std::string request_id, HttpRequest request,
                                            std::shared_ptr<HttpExchange> exchange) {
  if (!WantsWebSocket(request))
    return std::make_shared<RefusedSink>(std::move(request_id), std::move(exchange));
  return std::make_shared<ShellSocket>(std::move(request_id), std::move(request),
                                       std::move(exchange));
}

}  // namespace bunker::controller
