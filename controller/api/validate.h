// The form of what clients send: names, sizes, texts. Every refusal names the field, the cause and
// what to send instead. What depends on state is the engine's.
//
// Not thread-safe: one validator, one request.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "bunker/v1/bunker.pb.h"
#include "bunker/v1/group.pb.h"
#include "bunker/v1/image.pb.h"
#include "bunker/v1/registry_credential.pb.h"
#include "bunker/v1/worker.pb.h"
#include "controller/api/errors.h"

namespace bunker::controller {

class Validator {
 public:
  void Refuse(std::string_view field, std::string_view message);

  // [a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?, not the form of an id or a UUID.
  void Name(std::string_view field, std::string_view value);
  void Range(std::string_view field, uint64_t value, uint64_t min, uint64_t max);
  // At most `max_characters` (code points), no NUL.
  void Text(std::string_view field, std::string_view value, size_t max_characters);
  void Required(std::string_view field, std::string_view value);

  // OK, or VALIDATION_ERROR with everything that was refused.
  absl::Status status() const;
  size_t count() const { return violations_.size(); }
  const std::vector<FieldViolation>& violations() const { return violations_; }

 private:
  std::vector<FieldViolation> violations_;
};

// Reports whether `text` has the form of an id of any noun ("img_…", "bnk_…").
bool HasIdPrefix(std::string_view text);

absl::Status ValidateRegisterImage(const v1::RegisterImageRequest& request);
absl::Status ValidateUpdateImage(const v1::UpdateImageRequest& request);
// The host is the service's to read.
absl::Status ValidateCredential(const v1::CreateRegistryCredentialRequest& request);
absl::Status ValidateCreateGroup(const v1::CreateAvailabilityGroupRequest& request);
absl::Status ValidatePatchGroup(const v1::PatchAvailabilityGroupRequest& request);
absl::Status ValidatePlanGroup(const v1::PlanAvailabilityGroupRequest& request);
absl::Status ValidateBunkerSpec(const v1::BunkerSpec& spec);
// `renames`: the name is one of the fields that are to change.
absl::Status ValidateUpdateBunker(const v1::UpdateBunkerRequest& request, bool renames);
absl::Status ValidateWorkerLabels(const google::protobuf::Map<std::string, std::string>& labels);
absl::Status ValidateWorkerToken(const v1::CreateWorkerTokenRequest& request);
absl::Status ValidateDrain(const v1::DrainWorkerRequest& request);
absl::Status ValidateExec(const v1::ExecRequest& request);

inline constexpr char kJsonKeyUser[] = "_json_key";  // who a one-line JSON key belongs to
inline constexpr size_t kMaxSecretBytes = 32u << 10;
inline constexpr uint32_t kMaxWaitSeconds = 60;
inline constexpr uint32_t kDefaultExecSeconds = 60;
inline constexpr uint32_t kMaxExecSeconds = 3600;

}  // namespace bunker::controller
