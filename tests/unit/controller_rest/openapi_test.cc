// The OpenAPI document against what it describes: the routes, the messages, and answers of a
// running gateway.
#include "controller/rest/openapi.h"

#include <set>
#include <string>

#include "bunker/v1/options.pb.h"
#include "controller/rest/openapi_schema.h"
#include "tests/unit/controller_rest/gateway_fixture.h"

namespace bunker::controller {
namespace {

class OpenApiTest : public GatewayFixture {
 protected:
  Json Document() {
    const Answer answer = Raw("GET", "/openapi.json", AuthHeader());
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.json;
  }

  static const Json& Schema(const Json& document, const std::string& name) {
    return document.at("components").at("schemas").at(name);
  }
};

// "GET /v1/…/{image}" of every operation.
std::set<std::string> OperationsOf(const Json& document) {
  std::set<std::string> found;
  for (const auto& [path, verbs] : document.at("paths").items()) {
    for (const auto& [verb, operation] : verbs.items()) found.insert(verb + " " + path);
  }
  return found;
}

void CollectRefs(const Json& value, std::set<std::string>* refs) {
  if (value.is_object() && value.contains("$ref")) refs->insert(value["$ref"].get<std::string>());
  if (!value.is_structured()) return;
  for (const Json& part : value) CollectRefs(part, refs);
}

TEST_F(OpenApiTest, HasTheRoutersRoutesAndNoOthers) {
  Boot();
  std::set<std::string> routed;
  for (const Route& route : gateway_->router().routes()) {
    std::string line;
    for (const char c : route.verb) line += static_cast<char>(::tolower(c));
    line += " ";
    for (const auto& segment : route.segments)
      line += "/" + (segment.is_variable ? "{" + segment.text + "}" : segment.text);
    routed.insert(line);
  }
  EXPECT_EQ(OperationsOf(Document()), routed);
}

TEST_F(OpenApiTest, EveryReferenceLeadsSomewhere) {
  Boot();
  const Json document = Document();
  std::set<std::string> refs;
  CollectRefs(document, &refs);
  EXPECT_GT(refs.size(), 20u);
  for (const std::string& ref : refs) {
    EXPECT_TRUE(document.contains(Json::json_pointer(ref.substr(1)))) << ref;
  }
  std::set<std::string> ids;
  for (const auto& [path, verbs] : document.at("paths").items()) {
    for (const auto& [verb, operation] : verbs.items())
      EXPECT_TRUE(ids.insert(operation.at("operationId").get<std::string>()).second) << path;
  }
}

TEST_F(OpenApiTest, WhatIsNotBuiltIsNotThere) {
  Boot();
  const Json document = Document();
  int checked = 0;
  for (const Route& route : gateway_->router().routes()) {
    const auto* request = route.method->input_type();
    if (route.body == "*" && document["components"]["schemas"].contains(request->name())) {
      const Json& properties = Schema(document, request->name()).at("properties");
      for (int i = 0; i < request->field_count(); ++i) {
        if (!SchemaBuilder::IsBuilt(request->field(i))) {
          EXPECT_FALSE(properties.contains(request->field(i)->name())) << request->name();
        }
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 10);
}

TEST_F(OpenApiTest, ARowHasTheFieldsThatItsSchemaSays) {
  Boot();
  const Answer made = Call("POST", "/images",
                           R"({"name": "x", "build_source": {"kind": "oci", "ref": "a/b:1"},
                               "size_mib": 16})");
  ASSERT_EQ(made.status, 201) << made.body;
  const Json document = Document();
  const Json& schema = Schema(document, "Image");
  std::set<std::string> said;
  for (const Json& name : schema.at("required")) said.insert(name.get<std::string>());
  std::set<std::string> sent;
  for (const auto& [name, value] : made.data().items()) {
    sent.insert(name);
    const Json& property = schema.at("properties").at(name);
    if (!value.is_null()) continue;
    const bool null_allowed =
        (property.contains("anyOf") && property["anyOf"][1]["type"] == "null") ||
        (property.contains("type") && property["type"].is_array());
    EXPECT_TRUE(null_allowed) << name << " is null, its schema says " << property;
  }
  EXPECT_EQ(sent, said);
}

TEST_F(OpenApiTest, BoundsInTheDocumentAreTheGateways) {
  Boot();
  const Json document = Document();
  const Json& size = Schema(document, "RegisterImageRequest").at("properties").at("size_mib");
  const auto register_size = [this](const std::string& name, uint64_t mib) {
    return Call("POST", "/images",
                R"({"name": ")" + name + R"(", "build_source": {"kind": "oci", "ref": "a/b:1"},
                    "size_mib": )" +
                    std::to_string(mib) + "}")
        .status;
  };
  const uint64_t min = size.at("minimum");
  const uint64_t max = size.at("maximum");
  EXPECT_EQ(register_size("a", min - 1), 422);
  EXPECT_EQ(register_size("b", min), 201);
  EXPECT_EQ(register_size("c", max), 201);
  EXPECT_EQ(register_size("d", max + 1), 422);
}

TEST_F(OpenApiTest, IsServedToWhoHasAKeyAndOnlyWhenItChanged) {
  Boot();
  EXPECT_EQ(Raw("GET", "/openapi.json", "").code(), "AUTH_TOKEN_MISSING");
  const Answer first = Raw("GET", "/openapi.json", AuthHeader());
  EXPECT_EQ(first.headers.at("content-type"), "application/json");
  const std::string etag = first.headers.at("etag");
  const Answer again = Raw("GET", std::string(kModule) + "/openapi.json",
                           AuthHeader() + "If-None-Match: " + etag + "\r\n");
  EXPECT_EQ(again.status, 304);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(Raw("GET", "/openapi.json", AuthHeader() + "If-None-Match: \"x\"\r\n").status, 200);
  const Answer post = Raw("POST", "/openapi.json", AuthHeader());
  EXPECT_EQ(post.status, 405);
  EXPECT_EQ(post.headers.at("allow"), "GET");
}

TEST_F(OpenApiTest, NoBodyIsAnEmptyObject) {
  Boot();
  const Answer answer = Call("POST", "/images");
  EXPECT_EQ(answer.code(), "VALIDATION_ERROR");
  EXPECT_EQ(answer.field(), "name");
  EXPECT_EQ(Raw("POST", std::string(kModule) + "/images",
                AuthHeader() + "Content-Type: text/plain\r\n", "x")
                .code(),
            "UNSUPPORTED_MEDIA_TYPE");
}

}  // namespace
}  // namespace bunker::controller
