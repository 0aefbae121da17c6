#include "controller/rest/router.h"

#include <algorithm>

#include <fmt/format.h>

#include "common/base/converters.h"
#include "common/base/status_macros.h"
#include "controller/rest/http_head.h"
#include "google/api/annotations.pb.h"

namespace bunker::controller {
namespace {

using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

std::vector<std::string_view> Split(std::string_view path) {
  std::vector<std::string_view> parts;
  if (!path.empty()) path.remove_prefix(1);
  while (true) {
    const size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    path.remove_prefix(slash + 1);
  }
}

absl::Status Broken(const MethodDescriptor* method, std::string_view what) {
  return absl::InternalError(fmt::format("{}: {}", method->full_name(), what));
}

absl::StatusOr<Route> MakeRoute(const MethodDescriptor* method, const google::api::HttpRule& rule) {
  Route route;
  route.method = method;
  route.body = rule.body();
  std::string path;
  switch (rule.pattern_case()) {
    case google::api::HttpRule::kGet: route.verb = "GET"; path = rule.get(); break;
    case google::api::HttpRule::kPut: route.verb = "PUT"; path = rule.put(); break;
    case google::api::HttpRule::kPost: route.verb = "POST"; path = rule.post(); break;
    case google::api::HttpRule::kDelete: route.verb = "DELETE"; path = rule.delete_(); break;
    case google::api::HttpRule::kPatch: route.verb = "PATCH"; path = rule.patch(); break;
    default: return Broken(method, "has no http rule");
  }
  if (path.empty() || path[0] != '/') return Broken(method, "its path does not begin with /");
  const auto* request = method->input_type();
  for (const std::string_view part : Split(path)) {
    Route::Segment segment;
    segment.is_variable = part.size() > 2 && part.front() == '{' && part.back() == '}';
    segment.text = std::string(segment.is_variable ? part.substr(1, part.size() - 2) : part);
    if (segment.is_variable && request->FindFieldByName(segment.text) == nullptr)
      return Broken(method, fmt::format("the request has no field {}", segment.text));
    if (segment.text.empty() || segment.text.find_first_of("{}*=:") != std::string::npos)
      return Broken(method, fmt::format("the path {} has a segment of another kind", path));
    route.segments.push_back(std::move(segment));
  }
  const bool has_body_field = !route.body.empty() && route.body != "*";
  if (has_body_field && request->FindFieldByName(route.body) == nullptr)
    return Broken(method, fmt::format("the request has no field {}", route.body));
  return route;
}

bool SameShape(const Route& a, const Route& b) {
  if (a.verb != b.verb || a.segments.size() != b.segments.size()) return false;
  for (size_t i = 0; i < a.segments.size(); ++i) {
    if (a.segments[i].is_variable != b.segments[i].is_variable) return false;
    if (!a.segments[i].is_variable && a.segments[i].text != b.segments[i].text) return false;
  }
  return true;
}

bool Matches(const Route& route, const std::vector<std::string>& parts) {
  if (route.segments.size() != parts.size()) return false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (route.segments[i].is_variable ? parts[i].empty() : route.segments[i].text != parts[i])
      return false;
  }
  return true;
}

// Of two routes that match one path: is `a` literal where they first differ?
bool MoreLiteral(const Route& a, const Route& b) {
  for (size_t i = 0; i < a.segments.size(); ++i) {
    if (a.segments[i].is_variable != b.segments[i].is_variable) return b.segments[i].is_variable;
  }
  return false;
}

}  // namespace

std::string TemplateOf(const Route& route) {
  std::string path;
  for (const Route::Segment& segment : route.segments)
    path += "/" + (segment.is_variable ? "{" + segment.text + "}" : segment.text);
  return path;
}

absl::StatusOr<Router> Router::Build(const std::vector<const ServiceDescriptor*>& services) {
  Router router;
  for (const ServiceDescriptor* service : services) {
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor* method = service->method(i);
      const google::api::HttpRule& rule = method->options().GetExtension(google::api::http);
      const bool has_route = rule.pattern_case() != google::api::HttpRule::PATTERN_NOT_SET;
      if (method->server_streaming() && !has_route) continue;  // gRPC alone
      ASSIGN_OR_RETURN(Route route, MakeRoute(method, rule));
      router.routes_.push_back(std::move(route));
      for (const google::api::HttpRule& more : rule.additional_bindings()) {
        ASSIGN_OR_RETURN(Route other, MakeRoute(method, more));
        router.routes_.push_back(std::move(other));
      }
    }
  }
  for (size_t i = 0; i < router.routes_.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (SameShape(router.routes_[i], router.routes_[j])) {
        return absl::InternalError(fmt::format("{} and {} have the same route",
                                               router.routes_[i].method->full_name(),
                                               router.routes_[j].method->full_name()));
      }
    }
  }
  return router;
}

Router::Match Router::Find(std::string_view verb, std::string_view path) const {
  std::vector<std::string> parts;
  for (const std::string_view part : Split(path)) parts.push_back(PercentDecode(part, false));
  Match match;
  for (const Route& route : routes_) {
    if (!Matches(route, parts)) continue;
    if (route.verb != verb) {
      if (std::find(match.allowed.begin(), match.allowed.end(), route.verb) == match.allowed.end())
        match.allowed.push_back(route.verb);
    } else if (match.route == nullptr || MoreLiteral(route, *match.route)) {
      match.route = &route;
    }
  }
  if (match.route == nullptr) {
    std::sort(match.allowed.begin(), match.allowed.end());
    return match;
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    if (match.route->segments[i].is_variable)
      match.variables.emplace_back(match.route->segments[i].text, std::move(parts[i]));
  }
  return match;
}

}  // namespace bunker::controller
