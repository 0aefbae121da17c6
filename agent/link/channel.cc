#include "agent/link/channel.h"

#include <arpa/inet.h>

#include "common/base/files.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace bunker::agent {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
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
  // A peer that vanished without a word is noticed within 15 s.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // One channel, one attempt: the link's own back-off decides when to dial again.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
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
