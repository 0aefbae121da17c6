// Which RPC a verb and a path mean: built from the google.api.http annotations of the public
// services, so that REST and gRPC can't drift.
//
// Immutable after Build(): thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/descriptor.h"

namespace bunker::controller {

struct Route {
  const google::protobuf::MethodDescriptor* method = nullptr;
  std::string verb;
  struct Segment {
    bool is_variable = false;
    std::string text;  // the literal, or the request's field
  };
  std::vector<Segment> segments;
  std::string body;  // "": none, "*": the request, else: a field of it
};

// "/v1/…/images/{image}".
std::string TemplateOf(const Route& route);

class Router {
 public:
  // Fails on a template that it does not understand, on a field that the request does not have,
  // and on two routes that one path could mean.
  static absl::StatusOr<Router> Build(
      const std::vector<const google::protobuf::ServiceDescriptor*>& services);

  struct Match {
    const Route* route = nullptr;  // nullptr: no such path, or not with this verb
    std::vector<std::pair<std::string, std::string>> variables;  // field, decoded value
    std::vector<std::string> allowed;  // verbs the path does have, where route is nullptr
  };
  // `path` has passed CheckTarget(). Where a literal and a variable segment both match, the
  // leftmost literal wins.
  Match Find(std::string_view verb, std::string_view path) const;

  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

}  // namespace bunker::controller
