#include "controller/rest/websocket_session.h"

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <utility>

namespace bunker::controller {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

constexpr size_t kMaxMessageBytes = 1u << 20;
constexpr auto kHandshakeTimeout = std::chrono::seconds(10);
// A ping goes out at half of it; who does not answer is gone.
constexpr auto kIdleTimeout = std::chrono::seconds(60);

template <typename Buffer, typename Buffers>
Buffer FirstOf(const Buffers& buffers) {
  for (auto at = asio::buffer_sequence_begin(buffers); at != asio::buffer_sequence_end(buffers);
       ++at) {
    const Buffer buffer(*at);
    if (buffer.size() > 0) return buffer;
  }
  return Buffer();
}

// The connection as Beast wants a stream to be.
class Layer {
 public:
  using executor_type = asio::io_context::executor_type;

  Layer(asio::io_context& io, std::shared_ptr<UpgradedConnection> connection)
      : io_(io), connection_(std::move(connection)) {}

  executor_type get_executor() const noexcept { return io_.get_executor(); }

  template <typename Buffers, typename Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    return asio::async_initiate<Handler, void(error_code, size_t)>(
        [connection = connection_](auto done, asio::mutable_buffer buffer) {
          auto shared = std::make_shared<decltype(done)>(std::move(done));
          connection->ReadUpgraded(
              static_cast<char*>(buffer.data()), buffer.size(),
              [shared](const error_code& ec, size_t size) { std::move (*shared)(ec, size); });
        },
        handler, FirstOf<asio::mutable_buffer>(buffers));
  }

  template <typename Buffers, typename Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    return asio::async_initiate<Handler, void(error_code, size_t)>(
        [connection = connection_](auto done, asio::const_buffer buffer) {
          auto shared = std::make_shared<decltype(done)>(std::move(done));
          connection->WriteUpgraded(
              static_cast<const char*>(buffer.data()), buffer.size(),
              [shared](const error_code& ec, size_t size) { std::move (*shared)(ec, size); });
        },
        handler, FirstOf<asio::const_buffer>(buffers));
  }

  void Close() { connection_->CloseUpgraded(); }

 private:
  asio::io_context& io_;
  std::shared_ptr<UpgradedConnection> connection_;
};

// Beast looks these two up by the stream's type.
[[maybe_unused]] void teardown(beast::role_type, Layer& layer, error_code& ec) {
  layer.Close();
  ec = {};
}
template <typename Handler>
void async_teardown(beast::role_type, Layer& layer, Handler&& handler) {
  layer.Close();
  asio::post(layer.get_executor(),
             [handler = std::forward<Handler>(handler)]() mutable { handler(error_code()); });
}
void beast_close_socket(Layer& layer) { layer.Close(); }

class Session final : public UpgradedSocket, public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<asio::io_context> io, const HttpRequest& request, WebSocketEvents events)
      : io_(std::move(io)), events_(std::move(events)) {
    request_.method(beast::http::verb::get);
    request_.version(11);
    request_.target(request.target);
    for (const auto& [name, value] : request.headers) request_.insert(name, value);
  }

  void Start(std::shared_ptr<UpgradedConnection> connection) override {
    stream_ = std::make_unique<Stream>(*io_, std::move(connection));
    stream_->read_message_max(kMaxMessageBytes);
    websocket::stream_base::timeout timeout{};
    timeout.handshake_timeout = kHandshakeTimeout;
    timeout.idle_timeout = kIdleTimeout;
    timeout.keep_alive_pings = true;
    stream_->set_option(timeout);
    stream_->async_accept(request_, [self = shared_from_this()](const error_code& ec) {
      if (ec) return self->End();
      self->open_ = true;
      self->Read();
      self->WriteMore();
    });
  }

  void Send(bool is_text, std::string message) override {
    queued_bytes_ += message.size();
    Post([is_text, message = std::move(message)](Session& self) mutable {
      self.output_.push_back({is_text, std::move(message)});
      self.WriteMore();
    });
  }

  size_t QueuedBytes() const override { return queued_bytes_; }

  void ReadOn() override {
    Post([](Session& self) {
      self.read_wanted_ = true;
      self.Read();
    });
  }

  void Close(uint16_t code, std::string reason) override {
    Post([code, reason = std::move(reason)](Session& self) {
      self.closing_ = true;
      self.reason_ = websocket::close_reason(static_cast<websocket::close_code>(code),
                                             reason.substr(0, 100));
      self.WriteMore();
    });
  }

 private:
  using Stream = websocket::stream<Layer>;
  struct Message {
    bool is_text;
    std::string data;
  };

  template <typename Action>
  void Post(Action action) {
    asio::post(*io_, [self = shared_from_this(), action = std::move(action)]() mutable {
      if (!self->ended_) action(*self);
    });
  }

  void Read() {
    if (!open_ || ended_ || reading_ || !read_wanted_) return;
    reading_ = true;
    read_wanted_ = false;
    stream_->async_read(input_, [self = shared_from_this()](const error_code& ec, size_t) {
      self->reading_ = false;
      if (ec) return self->End();
      std::string message = beast::buffers_to_string(self->input_.data());
      self->input_.consume(self->input_.size());
      self->events_.on_message(self->stream_->got_text(), std::move(message));
      self->Read();
    });
  }

  void WriteMore() {
    if (!open_ || ended_ || writing_) return;
    if (output_.empty()) {
      if (!std::exchange(closing_, false)) return;
      writing_ = true;  // nothing after it
      stream_->async_close(reason_, [self = shared_from_this()](const error_code&) {
        self->End();
      });
      return;
    }
    writing_ = true;
    stream_->text(output_.front().is_text);
    stream_->async_write(asio::buffer(output_.front().data),
                         [self = shared_from_this()](const error_code& ec, size_t) {
      self->writing_ = false;
      const size_t size = self->output_.front().data.size();
      self->output_.pop_front();
      if (ec) return self->End();
      const bool drained = self->queued_bytes_.fetch_sub(size) == size;
      if (drained && self->events_.on_drained) self->events_.on_drained();
      self->WriteMore();
    });
  }

  void End() {
    if (std::exchange(ended_, true)) return;
    stream_->next_layer().Close();
  }

  const std::shared_ptr<asio::io_context> io_;
  const WebSocketEvents events_;
  beast::http::request<beast::http::empty_body> request_;
  std::atomic<size_t> queued_bytes_{0};

  // The I/O thread's.
  std::unique_ptr<Stream> stream_;
  beast::flat_buffer input_{kMaxMessageBytes + 1024};
  std::deque<Message> output_;
  websocket::close_reason reason_;
  bool open_ = false;
  bool reading_ = false;
  bool read_wanted_ = false;
  bool writing_ = false;
  bool closing_ = false;
  bool ended_ = false;
};

}  // namespace

std::shared_ptr<UpgradedSocket> MakeWebSocket(std::shared_ptr<asio::io_context> io,
                                              const HttpRequest& request, WebSocketEvents events) {
  return std::make_shared<Session>(std::move(io), request, std::move(events));
}

}  // namespace bunker::controller
