#include "agent/vm/qmp_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "agent/vm/unix_socket.h"
#include "common/base/converters.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxLineBytes = 2 * 1024 * 1024;  // a full console of 1 MiB in base64
constexpr size_t kMaxEvents = 64;
constexpr int kMaxDepth = 16;  // nlohmann walks what it keeps recursively

// OK once `fd` is ready for `events`.
absl::Status WaitReady(int fd, short events, const Deadline& deadline) {
  while (true) {
    pollfd watched{.fd = fd, .events = events, .revents = 0};
    const int ready = poll(&watched, 1, deadline.PollTimeoutMs());
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoError(errno, "poll");
    if (deadline.Expired()) return absl::DeadlineExceededError("the VMM does not answer");
  }
}

// An object, or nothing where the line is none. Deeper values are left out.
Json ParseObject(const std::string& line) {
  const auto keep = [](int depth, Json::parse_event_t, Json&) { return depth <= kMaxDepth; };
  Json message = Json::parse(line, keep, /*allow_exceptions=*/false);
  return message.is_object() ? message : Json();
}

std::string Text(const Json& value) {
  return value.dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string EventText(const Json& message) {
  const Json& name = message.at("event");
  std::string text = name.is_string() ? name.get<std::string>() : "?";
  if (message.contains("data")) absl::StrAppend(&text, " ", Text(message.at("data")));
  return text;
}

}  // namespace

absl::StatusOr<QmpClient> QmpClient::Connect(const std::string& path, Deadline deadline) {
  ASSIGN_OR_RETURN(UniqueFd fd, ConnectUnix(path, deadline.Remaining()));
  QmpClient client(std::move(fd));
  ASSIGN_OR_RETURN(const std::string greeting, client.ReadLine(deadline));
  if (!ParseObject(greeting).contains("QMP")) {
    return absl::UnavailableError("what answers on the control socket is not QMP");
  }
  absl::StatusOr<std::string> ready = client.Execute("qmp_capabilities", "", deadline);
  if (!ready.ok()) return ready.status();
  return client;
}

absl::StatusOr<std::string> QmpClient::ReadLine(Deadline deadline) {
  while (true) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (buffer_.size() > kMaxLineBytes) {
      return absl::UnavailableError("the VMM sent an endless line");
    }
    RETURN_IF_ERROR(WaitReady(fd_.get(), POLLIN, deadline));
    std::array<char, 16 * 1024> chunk;
    const ssize_t count = recv(fd_.get(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (count == 0) return absl::UnavailableError("the VMM closed its control socket");
    if (count < 0 && errno != EAGAIN && errno != EINTR) return ErrnoError(errno, "control socket");
    if (count > 0) buffer_.append(chunk.data(), static_cast<size_t>(count));
  }
}

absl::Status QmpClient::Send(std::string_view line, Deadline deadline) {
  while (!line.empty()) {
    RETURN_IF_ERROR(WaitReady(fd_.get(), POLLOUT, deadline));
    const ssize_t count = send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return ErrnoError(errno, "control socket");
    if (count > 0) line.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

// The first byte takes the fd along; what is left of `line` comes after it.
absl::Status QmpClient::SendFirstWith(int fd, std::string_view* line, Deadline deadline) {
  RETURN_IF_ERROR(WaitReady(fd_.get(), POLLOUT, deadline));
  iovec first{const_cast<char*>(line->data()), 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &first;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(int));
  if (sendmsg(fd_.get(), &message, MSG_NOSIGNAL) != 1) return ErrnoError(errno, "hand over a file");
  line->remove_prefix(1);
  return absl::OkStatus();
}

absl::StatusOr<std::string> QmpClient::Execute(std::string_view command,
                                               std::string_view arguments, Deadline deadline) {
  return ExecuteWithFd(command, arguments, -1, deadline);
}

absl::StatusOr<std::string> QmpClient::ExecuteWithFd(std::string_view command,
                                                     std::string_view arguments, int fd,
                                                     Deadline deadline) {
  std::string line = absl::StrCat("{\"execute\":\"", ToAbsl(command), "\"");
  if (!arguments.empty()) absl::StrAppend(&line, ",\"arguments\":", ToAbsl(arguments));
  absl::StrAppend(&line, "}\n");
  std::string_view rest = line;
  if (fd >= 0) RETURN_IF_ERROR(SendFirstWith(fd, &rest, deadline));
  RETURN_IF_ERROR(Send(rest, deadline));
  while (true) {
    ASSIGN_OR_RETURN(const std::string answer, ReadLine(deadline));
    const Json message = ParseObject(answer);
    if (message.is_null()) return absl::UnavailableError("the VMM sent broken JSON");
    if (message.contains("event")) {
      if (events_.size() == kMaxEvents) events_.pop_front();
      events_.push_back(EventText(message));
      continue;
    }
    if (message.contains("return")) {
      return Text(message.at("return"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the VMM refused ", ToAbsl(command), ": ", answer.substr(0, 512)));
  }
}

absl::StatusOr<std::string> QmpClient::QueryStatus(Deadline deadline) {
  ASSIGN_OR_RETURN(const std::string answer, Execute("query-status", "", deadline));
  const Json status = ParseObject(answer);
  if (!status.contains("status") || !status.at("status").is_string()) {
    return absl::UnavailableError("the VMM's status has no name");
  }
  return status.at("status").get<std::string>();
}

absl::Status QmpClient::Quit(Deadline deadline) {
  absl::StatusOr<std::string> answer = Execute("quit", "", deadline);
  // Gone before the answer was out is what was asked for.
  if (absl::IsUnavailable(answer.status())) return absl::OkStatus();
  return answer.status();
}

absl::StatusOr<std::string> QmpClient::NextEvent(Deadline deadline) {
  while (events_.empty()) {
    ASSIGN_OR_RETURN(const std::string line, ReadLine(deadline));
    const Json message = ParseObject(line);
    if (message.is_null()) return absl::UnavailableError("the VMM sent broken JSON");
    if (message.contains("event")) events_.push_back(EventText(message));
  }
  std::string event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace bunker::agent
