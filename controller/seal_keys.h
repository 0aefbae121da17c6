// The keys that registry credentials are sealed with: where they lie, and how they are rotated.
//
// Thread-safe: free functions. Blocking: before the daemon serves.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/seal/key_ring.h"
#include "controller/engine/engine.h"

namespace bunker::controller {

// `credentials.key` out of systemd's credentials where the unit loads one, else in the state
// folder, where one is made if there is none.
absl::StatusOr<KeyRing> LoadSealKeys(const std::string& state_dir);

// Seals anew what an older key has sealed, and logs what can't be opened any more. An event of the
// core's; once it is durable, only the ring's first key is needed.
void SealAnew(const KeyRing& keys, Engine& engine, Turn& turn);

// Puts a fresh key before the others in the state folder's file. The next start seals with it.
absl::Status RotateSealKey(const std::string& state_dir);

}  // namespace bunker::controller
