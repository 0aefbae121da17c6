#include "controller/rest/router.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "controller/api/auth.h"
#include "controller/rest/gateway.h"
#include "google/api/annotations.pb.h"
#include "google/protobuf/descriptor.pb.h"

namespace bunker::controller {
namespace {

constexpr char kMount[] = "/v1/modules/scaibunker";

Router PublicRouter() { return *Router::Build(PublicServices()); }

TEST(RouterTest, EveryRpcHasARouteAndARule) {
  const Router router = PublicRouter();
  std::set<std::string> routed;
  for (const Route& route : router.routes()) routed.insert(route.method->full_name());
  std::set<std::string> ruled, seen;
  for (const MethodRule& rule : MethodRules()) {
    EXPECT_TRUE(seen.insert(rule.method).second) << rule.method;
    // A stream of gRPC's own: REST has the same one as the events of another route.
    const auto* method =
        google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(rule.method);
    ASSERT_NE(method, nullptr) << rule.method;
    const bool has_route = method->options().GetExtension(google::api::http).pattern_case() !=
                           google::api::HttpRule::PATTERN_NOT_SET;
    if (!method->server_streaming() || has_route) ruled.insert(rule.method);
  }
  EXPECT_EQ(routed, ruled);
}

TEST(RouterTest, FindsVariables) {
  const Router router = PublicRouter();
  const auto match = router.Find(
      "DELETE", std::string(kMount) + "/availability-groups/ag_1/images/docker.io%2Fr-base:4.4");
  ASSERT_NE(match.route, nullptr);
  EXPECT_EQ(match.route->method->name(), "DetachImage");
  ASSERT_EQ(match.variables.size(), 2u);
  EXPECT_EQ(match.variables[0], std::make_pair(std::string("group"), std::string("ag_1")));
  EXPECT_EQ(match.variables[1].second, "docker.io/r-base:4.4");
}

TEST(RouterTest, TellsAWrongVerbFromAWrongPath) {
  const Router router = PublicRouter();
  EXPECT_EQ(router.Find("PUT", std::string(kMount) + "/images").allowed,
            (std::vector<std::string>{"GET", "POST"}));
  for (const char* path : {"/", "/v1", "/v1/modules/scaibunker", "/v1/modules/scaibunker/images/",
                           "/v1/modules/scaibunker/image", "/V1/modules/scaibunker/images"}) {
    const auto match = router.Find("GET", path);
    EXPECT_EQ(match.route, nullptr) << path;
    EXPECT_TRUE(match.allowed.empty()) << path;
  }
}

TEST(RouterTest, HealthIsAtTheRootAndUnderTheModule) {
  const Router router = PublicRouter();
  for (const char* path : {"/health", "/ready", "/v1/modules/scaibunker/health",
                           "/v1/modules/scaibunker/ready"})
    EXPECT_NE(router.Find("GET", path).route, nullptr) << path;
}

// A service made at run time, from pairs of (method, GET path).
const google::protobuf::ServiceDescriptor* MakeService(
    google::protobuf::DescriptorPool* pool,
    const std::vector<std::pair<std::string, std::string>>& methods) {
  google::protobuf::FileDescriptorProto file;
  file.set_name("test.proto");
  file.set_syntax("proto3");
  file.add_dependency("google/api/annotations.proto");
  auto* request = file.add_message_type();
  request->set_name("Request");
  for (const char* name : {"a", "b"}) {
    auto* field = request->add_field();
    field->set_name(name);
    field->set_number(request->field_size());
    field->set_type(google::protobuf::FieldDescriptorProto::TYPE_STRING);
    field->set_label(google::protobuf::FieldDescriptorProto::LABEL_OPTIONAL);
  }
  auto* service = file.add_service();
  service->set_name("Test");
  for (const auto& [name, path] : methods) {
    auto* method = service->add_method();
    method->set_name(name);
    method->set_input_type("Request");
    method->set_output_type("Request");
    method->mutable_options()->MutableExtension(google::api::http)->set_get(path);
  }
  const auto* built = pool->BuildFile(file);
  return built == nullptr ? nullptr : built->service(0);
}

class MadeRouterTest : public testing::Test {
 protected:
  MadeRouterTest() : pool_(google::protobuf::DescriptorPool::generated_pool()) {}
  google::protobuf::DescriptorPool pool_;
};

TEST_F(MadeRouterTest, TheLeftmostLiteralWins) {
  const auto* service = MakeService(
      &pool_, {{"Both", "/x/{a}/{b}"}, {"Right", "/x/{a}/end"}, {"Left", "/x/start/{b}"}});
  ASSERT_NE(service, nullptr);
  const Router router = *Router::Build({service});
  EXPECT_EQ(router.Find("GET", "/x/start/end").route->method->name(), "Left");
  EXPECT_EQ(router.Find("GET", "/x/other/end").route->method->name(), "Right");
  EXPECT_EQ(router.Find("GET", "/x/other/thing").route->method->name(), "Both");
  EXPECT_EQ(router.Find("GET", "/x//end").route, nullptr);
}

TEST_F(MadeRouterTest, AmbiguousRoutesFailAtTheStart) {
  const auto* service = MakeService(&pool_, {{"One", "/x/{a}"}, {"Two", "/x/{b}"}});
  ASSERT_NE(service, nullptr);
  EXPECT_FALSE(Router::Build({service}).ok());
}

TEST_F(MadeRouterTest, UnknownFieldsFailAtTheStart) {
  const auto* service = MakeService(&pool_, {{"One", "/x/{nope}"}});
  ASSERT_NE(service, nullptr);
  EXPECT_FALSE(Router::Build({service}).ok());
}

}  // namespace
}  // namespace bunker::controller
