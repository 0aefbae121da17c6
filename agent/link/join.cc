#include "agent/link/join.h"

#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "bunker/link/v1/agent_link.grpc.pb.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/reason.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr absl::Duration kJoinTimeout = absl::Seconds(15);
constexpr size_t kMaxTokenBytes = 4096;
constexpr char kTokenVariable[] = "BUNKER_JOIN_TOKEN";

// The token, or "" where none is given.
absl::StatusOr<std::string> FindToken(const std::string& token_file) {
  if (!token_file.empty()) {
    auto text = ReadFile(token_file, kMaxTokenBytes);
    if (text.ok()) return std::string(absl::StripAsciiWhitespace(*text));
    if (!absl::IsNotFound(text.status())) return Annotate(text.status(), "join_token_file");
  }
  const char* variable = std::getenv(kTokenVariable);
  return variable == nullptr ? std::string() : std::string(absl::StripAsciiWhitespace(variable));
}

}  // namespace

absl::StatusOr<Identity> Join(const LinkEndpoint& endpoint, const std::string& token,
                              const std::string& worker_name, absl::Duration timeout) {
  ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, OpenChannel(endpoint));
  const auto stub = link::v1::AgentLink::NewStub(channel);
  link::v1::JoinRequest request;
  request.set_token(token);
  request.set_worker_name(worker_name);
  link::v1::JoinResponse response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  const grpc::Status status = stub->Join(&context, request, &response);
  if (!status.ok())
    return Annotate(FromGrpc(status), "joining the controller at " + endpoint.address);
  if (response.worker_id().empty() || response.credential().empty()) {
    return ReasonError(absl::StatusCode::kInternal, "INTERNAL",
                       "the controller's answer to the join holds no credential; check that both "
                       "sides are of one version");
  }
  return Identity{response.worker_id(), worker_name, response.credential(), endpoint.address};
}

absl::StatusOr<Identity> JoinAndSave(const LinkEndpoint& endpoint, const std::string& token,
                                     const std::string& worker_name, const std::string& state_dir,
                                     bool replace) {
  const std::string path = IdentityPath(state_dir);
  const auto known = LoadIdentity(path);
  if (!replace && !absl::IsNotFound(known.status())) {
    return ReasonError(absl::StatusCode::kAlreadyExists, "RESOURCE_IN_USE",
                       "this agent has joined before (" + path +
                           "); remove that file first if it is to join anew");
  }
  RETURN_IF_ERROR(MakeFolders(state_dir, 0700));
  ASSIGN_OR_RETURN(const Identity identity, Join(endpoint, token, worker_name, kJoinTimeout));
  RETURN_IF_ERROR(Annotate(SaveIdentity(path, identity), "saving the identity"));
  Log(Severity::kInfo, "agent.joined",
      {{"worker", identity.worker_id}, {"name", worker_name}, {"controller", endpoint.address}});
  return identity;
}

absl::StatusOr<Identity> LoadOrJoin(const LinkEndpoint& endpoint, const std::string& worker_name,
                                    const std::string& state_dir, const std::string& token_file) {
  auto identity = LoadIdentity(IdentityPath(state_dir));
  if (!absl::IsNotFound(identity.status())) return identity;
  ASSIGN_OR_RETURN(const std::string token, FindToken(token_file));
  if (token.empty()) {
    return ReasonError(absl::StatusCode::kFailedPrecondition, "AUTH_TOKEN_MISSING",
                       "this agent has not joined a controller yet; on the controller run "
                       "`bunker-controller join-token --worker " + worker_name +
                           "`, then here `bunker-agent join --token TOKEN`, or give the token by "
                           "join_token_file or " + kTokenVariable);
  }
  ASSIGN_OR_RETURN(identity, JoinAndSave(endpoint, token, worker_name, state_dir, false));
  // It is of no use to anyone now. Where the file can't be removed, that is no reason to stop.
  if (!token_file.empty()) (void)::unlink(token_file.c_str());
  return identity;
}

}  // namespace bunker::agent
