// Opaque cursors: where the next page begins, bound to the tenant and the list it came from, so
// that a cursor neither works elsewhere nor can be made up.
//
// Immutable: thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "controller/engine/specs.h"

namespace bunker::controller {

inline constexpr uint32_t kDefaultPageLimit = 50;
inline constexpr uint32_t kMaxPageLimit = 200;

class Cursors {
 public:
  // `secret`: at least 32 random bytes; another one makes older cursors invalid.
  explicit Cursors(std::string secret) : secret_(std::move(secret)) {}

  std::string Make(std::string_view tenant_id, std::string_view list,
                   std::string_view after_id) const;

  // The page that a request asks for. VALIDATION_ERROR for a limit outside 1…200 and for a cursor
  // that this list did not give this tenant.
  absl::StatusOr<PageSpec> Parse(std::string_view tenant_id, std::string_view list,
                                 std::optional<uint32_t> limit,
                                 std::optional<std::string> cursor) const;

  // The same from any list request.
  template <typename Request>
  absl::StatusOr<PageSpec> PageOf(std::string_view tenant_id, std::string_view list,
                                  const Request& request) const {
    return Parse(tenant_id, list,
                 request.has_limit() ? std::optional<uint32_t>(request.limit()) : std::nullopt,
                 request.has_cursor() ? std::optional<std::string>(request.cursor())
                                      : std::nullopt);
  }

 private:
  std::string Sign(std::string_view tenant_id, std::string_view list,
                   std::string_view after_id) const;

  const std::string secret_;
};

}  // namespace bunker::controller
