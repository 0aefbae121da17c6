// An image's own login, asked for over the link. Kept by nobody: each pull asks.
#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "agent/link/login_client.h"
#include "agent/reconcile/image_job.h"
#include "common/base/cancel.h"
#include "common/base/status_macros.h"

namespace bunker::agent {

// Thread-safe. `identity` must outlive it.
class ControllerLogins final : public LoginSource {
 public:
  ControllerLogins(LinkEndpoint endpoint, const Identity& identity)
      : endpoint_(std::move(endpoint)), identity_(identity) {}

  absl::StatusOr<RegistryLogin> LoginOf(const std::string& image_id, CancelToken& cancel) override {
    ASSIGN_OR_RETURN(const link::v1::RegistryLogin login,
                     FetchRegistryLogin(endpoint_, identity_, image_id, kTimeout, cancel));
    return RegistryLogin{login.name(), login.host(), login.username(), login.password()};
  }

 private:
  static constexpr absl::Duration kTimeout = absl::Seconds(30);

  const LinkEndpoint endpoint_;
  const Identity& identity_;
};

}  // namespace bunker::agent
