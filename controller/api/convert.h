// The model's rows → the public API's messages, and enums both ways.
//
// Thread-safe: free functions without state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "bunker/v1/bunker.pb.h"
#include "bunker/v1/group.pb.h"
#include "bunker/v1/image.pb.h"
#include "bunker/v1/worker.pb.h"
#include "common/base/log.h"
#include "controller/engine/engine.h"
#include "google/protobuf/generated_enum_reflection.h"
#include "google/protobuf/timestamp.pb.h"

namespace bunker::controller {

void SetTime(absl::Time time, google::protobuf::Timestamp* timestamp);

// The value of proto enum `descriptor` that the model spells `name`; 0 where it is none ("").
int ProtoEnumNumber(const google::protobuf::EnumDescriptor* descriptor, std::string_view name);
// How the model spells value `number`; "" for the unspecified one.
std::string ModelEnumName(const google::protobuf::EnumDescriptor* descriptor, int number);

// ToProto<v1::Scope>(Scope::kTenant); the unspecified value where the model has none.
template <typename P, typename E>
P ToProto(E value) {
  return static_cast<P>(ProtoEnumNumber(google::protobuf::GetEnumDescriptor<P>(), NameOf(value)));
}
template <typename P>
P ToProtoByName(std::string_view name) {
  return static_cast<P>(ProtoEnumNumber(google::protobuf::GetEnumDescriptor<P>(), name));
}

// Nothing for the unspecified value. REQUIRES: every other value is in the model too.
template <typename E, typename P>
std::optional<E> ToModel(P value) {
  if (static_cast<int>(value) == 0) return std::nullopt;
  const std::string name =
      ModelEnumName(google::protobuf::GetEnumDescriptor<P>(), static_cast<int>(value));
  const std::optional<E> found = ParseEnum<E>(name);
  BUNKER_CHECK(found.has_value());
  return found;
}

void ToMessage(const Image& image, const CacheSummary& cache, v1::Image* out);
void ToMessage(const WarmSummary& warm, v1::WarmSummary* out);
void ToMessage(const CacheView& view, v1::CacheRow* out);
void ToMessage(const Group& group, v1::AvailabilityGroup* out);
void ToMessage(const WorkerView& view, v1::Worker* out);
// With what of it the image has, if that is still known.
v1::Bunker BunkerRow(const Engine& engine, const Bunker& bunker);
void ToMessage(const Bunker& bunker, const Image* image, v1::Bunker* out);
v1::PlacementFailure ToMessage(const PlacementExplanation& why);

}  // namespace bunker::controller
