#include "controller/link/server_parts.h"

#include <sys/resource.h>

#include "absl/synchronization/mutex.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::controller {
namespace {

constexpr int kMaxMessageBytes = 4 << 20;
constexpr size_t kMaxPemBytes = 1 << 20;
constexpr int kStreamWindowBytes = 1 << 20;
constexpr uint64_t kWantedFiles = 65'536;

}  // namespace

void ApplyServerDefaults(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 * 1024);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 1000);
  // What is alive says something every 14 seconds; this finds what vanished, and is rarely sent.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  // gRPC measures the bandwidth with a ping for every message after a pause: with thousands of
  // idle agents that is most of what there is to do. A fixed window instead.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> LoadServerCredentials(
    const std::string& cert_file, const std::string& key_file) {
  auto cert = ReadFile(cert_file, kMaxPemBytes);
  if (!cert.ok()) return Annotate(cert.status(), "the TLS certificate (cert_file)");
  auto key = ReadFile(key_file, kMaxPemBytes);
  if (!key.ok()) return Annotate(key.status(), "the TLS key (key_file)");
  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({*std::move(key), *std::move(cert)});
  return grpc::SslServerCredentials(options);
}

void TuneGrpc() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

uint64_t RaiseFileLimit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);  // what counts is read again
    (void)::getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < kWantedFiles) {
    Log(Severity::kWarning, "server.few_files",
        {{"limit", static_cast<uint64_t>(limit.rlim_cur)}, {"wanted", kWantedFiles},
         {"remedy", "LimitNOFILE= in the unit, or ulimit -n"}});
  }
  return limit.rlim_cur;
}

}  // namespace bunker::controller
