#include "agent/link/channel.h"

#include <arpa/inet.h>

#include <chrono>

#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace bunker::agent {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
constexpr int kStreamWindowBytes = 1 << 20;
constexpr size_t kMaxCaBytes = 4 << 20;
constexpr char kSystemCaFile[] = "/etc/ssl/certs/ca-certificates.crt";

std::string HostOf(const std::string& address) {
  if (!address.empty() && address[0] == '[') return address.substr(1, address.find(']') - 1);
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || address.find(':') != colon) return address;
  return address.substr(0, colon);
}

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  // A peer that vanished is noticed within 19 s: what the agent says at least every 14 seconds is
  // not acked by its TCP for five, which this time-out makes an error. The pings are for links
  // on which nobody says anything: between two of the controller's own they are not sent.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 25'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // No ping of gRPC's own for each of the controller's: see the server's side.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // One channel, one attempt: the link's own back-off decides when to dial again.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

// gRPC's threads for callbacks live as long as any channel that used them, and the last such
// channel joins them when it goes. A channel often goes in a callback, on one of those very
// threads (gRPC 1.51 aborts then). One that never goes, and never connects, keeps them.
void KeepCallbackThreads() {
  struct Keeper {
    std::shared_ptr<grpc::Channel> channel;
    std::unique_ptr<link::v1::AgentLink::Stub> stub;
    grpc::ClientContext context;
    link::v1::JoinRequest request;
    link::v1::JoinResponse response;
  };
  static const Keeper* const keeper = [] {
    auto* made = new Keeper;
    made->channel = grpc::CreateCustomChannel("127.0.0.1:1", grpc::InsecureChannelCredentials(),
                                              Arguments());
    made->stub = link::v1::AgentLink::NewStub(made->channel);
    made->context.set_deadline(std::chrono::system_clock::time_point());  // over before it begins
    made->stub->async()->Join(&made->context, &made->request, &made->response,
                              [](const grpc::Status&) {});
    return made;
  }();
  (void)keeper;
}

}  // namespace

bool IsLoopback(const std::string& address) {
  const std::string host = HostOf(address);
  if (host == "localhost") return true;
  in_addr v4 = {};
  if (::inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6 = {};
  return ::inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const LinkEndpoint& endpoint) {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (endpoint.tls) {
    const std::string path = endpoint.ca_file.empty() ? kSystemCaFile : endpoint.ca_file;
    auto roots = ReadFile(path, kMaxCaBytes);
    if (!roots.ok()) {
      return Annotate(roots.status(),
                      "the CA file for the controller (option ca_file of [controller])");
    }
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = *std::move(roots);
    credentials = grpc::SslCredentials(options);
  } else if (IsLoopback(endpoint.address)) {
    credentials = grpc::InsecureChannelCredentials();
  } else {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "VALIDATION_ERROR",
                       "the controller at " + endpoint.address +
                           " is not on this machine, and plain text would show the worker's "
                           "credential to the network; set tls = true under [controller], with "
                           "ca_file where the certificate is of a CA of your own");
  }
  KeepCallbackThreads();
  return grpc::CreateCustomChannel(endpoint.address, credentials, Arguments());
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const absl::Status plain(static_cast<absl::StatusCode>(status.error_code()),
                           status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return plain;
  for (const auto& any : details.details()) {
    google::rpc::ErrorInfo info;
    if (any.UnpackTo(&info)) return WithReason(plain, info.reason());
  }
  return plain;
}

}  // namespace bunker::agent
